"""Everything that README.md or docs/ ever showed still works: commands, options, trainers, MONAI names, imports.

The lists are written down here and not read from the code: a name that disappears fails a test.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

OPTIONS = {
    "demo": "--epochs-trainer-suffix --from-stylizer --gray --grey --minutes-pretrain --output "
    "--quick --repeats --seed --source "
    "--source-test --target -device",
    "evaluate": "--allow-missing --classes --images --lesion-overlap --metrics --normalize --probabilities --protocol "
    "--scale --threshold --tolerance -np -o -p -r",
    "export": "--direction --format --overwrite --readout --stylizer -c -chk -d -f -i -o -p -tr",
    "info": "--audit --json",
    "prepare": "--channel-names --folds --foreground --gray --grey --group-pattern --groups --images --labels --layout "
    "--mask-suffix --masks --outside-field --overwrite --seed --test --test-groups --threshold --train --val "
    "-d -i -name -o",
    "pretrain_stylizer": "--adapt-iterations --adapt-learning-rate --batch-size --calibrator-iterations "
    "--checkpoint-every --clip --compile --detail --distil --distil-iterations --from-stylizer --grid-every "
    "--gray --grey --hold-back --images --intensity-range --iterations --learning-rate --losses --max-images "
    "--minutes --no-distil "
    "--output --overwrite --pair --precision --preset --readout --recipe --recompute --resume --seed --style "
    "--style-source-image --tensorboard -c -d -device -f -p",
    "report": "--data --from-stylizer --gray --grey --groups --iterations --output --side --source "
    "--source-test --target "
    "--without-images -device -np -o",
    "stylize": "--audit --compile --detail --direction --gray --grey --masks --no-gate --num-parts --part-id "
    "--precision --readout "
    "--segmenter --strength --stylizer -device -i -o",
}  # fmt: skip
EVERY_COMMAND = ("--help", "--version")
LENGTHS = {
    "OSASIS": "1epoch 5epochs 10epochs 20epochs 50epochs 100epochs 250epochs 500epochs 750epochs 2000epochs 4000epochs "
    "8000epochs",
    "FDA": "5epochs 10epochs 20epochs",
    "GIN": "5epochs 10epochs 20epochs",
    "HistogramMatching": "5epochs 10epochs 20epochs",
    "Reinhard": "5epochs 10epochs 20epochs",
    "PraNet": "5epochs 20epochs 100epochs",
    "OSASISPraNet": "5epochs 20epochs 100epochs",
    "UNetPlusPlus": "5epochs 20epochs 100epochs",
    "OSASISUNetPlusPlus": "5epochs 20epochs 100epochs",
}
IMPORTS = {
    "nnunet_osasis": "DiffusionAutoencoder OSASISStylizer OsasisError StructurePreservingNetwork StylizerConfig",
    "nnunet_osasis.acquisition": "family_for register",
    "nnunet_osasis.controls": "GIN ColourJitter FourierDomainAdaptation HistogramMatching HistogramShift Identity "
    "PooledReinhard Reinhard",
    "nnunet_osasis.evaluation.metrics": "METRICS choose_protocol score_case score_folder score_labels",
    "nnunet_osasis.gate": "Decision Gated GateThresholds Segmenter StructureGate StructureScores calibrate_gate "
    "score_structure",
    "nnunet_osasis.metrics": "METRICS choose_protocol score_case score_folder score_labels",
    "nnunet_osasis.networks": "PraNet StructureLoss UNetPlusPlus",
    "nnunet_osasis.transfer": "StyleTransfer",
}
MONAI = [
    f"{kind}{ending}"
    for kind in ("OSASISStylize", "RandOSASISStylize", "StyleTransform", "RandStyleTransform")
    for ending in ("", "d", "D", "Dict")
]
TRAINERS = [
    f"nnUNetTrainer{kind}{length}"
    for kind, lengths in LENGTHS.items()
    for length in ("", *(f"_{length}" for length in lengths.split()))
]


@pytest.mark.parametrize("command", OPTIONS)
def test_every_option_of_a_command_is_still_there(command: str) -> None:
    console = f"osasis-{command.replace('_', '-')}"
    assert console in {entry.name for entry in importlib.metadata.entry_points(group="console_scripts")}
    line = [sys.executable, "-m", f"nnunet_osasis.scripts.{command}", "--help"]
    shown = subprocess.run(line, capture_output=True, text=True, check=True).stdout.replace(",", " ")
    words = {word.strip("[]|") for word in shown.split()}
    assert {*OPTIONS[command].split(), *EVERY_COMMAND} - words == set()


@pytest.mark.parametrize("command", OPTIONS)
def test_every_command_names_its_version(command: str) -> None:
    line = [sys.executable, "-m", f"nnunet_osasis.scripts.{command}", "--version"]
    shown = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    assert importlib.metadata.version("nnunet-osasis") in shown


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_trainer_is_found_by_nnunet(trainer: str) -> None:
    found = recursive_find_trainer_class_by_name(trainer)
    assert found.__name__ == trainer
    assert issubclass(found, nnUNetTrainer)


@pytest.mark.parametrize("name", MONAI)
def test_every_monai_name_is_there(name: str) -> None:
    assert callable(getattr(importlib.import_module("monai_transforms"), name))


@pytest.mark.parametrize("module", IMPORTS)
def test_every_import_of_the_documents_works(module: str) -> None:
    loaded = importlib.import_module(module)
    assert [name for name in IMPORTS[module].split() if not hasattr(loaded, name)] == []
