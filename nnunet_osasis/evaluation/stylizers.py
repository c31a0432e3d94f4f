"""Stylizers for an experiment, made by the public command on the training images and the one reference."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment import Experiment, StylizerSpec
from nnunet_osasis.evaluation.method_list import MethodSpec
from nnunet_osasis.evaluation.preparation import Prepared
from nnunet_osasis.runtime.children import child_command
from nnunet_osasis.runtime.records import finished, write_sealed_json
from nnunet_osasis.runtime.storage import atomic_write, ensure_writable, sha256_of_json
from nnunet_osasis.stylizer.serialization import INDEX, is_stylizer_folder, read_index, stylizer_digest
from nnunet_osasis.training.build import WORK


def write_pictures(folder: Path, images: dict[str, np.ndarray]) -> None:
    """Pictures ``(C, H, W)`` uint8 as PNG files, by name."""
    for name, image in images.items():
        picture = Image.fromarray(image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1))
        atomic_write(folder / f"{name}.png", partial(picture.save, format="PNG"))


def make_stylizer(
    folder: Path,
    prepared: Prepared,
    target: str,
    spec: StylizerSpec,
    *,
    losses: str,
    pretrained: Path | None,
    device: str,
) -> list[str]:
    """Make the stylizer of one target and loss preset unless it is there; returns the command.

    Args:
        folder: of the stylizer. pretrained: a stylizer of the same source images whose autoencoder is taken.

    Raises ``OsasisError`` when the command fails (its own message is on the screen); an interrupted one is resumed.
    """
    inputs = folder.parent / "inputs"
    images, reference = inputs / "training_images", inputs / f"reference_{target}"
    arguments = ["--images", str(images), "--style", str(reference / "reference.png"), "--output", str(folder)]
    arguments += ["--preset", spec.preset, "-device", device]
    if pretrained is not None:
        arguments += ["--from-stylizer", str(pretrained)]
    elif spec.iterations is not None:
        arguments += ["--iterations", str(spec.iterations)]
    if spec.adapt_iterations is not None:
        arguments += ["--adapt-iterations", str(spec.adapt_iterations)]
    if spec.calibrator_iterations is not None:
        arguments += ["--calibrator-iterations", str(spec.calibrator_iterations)]
    arguments += ["--losses", losses]
    digest = None if pretrained is None else stylizer_digest(pretrained)
    options = {"preset": spec.preset, "losses": losses, "adapt_iterations": spec.adapt_iterations,
               "calibrator_iterations": spec.calibrator_iterations}  # fmt: skip
    pretraining = spec.iterations if digest is None else digest
    reference_hash = prepared.report["references"][target]["sha256"]
    key = sha256_of_json([prepared.sha256(), reference_hash, options, pretraining])
    remembered = folder.parent / f"{folder.name}.json"
    same = finished(remembered, key) is not None
    command = ["osasis-pretrain-stylizer", *arguments]
    if same and is_stylizer_folder(folder):
        return command
    shutil.rmtree(images, ignore_errors=True)
    write_pictures(images, dict(zip(prepared.train_names, prepared.train, strict=True)))
    write_pictures(reference, {"reference": prepared.references[target]})
    ensure_writable(folder)
    if not same:  # before the record says otherwise: what is there of another stylizer must not pass for the new one
        (folder / INDEX).unlink(missing_ok=True)
        shutil.rmtree(folder / WORK, ignore_errors=True)
    write_sealed_json(remembered, {"key": key, "command": command})
    module = child_command("nnunet_osasis.scripts.pretrain_stylizer")
    ended = subprocess.run([*module, *arguments, "--resume" if same else "--overwrite"], check=False)
    if ended.returncode == 130 or ended.returncode < 0:
        raise KeyboardInterrupt
    if ended.returncode != 0:
        raise OsasisError(
            "The stylizer must be made",
            found=f"exit status {ended.returncode} of osasis-pretrain-stylizer for {target}",
            remedy="Its message is above. The same command goes on from what is finished.",
        )
    return command


def make_stylizers(
    experiment: Experiment,
    prepared: Prepared,
    root: Path,
    *,
    pretrained: Path | None,
    device: str,
    say: Callable[[str], None],
) -> tuple[dict[tuple[str, str], Path], list[list[str]]]:
    """A stylizer per target and loss preset that the methods ask for; the first lends the others its autoencoder."""
    found, commands, lender = dict[tuple[str, str], Path](), [], pretrained
    wanted = [losses_of(m) for m in experiment.methods if m.kind == "osasis"]
    for target in [t.name for t in experiment.targets] if wanted else []:
        for losses in dict.fromkeys(wanted):
            folder = root / f"{target}_{losses}"
            say(f"Stylizer for {target}, {losses} losses: {folder}")
            command = make_stylizer(
                folder, prepared, target, experiment.stylizer,
                losses=losses, pretrained=lender, device=device,
            )  # fmt: skip
            commands.append(command)
            found[target, losses] = folder
            lender = lender or folder
    return found, commands


def losses_of(method: MethodSpec) -> str:
    """The loss preset of an OSASIS method; without one, the default recipe's."""
    from nnunet_osasis.training.presets import AdaptConfig

    return str(method.parameters.get("losses", AdaptConfig().losses))


def configured(experiment: Experiment, stylizers: dict[tuple[str, str], Path], root: Path) -> dict[str, Path]:
    """Stylizer folders by ``method@target`` for nnU-Net's trainers, which take a read-out from the folder alone."""
    found = {}
    for method in (m for m in experiment.methods if m.kind == "osasis"):
        for target in (t.name for t in experiment.targets):
            folder = stylizers[target, losses_of(method)]
            if readout := method.parameters.get("readout"):
                from nnunet_osasis.stylizer.stylizer import OSASISStylizer

                place = root / f"{method.name}@{target}"
                folder = OSASISStylizer.from_pretrained(folder).configured(readout=readout).save_pretrained(place)
            found[f"{method.name}@{target}"] = folder
    return found


def pretrained_card(folder: Path | None) -> dict[str, Any] | None:
    """What a stylizer from elsewhere says about the images it was pretrained on."""
    if folder is None:
        return None
    card = read_index(folder).get("card", {})
    return {key: card.get(key) for key in ("source_images", "sources_sha256")}
