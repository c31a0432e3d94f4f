"""What a method does to the training set: fitted transfers, styled copies, random augmentation, true renderings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.light import TrainingSet
from nnunet_osasis.evaluation.method_list import MethodSpec
from nnunet_osasis.evaluation.preparation import Prepared
from nnunet_osasis.gate import StructureGate
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

        def restyle(amount: float, image: np.ndarray = image) -> np.ndarray:
            return to_8_bit(transfer.stylize_array(image, strength=amount))

        found = gate(image, restyle, wanted, mask)
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
