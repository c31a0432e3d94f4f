"""What happened to every marked lesion: its contrast to its surroundings, and the structure across its boundary."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from nnunet_osasis.gate.local import SIGMA_PX

MIN_LESION_PX = 9
"""Number of pixels below which a component is too small to be scored as a lesion."""

VISIBLE = 0.5
"""Contrast to noise below which the source does not show a lesion either: nothing can be lost there."""

QUIET = 0.5 / 127.5
"""Standard deviation in [-1, 1] of the noise that every image has: half a gray level of rounding."""

SHADING = 0.02
"""Share of the variance in and around a lesion that tone curves may bend: a mean difference below it says little."""

MAX_REACH_PX = 10
"""Largest width in pixels of the surroundings that a lesion is compared with."""

MAX_BAND_PX = 8
"""Largest width in pixels of the band to either side of a boundary."""

MARGIN_PX = MAX_REACH_PX + round(4 * SIGMA_PX)
"""Margin in pixels around a lesion that all of this needs."""


def _components(mask: np.ndarray) -> Iterator[tuple[int, tuple[slice, ...], np.ndarray]]:
    """Components of every positive label of ``mask`` ``(D, H, W)``: label, box with a margin, component in the box."""
    values = np.unique(mask[mask > 0])
    numbered = np.where(mask > 0, np.searchsorted(values, mask) + 1, 0)
    for value, place in zip(values, ndimage.find_objects(numbered), strict=True):  # not a whole mask per organ
        margins = [0, MARGIN_PX, MARGIN_PX]
        area = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(place, margins, strict=True))
        labels, _ = ndimage.label(mask[area] == value)
        for index, box in enumerate(ndimage.find_objects(labels), start=1):
            inner = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(box, margins, strict=True))
            component = labels[inner] == index
            if component.sum() >= MIN_LESION_PX:
                starts = (s.start for s in area)
                shape = component.shape
                grown = tuple(slice(a + s.start, a + s.start + n) for a, s, n in zip(starts, inner, shape, strict=True))
                yield value, grown, component


def _distance(to: np.ndarray) -> np.ndarray:
    """Distance in pixels to ``to`` ``(D, H, W)`` in the same slice: the distance of slices is another one."""
    return np.asarray(ndimage.distance_transform_edt(~to, sampling=(1e6, 1, 1)))


def contrast_to_noise(image: np.ndarray, shape: np.ndarray) -> tuple[float, np.ndarray]:
    """How well a lesion stands out, and by what.

    Args:
        image: channels of a lesion and its surroundings, ``(C, N)``.
        shape: the lesion's mask there, blurred as the image is, ``(N,)``.

    Returns:
        The length of the lesion's mean difference to its surroundings in units of the spread of both (texture and
        noise), which is a Fisher distance; and that difference, ``(C,)``.
    """
    image, shape = image - image.mean(axis=1, keepdims=True), shape - shape.mean()
    apart = image @ shape / max(float(shape @ shape), 1e-12)
    rest = image - apart[:, None] * shape
    spread = rest @ rest.T / len(shape) + QUIET**2 * np.eye(len(image))
    return float(np.sqrt(apart @ np.linalg.solve(spread, apart))), apart


def _left(of: np.ndarray, by: np.ndarray) -> float:
    """Energy of ``of`` ``(C, N)`` that a linear map of ``by`` ``(P, N)`` leaves; both around 0."""
    within = by @ by.T
    within = within + np.diag(1e-4 * np.diag(within) + 1e-9)
    return float(((of - np.linalg.solve(within, by @ of.T).T @ by) ** 2).sum())


def contrast_kept(source: np.ndarray, stylized: np.ndarray, shape: np.ndarray) -> float:
    """The share of a lesion's contrast that is still there: 1 when all is, about 0 when nothing is.

    The source is predicted from the stylized image, by an affine map of its channels, with and without the lesion's
    own shape to help. What that shape adds is what the stylized image no longer shows of the lesion. Tissue under an
    erased lesion has contrasts too, but not the lesion's.

    Args:
        source: channels of the lesion and its surroundings, ``(C, N)``.
        stylized: the restyled image there, likewise.
        shape: the lesion's mask there, blurred as the images are, ``(N,)``.
    """
    source, stylized = (image - image.mean(axis=1, keepdims=True) for image in (source, stylized))
    shape = (shape - shape.mean())[None]
    apart = source @ shape[0] / float(shape[0] @ shape[0])
    energy = float(apart @ apart) * float(shape[0] @ shape[0]) + SHADING * float((source**2).sum())
    missing = _left(source, stylized) - _left(source, np.concatenate([stylized, shape]))
    return 1 - missing / max(energy, 1e-12)


def _explained(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the variance of ``a`` ``(C, N)`` that an affine map of ``b`` explains; 1 where ``a`` is flat."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    within = b @ b.T / b.shape[1]
    within += (1e-6 + 1e-4 * np.trace(within) / len(within)) * np.eye(len(within))
    rest = a - np.linalg.solve(within, b @ a.T / b.shape[1]).T @ b
    return 1 - float((rest**2).mean() / ((a**2).mean() + 1e-6))


def lesion_scores(source: np.ndarray, stylized: np.ndarray, mask: np.ndarray) -> tuple[float, float, int] | None:
    """The worst lesion's scores.

    Args:
        source: ``(B, C, H, W)`` in [-1, 1], the slices of a volume or one image.
        stylized: the restyled image, likewise.
        mask: ``(B, H, W)``; every connected component of every positive value is a lesion.

    Returns:
        Contrast (:func:`contrast_kept`, which no change of color or brightness lowers), agreement across the boundary
        (variance in a band around it that the two images explain of each other) and the number of lesions scored; None
        when there is none that the source itself shows.
    """
    contrasts, edges = [], []
    for value, box, component in _components(mask):
        pictures = [np.moveaxis(image, 1, 0)[(slice(None), *box)].astype(np.float64) for image in (source, stylized)]
        radius = float(np.sqrt(component.sum(axis=(1, 2)).max() / np.pi))
        outside, inside = _distance(component), _distance(~component)
        surroundings = (outside > 0) & (outside <= np.clip(round(0.8 * radius), 3, MAX_REACH_PX))
        region = component | (surroundings & (mask[box] != value))
        if region.sum() == component.sum():
            continue
        blurred = ndimage.gaussian_filter(component.astype(np.float64), (0, SIGMA_PX, SIGMA_PX))
        before, after = (picture[:, region] for picture in pictures)
        if contrast_to_noise(before, blurred[region])[0] < VISIBLE:
            continue
        contrasts.append(min(1.0, contrast_kept(before, after, blurred[region])))
        reach = np.clip(round(0.3 * radius), 2, MAX_BAND_PX)  # some 15 % of the diameter
        band = (outside <= reach) & (inside <= reach)
        before, after = (picture[:, band] for picture in pictures)
        edges.append(min(_explained(before, after), _explained(after, before)))
    return (min(contrasts), min(edges), len(edges)) if edges else None
