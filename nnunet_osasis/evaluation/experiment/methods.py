"""What a method does to the training set: fitted transfers, styled copies, random augmentation, true renderings.

Stylizers for an experiment, made by the public command on the training images and the one reference.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment.config import Experiment, MethodSpec, StylizerSpec
from nnunet_osasis.evaluation.experiment.data import Prepared
from nnunet_osasis.evaluation.experiment.light import TrainingSet
from nnunet_osasis.gate import StructureGate
from nnunet_osasis.runtime.children import child_command
from nnunet_osasis.runtime.records import finished, write_sealed_json
from nnunet_osasis.runtime.storage import atomic_write, ensure_writable, sha256_of_json
from nnunet_osasis.stylizer.serialization import INDEX, is_stylizer_folder, read_index, stylizer_digest
from nnunet_osasis.training.build import WORK
from nnunet_osasis.transfer import StyleTransfer

EIGHT_BIT = (0.0, 255.0)


def make_transfer(
    method: MethodSpec, prepared: Prepared, target: str, stylizer: Path | None, *, device: str = "cpu"
) -> StyleTransfer:
    """The transfer of a method that makes styled copies; those with a reference see the target's one reference.

    Raises ``OsasisError`` for a method that has no transfer.
    """
    from nnunet_osasis import controls

    options = {key: value for key, value in method.parameters.items() if key == "beta"}
    if method.kind == "identity":
        return controls.Identity(prepared.channels)
    reference = prepared.references[target]
    makers: dict[str, Callable[[], StyleTransfer]] = {
        "histogram_matching": lambda: controls.HistogramMatching(reference, value_range=EIGHT_BIT),
        "reinhard": lambda: controls.Reinhard(reference, value_range=EIGHT_BIT),
        "pooled_reinhard": lambda: controls.PooledReinhard.fit(prepared.train, reference, value_range=EIGHT_BIT),
        "fda": lambda: controls.FourierDomainAdaptation(reference, value_range=EIGHT_BIT, **options),
    }
    if method.kind in makers:
        return makers[method.kind]()
    if method.kind != "osasis" or stylizer is None:
        raise OsasisError("The method must have a transfer", found=method.name)
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

    loaded = OSASISStylizer.from_pretrained(stylizer, device=device)
    readout = method.parameters.get("readout")
    return loaded if readout is None else loaded.configured(readout=readout)


def style_all(
    transfer: StyleTransfer, images: list[np.ndarray], masks: list[np.ndarray], *, strength: float | None
) -> tuple[list[np.ndarray], dict[str, int]]:
    """Every picture through the transfer, rounded to 8 bit as if written to a file.

    A stylizer's results pass its structure gate, as they do in nnU-Net's cache; the counts say what was decided. The
    controls' do not: they are shown as they are used elsewhere.
    """
    gate = gate_of(transfer, images)
    if gate is None:
        return [to_8_bit(transfer.stylize_array(image, strength=strength)) for image in images], {}
    wanted, decisions, styled = gate.default_strength if strength is None else strength, Counter[str](), []
    for image, mask in zip(images, masks, strict=True):
        found = gate(image, to_8_bit(transfer.stylize_array(image, strength=wanted)), wanted, mask)
        decisions[found.decision.outcome] += 1
        styled.append(to_8_bit(found.image))
    return styled, dict(decisions)


def gate_of(transfer: StyleTransfer, images: list[np.ndarray]) -> StructureGate | None:
    """A stylizer's own gate; None for other transfers."""
    from nnunet_osasis.stylizer.gating import structure_gate
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

    return structure_gate(transfer, lambda: images) if isinstance(transfer, OSASISStylizer) else None


def to_8_bit(image: np.ndarray) -> np.ndarray:
    """Rounded and clipped to uint8."""
    return np.clip(np.rint(image), *EIGHT_BIT).astype(np.uint8)


def training_set(
    method: MethodSpec, prepared: Prepared, target: str | None, styled: list[np.ndarray] | None
) -> TrainingSet:
    """What a training with this method draws from. Raises ``OsasisError`` when the method needs what is not there."""
    images, masks = prepared.train, prepared.train_masks
    if method.kind == "truth":
        if target not in prepared.truths:
            raise OsasisError("The true rendering is known for camera targets only", found=target)
        truth = prepared.truths[target]
        return TrainingSet(images=truth.pictures, masks=truth.masks)
    if method.kind in RANDOM:
        return TrainingSet(images=images, masks=masks, augment=RandomAugmentation(method.kind, prepared.channels))
    if method.kind in ("none", "da5"):
        return TrainingSet(images=images, masks=masks, da5=method.kind == "da5")
    if styled is None:
        raise OsasisError("The method needs styled copies", found=method.name)
    return TrainingSet(images=images, masks=masks, styled=styled)


RANDOM = ("gin", "colour_jitter", "histogram_shift")


class RandomAugmentation:
    """A random control as the light engine calls it."""

    def __init__(self, kind: str, channels: int) -> None:
        from nnunet_osasis import controls

        classes: dict[str, Any] = {
            "gin": controls.GIN,
            "colour_jitter": controls.ColourJitter,
            "histogram_shift": controls.HistogramShift,
        }
        self.control = classes[kind](channels, value_range=EIGHT_BIT)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A new draw for one picture, native units."""
        return np.asarray(self.control.augment(image, rng))


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
    from nnunet_osasis.training.adaptation.recipes import AdaptConfig

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
