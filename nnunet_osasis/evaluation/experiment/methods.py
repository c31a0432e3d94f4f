"""What a method does to the training set: fitted transfers, stylizers made for the experiment, true renderings."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment.config import Experiment, MethodSpec, StylizerSpec
from nnunet_osasis.evaluation.experiment.data import Prepared
from nnunet_osasis.gate import StructureGate
from nnunet_osasis.nnunet.raw_dataset import write_png
from nnunet_osasis.runtime.children import child_command
from nnunet_osasis.runtime.records import finished, write_sealed_json
from nnunet_osasis.runtime.storage import ensure_writable, sha256_of_json
from nnunet_osasis.stylizer.config import StylizerConfig
from nnunet_osasis.stylizer.names import FIRST_STAGE
from nnunet_osasis.stylizer.serialization import INDEX, read_index, stylizer_digest
from nnunet_osasis.training.build import MAPS, NETWORKS, WORK, saved_stage
from nnunet_osasis.transfer import StyleTransfer

EIGHT_BIT = (0.0, 255.0)
"""Value range of the pictures."""

BATCH = 32
"""Number of pictures that a stylizer restyles together on a GPU."""

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""A random control: a picture ``(C, H, W)`` in native units and a random stream to a new picture."""


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """What one training draws from; all lists are parallel.

    Attributes:
        images: pictures ``(C, H, W)`` uint8.
        masks: masks ``(H, W)`` of 0 and 1.
        styled: the images in the target's style, or None.
        augment: a random control, or None.
        da5: whether nnU-Net's DA5 augmentation is used instead of its default.
    """

    images: Sequence[np.ndarray]
    masks: Sequence[np.ndarray]
    styled: Sequence[np.ndarray] | None = None
    augment: Augment | None = None
    da5: bool = False


def make_transfer(
    method: MethodSpec, prepared: Prepared, target: str, stylizer: Path | None, *, device: str = "cpu"
) -> StyleTransfer:
    """Return the transfer of a method that makes styled copies, fitted to the target's one reference.

    Raises:
        OsasisError: the method has no transfer.
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
    """Stylize pictures ``(C, H, W)`` uint8, rounded to 8 bit as if written to a file.

    A stylizer's results pass its structure gate, as they do in nnU-Net's cache. Controls are used without one.

    Args:
        transfer: a control or a stylizer.
        images: the pictures.
        masks: their masks; the gate compares the structure inside and around them.
        strength: blend of original (0) and stylized (1); None takes the transfer's own default.

    Returns:
        The stylized pictures, and the number of images by the gate's decision.
    """
    gate = gate_of(transfer, images)
    if gate is None:
        return [to_8_bit(transfer.stylize_array(image, strength=strength)) for image in images], {}
    wanted, decisions, styled = gate.default_strength if strength is None else strength, Counter[str](), []
    for image, mask, changed in zip(images, masks, _restyled(transfer, images, wanted), strict=True):
        found = gate(image, to_8_bit(changed), wanted, mask)
        decisions[found.decision.outcome] += 1
        styled.append(to_8_bit(found.image))
    return styled, dict(decisions)


def _restyled(stylizer: Any, images: Sequence[np.ndarray], strength: float) -> Iterator[np.ndarray]:
    """Restyle one picture after the other; on a GPU pictures of one size together, where it has work for them."""
    largest = 1 if stylizer.device.type == "cpu" else BATCH
    for run in (list(alike) for _, alike in groupby(images, key=np.shape)):
        for start in range(0, len(run), largest):
            some = run[start : start + largest]
            yield from stylizer.stylize_arrays(some, [strength] * len(some))


def gate_of(transfer: StyleTransfer, images: list[np.ndarray]) -> StructureGate | None:
    """Return a stylizer's own gate; None for other transfers."""
    from nnunet_osasis.stylizer.gating import structure_gate
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

    return structure_gate(transfer, lambda: images) if isinstance(transfer, OSASISStylizer) else None


def to_8_bit(image: np.ndarray) -> np.ndarray:
    """Round and clip to uint8."""
    return np.clip(np.rint(image), *EIGHT_BIT).astype(np.uint8)


def training_set(
    method: MethodSpec, prepared: Prepared, target: str | None, styled: list[np.ndarray] | None
) -> TrainingSet:
    """Return what a training with this method draws from.

    Raises:
        OsasisError: the method needs styled copies or a known truth, and there are none.
    """
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
"""Kinds of methods that draw a new change for every training patch."""


class RandomAugmentation:
    """A random control as the light engine calls it.

    Args:
        kind: one of :data:`RANDOM`.
        channels: channels of the pictures.
    """

    def __init__(self, kind: str, channels: int) -> None:
        from nnunet_osasis import controls

        classes: dict[str, Any] = {
            "gin": controls.GIN,
            "colour_jitter": controls.ColourJitter,
            "histogram_shift": controls.HistogramShift,
        }
        self.control = classes[kind](channels, value_range=EIGHT_BIT)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return one picture ``(C, H, W)`` with a newly drawn change, in native units."""
        return np.asarray(self.control.augment(image, rng))


def channels_last(image: np.ndarray) -> np.ndarray:
    """Return a picture ``(C, H, W)`` as ``(H, W, 3)``, or ``(H, W)`` for one channel."""
    return image[0] if image.shape[0] == 1 else np.ascontiguousarray(np.moveaxis(image, 0, -1))


def make_stylizer(
    folder: Path,
    prepared: Prepared,
    target: str,
    spec: StylizerSpec,
    *,
    losses: str,
    pretrained: Path | None,
    device: str,
    stage: str = NETWORKS,
) -> dict[str, Any]:
    """Make the stylizer of one target and loss preset by the public command, unless it is there.

    Args:
        folder: folder of the stylizer.
        prepared: images of the experiment.
        target: target whose reference the stylizer is made for.
        spec: options of the command.
        losses: loss preset of the adaptation.
        pretrained: a stylizer of the same source images whose autoencoder is taken; None pretrains one.
        device: torch device of the command.
        stage: last stage of the command: ``maps`` when no method asks for the networks.

    Returns:
        ``{"key", "command", "seconds"}``; the seconds are None while it is being made.

    Raises:
        OsasisError: the command failed, after printing its own message. An interrupted one is resumed by the next call.
    """
    inputs, record = folder.parent / "inputs", folder.parent / f"{folder.name}.json"
    images, reference = inputs / "training_images", inputs / f"reference_{target}"
    digest = None if pretrained is None else stylizer_digest(pretrained)
    lends = pretrained is not None and saved_stage(pretrained, resume=True) == NETWORKS
    options = {
        "--images": images,
        "--style": reference / "reference.png",
        "--output": folder,
        "--preset": spec.preset,
        "-device": device,
        "--from-stylizer": pretrained,
        "--iterations": spec.iterations,
        "--minutes": spec.minutes,
        "--adapt-iterations": spec.adapt_iterations,
        "--calibrator-iterations": spec.calibrator_iterations,
        "--losses": losses,
        "--seed": spec.seed,
    }
    of_networks = ("--iterations", "--minutes", "--adapt-iterations")
    idle = of_networks if stage == MAPS else of_networks[:2] if lends else ()
    used = {name: value for name, value in options.items() if value is not None and name not in idle}
    used |= {} if stage == NETWORKS else {"--stop-after": stage}
    arguments = [word for option in used.items() for word in map(str, option)]
    paths = ("--images", "--style", "--output", "-device", "--from-stylizer")
    deciding = {name: value for name, value in options.items() if name not in paths}
    key = sha256_of_json([prepared.sha256(), prepared.report["references"][target]["sha256"], deciding, digest])
    done = finished(record, key)
    if done is not None and saved_stage(folder, resume=True) in (stage, NETWORKS):
        return done
    shutil.rmtree(images, ignore_errors=True)
    for name, image in zip(prepared.train_names, prepared.train, strict=True):
        write_png(images / f"{name}.png", channels_last(image))
    write_png(reference / "reference.png", channels_last(prepared.references[target]))
    ensure_writable(folder)
    if done is None:  # what is there of another stylizer must not pass for the new one, once the record names that
        (folder / INDEX).unlink(missing_ok=True)
        shutil.rmtree(folder / WORK, ignore_errors=True)
    facts: dict[str, Any] = {"key": key, "command": ["osasis-pretrain-stylizer", *arguments], "seconds": None}
    write_sealed_json(record, facts)
    module, began = child_command("nnunet_osasis.scripts.pretrain_stylizer"), time.perf_counter()
    ended = subprocess.run([*module, *arguments, "--overwrite" if done is None else "--resume"], check=False)
    if ended.returncode == 130 or ended.returncode < 0:
        raise KeyboardInterrupt
    if ended.returncode != 0:
        raise OsasisError(
            "The stylizer must be made",
            found=f"exit status {ended.returncode} of osasis-pretrain-stylizer for {target}",
            remedy="Its message is above. The same command goes on from what is finished.",
        )
    facts["seconds"] = round(time.perf_counter() - began, 1)
    write_sealed_json(record, facts)
    return facts


def make_stylizers(
    experiment: Experiment,
    prepared: Prepared,
    root: Path,
    *,
    pretrained: Path | None,
    device: str,
    say: Callable[[str], None],
) -> tuple[dict[tuple[str, str], Path], list[dict[str, Any]]]:
    """Make a stylizer per target and loss preset of the methods; the first lends the others its autoencoder.

    Returns:
        The folders by target and loss preset, and what :func:`make_stylizer` returned for each.
    """
    folders, facts, lender = dict[tuple[str, str], Path](), [], pretrained
    methods = [part for method in experiment.methods if method.kind == "osasis" for part in method.parts]
    presets = dict.fromkeys(losses_of(method) for method in methods)
    first = all(method.parameters.get("readout", StylizerConfig().readout) in FIRST_STAGE for method in methods)
    for target, losses in product([target.name for target in experiment.targets], presets):
        folder = root / f"{target}_{losses}"
        say(f"Stylizer for {target}, {losses} losses: {folder}")
        made = make_stylizer(
            folder, prepared, target, experiment.stylizer,
            losses=losses, pretrained=lender, device=device, stage=MAPS if first else NETWORKS,
        )  # fmt: skip
        facts.append({"stylizer": folder.name, **made})
        folders[target, losses] = folder
        lender = lender or folder
    return folders, facts


def losses_of(method: MethodSpec) -> str:
    """Return the loss preset of an OSASIS method: its own, or that of the default recipe."""
    from nnunet_osasis.training.adaptation.recipes import AdaptConfig

    return str(method.parameters.get("losses", AdaptConfig().losses))


def configured(experiment: Experiment, stylizers: dict[tuple[str, str], Path], root: Path) -> dict[str, Path]:
    """Return stylizer folders by ``method@target``; nnU-Net's trainers take the read-out from the folder alone."""
    folders = {}
    for method in (m for m in experiment.methods if m.kind == "osasis"):
        for target in (t.name for t in experiment.targets):
            folder = stylizers[target, losses_of(method)]
            if readout := method.parameters.get("readout"):
                from nnunet_osasis.stylizer.stylizer import OSASISStylizer

                place = root / f"{method.name}@{target}"
                folder = OSASISStylizer.from_pretrained(folder).configured(readout=readout).save_pretrained(place)
            folders[f"{method.name}@{target}"] = folder
    return folders


def pretrained_card(folder: Path | None) -> dict[str, Any] | None:
    """Return what a stylizer's card says about the images it was pretrained on; None without a folder."""
    if folder is None:
        return None
    card = read_index(folder).get("card", {})
    return {key: card.get(key) for key in ("source_images", "sources_sha256")}
