"""Thresholds of the structure gate, measured on the source images themselves.

What a change of style does to the scores is known from source images seen through random cameras or scanners: they
change every color and no structure. What damage does is known from damaging them on purpose. The thresholds let the
former pass, and the share of the latter that fails is what the gate is worth. A few images are enough, evenly spaced;
of large ones the middle is taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy import ndimage
from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.damage import KINDS
from nnunet_osasis.gate.local import smooth
from nnunet_osasis.gate.scores import StructureScores, score_structure
from nnunet_osasis.gate.thresholds import CALIBRATED, MOST, GateThresholds
from nnunet_osasis.images.slices import evenly_spaced
from nnunet_osasis.maps.field_of_view import Frame
from nnunet_osasis.maps.parametric import places
from nnunet_osasis.runtime.compute import generator_for
from nnunet_osasis.synthetic.acquisition import family_for

logger = logging.getLogger(__name__)

DARK = -0.8
"""Level in [-1, 1] up to which an image is too dark to draw a lesion into."""

VIEWS = 12
"""Number of random acquisitions of each image."""

FALSE_ALARMS = 0.01
"""Share of undamaged views that may fail."""

SLACK = {"lesion_contrast": 0.7, "lesion_edges": 0.5}
"""Place of a lesion score's threshold between erased lesions (0) and undamaged ones (1)."""

ERASED_SMALL = "erased_small"
"""Name of the damage that erases the small lesion below, nothing else."""

SMALL_PX, FAINT = 64, 32 / 127.5
"""Number of pixels, and contrast in [-1, 1], of the lesion that is drawn into every image: real ones are small too."""

STRENGTH = 0.5
"""How far colors are from the source's: at 1 the random tone curves have kinks that show as contours."""

CLIPPED_SAMPLE = 4096
"""Number of pixels that tell how much a view clips."""

MIN_DETECTION = 0.95
"""Share of erased lesions that a good calibration finds; a lower one is logged."""

IMAGES = 16
"""Number of source images that a calibration looks at."""

SIDE_PX = 512
"""Side of the middle that is taken of larger images, in pixels."""

Restyle = Callable[[np.ndarray], np.ndarray]
"""``(C, H, W)`` in [-1, 1] to the same, its structure kept as well as a read-out can."""


def likely_lesion(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The one of 24 random ellipses that stands out most from its surroundings: bool ``(H, W)``."""
    height, width = image.shape[1:]
    y, x = np.mgrid[:height, :width]
    best, lesion = -1.0, np.zeros((height, width), bool)
    for _ in range(24):
        center, turn = rng.uniform(0.2, 0.8, 2) * (height, width), rng.uniform(0, np.pi)
        radii = rng.uniform(0.05, 0.14, 2) * min(height, width)
        dy, dx = y - center[0], x - center[1]
        across = np.hypot(
            (np.cos(turn) * dy + np.sin(turn) * dx) / radii[0], (np.cos(turn) * dx - np.sin(turn) * dy) / radii[1]
        )
        inside, around = across <= 1, (across > 1) & (across < 1.4)
        if inside.sum() < 9 or not around.any():
            continue
        apart = image[:, inside].mean(axis=1) - image[:, around].mean(axis=1)
        contrast = float(np.linalg.norm(apart) / (image[:, inside | around].std() + 0.05))
        if contrast > best:
            best, lesion = contrast, inside
    return lesion


def with_small_lesion(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The image with one more lesion, a soft disc away from ``mask``, and the disc: bool ``(H, W)``.

    It is darker than bright surroundings, brighter than others. Without room for it the image comes back as it is.
    """
    room = np.minimum(ndimage.distance_transform_edt(np.pad(~mask, 1))[1:-1, 1:-1], 1e6)
    disc, shown = np.zeros_like(mask), ndimage.gaussian_filter(image.mean(axis=0), 4) > DARK
    places = np.flatnonzero((room > 2.5 * np.sqrt(SMALL_PX)) & shown)
    if not len(places):
        return image, disc
    center = np.zeros_like(mask)
    center.flat[rng.choice(places)] = True
    away = ndimage.distance_transform_edt(~center)
    disc.flat[np.argsort(away, axis=None, kind="stable")[:SMALL_PX]] = True
    contrast = -FAINT if image[:, disc].mean() > 0 else FAINT
    soft = ndimage.gaussian_filter(disc.astype(np.float32), 0.6)
    return (image + contrast * soft).clip(-1, 1).astype(np.float32), disc


def _views(image: np.ndarray, family: str, seed: int, index: int) -> list[np.ndarray]:
    """``VIEWS`` random acquisitions of an image ``(C, H, W)``; every other one has its own resolution and noise too.

    Four times as many are drawn, and those that clip least are taken: what a camera clips is lost structure.
    """
    acquisitions, generator = family_for(family, len(image)), generator_for(seed, index, stream=7)
    flat = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None].flatten(2)
    where = places(*image.shape[1:]).flatten(1)[None]
    drawn = [acquisitions.sample(1, len(image), generator, STRENGTH) for _ in range(4 * VIEWS)]
    some = slice(None, None, max(1, flat.shape[-1] // CLIPPED_SAMPLE))
    unclipped = ~clipped(flat[0, :, some].numpy())
    samples = [acquisitions.show(flat[..., some], where[..., some], parameters)[0].numpy() for parameters in drawn]
    lost = [float(((np.abs(sample) > 1 - 1e-3) & unclipped).mean()) for sample in samples]
    views = []
    for rank, i in enumerate(np.argsort(lost, kind="stable")[:VIEWS]):
        shown = acquisitions.show(flat, where, drawn[i]).view(1, *image.shape)
        if rank % 2:  # resolution and noise as far from the source as cameras are
            shown = acquisitions.degrade(shown, acquisitions.sample(1, len(image), generator), generator)
        views.append(shown[0].numpy())
    return views


def clipped(values: np.ndarray) -> np.ndarray:
    """Values at the limits that a channel of ``(C, N)`` reaches: bool, same shape."""
    low, high = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
    return (values <= low + 1e-3) | (values >= high - 1e-3)


def calibrate_gate(
    images: Sequence[np.ndarray],
    *,
    family: str = "auto",
    seed: int = 0,
    restyle: Restyle | None = None,
    frame: Frame | None = None,
) -> GateThresholds:
    """Measure thresholds.

    Args:
        images: source images ``(C, H, W)`` in [-1, 1] at their own size; ``IMAGES`` evenly spaced ones are used.
        family: family of acquisitions (``nnunet_osasis.synthetic.acquisition``).
        seed: of the random acquisitions and of the damage.
        restyle: restyles an image to itself, for read-outs that run the networks: what their round trip loses is no
            fault of an image. These views count as undamaged too.
        frame: of the images; it counts for nothing.

    Raises:
        OsasisError: there is no image.
    """
    if not len(images):
        raise OsasisError("A gate is calibrated on source images", found="none", remedy="Give at least one.")
    chosen = with_structure([middle(i) for i in images])
    chosen = [chosen[i] for i in chosen_indices(len(chosen))]
    good: list[StructureScores] = []
    bad: dict[str, list[StructureScores]] = {kind: [] for kind in (*KINDS, ERASED_SMALL)}
    for index, image in enumerate(tqdm(chosen, desc="calibrate gate", unit="image", leave=False)):
        rng = np.random.default_rng([seed, index])
        mask = likely_lesion(image, rng)
        image, disc = with_small_lesion(image, mask, rng)
        labels = mask + 2 * disc.astype(np.uint8)
        views = _views(image, family, seed, index)
        if restyle is not None:
            views = [*views, restyle(image)]
        good += [score_structure(image, view, labels, frame) for view in views]
        for kind, damage, lesion in (*((*item, mask) for item in KINDS.items()), (ERASED_SMALL, KINDS["erased"], disc)):
            if lesion.any():
                bad[kind].append(score_structure(image, damage(views[-1], lesion, rng), labels, frame))
    scores = between(thresholds_for(good), bad["erased"] + bad["erased_textured"] + bad[ERASED_SMALL])
    least = GateThresholds(scores).least
    caught = {
        kind: {"without_mask": share_failed(damaged, without_mask(least)), "with_mask": share_failed(damaged, least)}
        for kind, damaged in bad.items()
        if damaged
    }
    if (found := caught.get("erased", {}).get("with_mask", 1.0)) < MIN_DETECTION:
        logger.warning(
            "The structure gate finds %.0f %% of lesions erased on purpose in these images; look at its decisions.",
            100 * found,
        )
    return GateThresholds(
        scores,
        round_trip=restyle is not None,
        views=len(good),
        false_alarms=share_failed(good, least),
        detection=caught,
    )


def with_structure(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Those of at least a quarter of the usual contrast: a dark or empty frame shows no structure to keep."""
    contrast = np.array([float(smooth(image[None]).std()) for image in images])
    return [image for image, own in zip(images, contrast, strict=True) if own >= np.median(contrast) / 4]


def between(scores: Mapping[str, float], erased: Sequence[StructureScores]) -> dict[str, float]:
    """Thresholds of lesions between what 95 % of erased ones do not reach and what undamaged ones do (``SLACK``).

    Ellipses and discs stand in for lesions here: real outlines are less sharp, and need not be as good as the worst
    of them.
    """
    moved = dict(scores)
    for name in set(scores) - set(without_mask(scores)):
        values = [lesion.values()[name] for lesion in erased if name in lesion.values()]
        if values and (highest := float(np.quantile(values, 0.95))) < scores[name]:
            moved[name] = round(highest + SLACK[name] * (scores[name] - highest), 4)
    return moved


def share_failed(images: Sequence[StructureScores], thresholds: Mapping[str, float]) -> float:
    """Share of images that fail thresholds."""
    return round(float(np.mean([bool(scores.failures(thresholds)) for scores in images])), 4)


def without_mask(scores: Mapping[str, float]) -> dict[str, float]:
    """The thresholds that need no mask."""
    return {name: value for name, value in scores.items() if not name.startswith("lesion")}


def thresholds_for(good: Sequence[StructureScores]) -> dict[str, float]:
    """The strictest thresholds, alike for every score, that fail at most ``FALSE_ALARMS`` of the undamaged views.

    None is above ``MOST``.
    """
    ordered = {name: sorted(view.values()[name] for view in good if name in view.values()) for name in CALIBRATED}
    ordered = {name: values for name, values in ordered.items() if values}
    scores: dict[str, float] = {}
    for rank in range(max(map(len, ordered.values()))):  # the n-th smallest of every score, as long as few enough fail
        tried = {name: round(values[min(rank, len(values) - 1)] - 1e-4, 4) for name, values in ordered.items()}
        if np.mean([bool(view.failures(tried)) for view in good]) > FALSE_ALARMS:
            break
        scores = tried
    return {name: min(max(-1.0, value), MOST.get(name, 1.0)) for name, value in scores.items()}


def chosen_indices(count: int) -> list[int]:
    """At most ``IMAGES`` evenly spaced ones of ``count``."""
    return evenly_spaced(count, IMAGES)


def middle(image: np.ndarray) -> np.ndarray:
    """At most ``SIDE_PX`` pixels of ``(C, H, W)`` in either direction, around its middle."""
    top, left = (max(0, (side - SIDE_PX) // 2) for side in image.shape[1:])
    return image[:, top : top + SIDE_PX, left : left + SIDE_PX]


class EvenlySpaced:
    """Keeps at most ``2 IMAGES`` of a stream of arrays, evenly spaced, whatever its length; by default their middle."""

    def __init__(self, cut: Callable[[np.ndarray], np.ndarray] = middle) -> None:
        self.kept: list[np.ndarray] = []
        self._cut = cut
        self._stride, self._seen = 1, 0

    def add(self, image: np.ndarray) -> None:
        """The next ``(C, H, W)`` in [-1, 1]; what ``cut`` leaves of it is kept."""
        if self._seen % self._stride == 0:
            if len(self.kept) == 2 * IMAGES:
                self.kept, self._stride = self.kept[::2], 2 * self._stride
            if self._seen % self._stride == 0:
                self.kept.append(np.array(self._cut(image), np.float32))
        self._seen += 1
