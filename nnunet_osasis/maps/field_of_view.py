"""The frame around the field of view (endoscope mask, air, zero padding): a property of a set of images.

Dark tissue reaches the edge too: a vignette, an acoustic shadow. One image rarely tells which it is; many images of one
device do, because a frame is even, ends in an edge and lies in the same place. What is done about a frame depends on a
pixel's value alone, so that one function of value holds everywhere in an image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from nnunet_osasis.errors import OsasisError

SIDE_PX = 96
"""Largest side in pixels of the copies that a frame is looked for in."""

BRIGHTEST = 48
"""Gray level of 255 that no frame exceeds: film scans of eyes are veiled up to 43, endoscopes frame at 24."""

GAP = 12
"""Number of gray levels above a frame that hardly any pixel of the picture's edge has."""

MORE = 0.03
"""Share by which the edge's dark pixels may grow over the gap."""

JUMP = 30
"""Gray levels by which the median pixel beside a frame exceeds it; attenuation and vignettes end without an edge."""

MOST = 0.5
"""Share of a set's images that must show the frame."""

SAME_PLACE = 0.6
"""Least chance that a frame's pixel is frame in another image of the set too (retina, endoscopy: 0.87 to 0.94)."""

RISE, FALL = 1.5, 0.75
"""Largest changes, up and down, per distance from the frame; a fall below 1 keeps the order of values."""


@dataclass(frozen=True)
class Frame:
    """What is known about the frame of a set of images.

    Attributes:
        limit: level in [-1, 1] that the frame's pixels do not exceed in any channel.
        share: share of the images that show it.
        area: mean share of the pixels of these images that it covers.

    >>> frame = Frame(limit=-0.9, share=1.0, area=0.3)
    >>> values = torch.tensor([-1.0, -0.9, -0.85, -0.5]).view(1, 1, 1, 4)
    >>> [round(value, 3) for value in frame.hold(values, values + 0.2).flatten().tolist()]
    [-1.0, -0.9, -0.775, -0.3]
    """

    limit: float
    share: float
    area: float

    def __post_init__(self) -> None:
        numbers = [isinstance(value, Real) and not isinstance(value, bool) for value in asdict(self).values()]
        highest = BRIGHTEST + 1
        if not (all(numbers) and -1 <= self.limit <= highest / 127.5 - 1 and 0 < self.share <= 1 and 0 < self.area < 1):
            raise OsasisError(
                f"A frame needs a limit from -1 to {highest / 127.5 - 1:.2f}, and shares between 0 and 1",
                found=self,
                remedy="Copy the stylizer's folder again, or make the stylizer anew.",
            )

    def hold(self, images: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
        """Bound the change of each pixel by how far it exceeds the frame: nothing at the limit and below.

        The result is the median of three functions that rise with brightness wherever ``changed`` does, so it rises as
        well, and is continuous.

        Args:
            images: ``(B, C, H, W)`` in [-1, 1].
            changed: the same images restyled, ``(B, C, H, W)``.
        """
        above = (images.amax(dim=1, keepdim=True) - self.limit).clamp(min=0)
        return torch.minimum(torch.maximum(changed, images - FALL * above), images + RISE * above)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, which ``Frame(**values)`` reads."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"in {100 * self.share:.0f} % of the source images, {100 * self.area:.0f} % of their area: values up to "
            f"{50 * (self.limit + 1):.1f} % of the range stay as they are"
        )


NO_FRAME = "none found in the source images: every value is restyled"
"""The words that commands and cards print for a set without a frame."""


def find_frame(images: Iterable[torch.Tensor | np.ndarray]) -> Frame | None:
    """Look for the frame of a set of images; None where it cannot be told.

    An image shows one when the dark pixels of its edge are set apart from brighter ones (``GAP``), when what is as dark
    and connected to the edge covers half the edge or two corners, and when the picture beside it is much brighter
    (``JUMP``) or the frame exactly constant (padding). A set has one when most images show it in the same place, or
    exactly constant. A single image is a set of one.

    Args:
        images: each ``(C, H, W)`` in [-1, 1], of any sizes; ``(N, C, H, W)`` is such a set.
    """
    count, found = 0, []
    for image in images:
        count += 1
        if (one := _frame_of(np.asarray(image.cpu() if isinstance(image, torch.Tensor) else image))) is not None:
            found.append(one)
    if not found or len(found) < MOST * count:
        return None
    limits, masks, levels = zip(*found, strict=True)
    share = np.mean([spaced(mask, 32) for mask in masks], axis=0)  # of the images, place by place
    constant = None not in levels and len(set(levels)) == 1
    if not constant and (share**2).sum() < SAME_PLACE * share.sum():
        return None
    limit = (float(np.quantile(limits, 0.95, method="higher")) + 0.5) / 127.5 - 1
    return Frame(limit, len(found) / count, float(np.mean([mask.mean() for mask in masks])))


def _frame_of(image: np.ndarray) -> tuple[int, np.ndarray, float | None] | None:
    """Return limit (gray levels) and mask of the frame that ``(C, H, W)`` shows, and its level if it is constant."""
    brightest = spaced(image).max(axis=0)
    levels = np.rint((brightest + 1) * 127.5)
    edge = np.ones(levels.shape, dtype=bool)
    edge[1:-1, 1:-1] = False
    up_to = np.searchsorted(np.sort(levels[edge]), np.arange(BRIGHTEST + GAP + 1), side="right")
    apart = (up_to[:-GAP] > 0) & (up_to[GAP:] <= (1 + MORE) * up_to[:-GAP])
    limit = int(apart.argmax())
    mask = _touching_edge((levels <= limit)[None])[0]
    if not apart.any() or mask.all():
        return None
    side = max(1, min(mask.shape) // 16)
    corners = [mask[rows, columns].mean() > 0.9 for rows in _ends(side) for columns in _ends(side)]
    if mask[edge].mean() < 0.5 and sum(corners) < 2:
        return None
    if np.ptp(brightest[mask]) == 0:
        return limit, mask, float(brightest[mask][0])
    beside = ndimage.binary_dilation(mask, iterations=3) & ~ndimage.binary_dilation(mask)
    if not beside.any() or np.median(levels[beside]) < limit + JUMP:
        return None
    return limit, mask, None


def _ends(side: int) -> tuple[slice, slice]:
    return slice(side), slice(-side, None)


def spaced(image: np.ndarray, side: int = SIDE_PX) -> np.ndarray:
    """Take at most ``side`` evenly spaced rows and columns of ``(..., H, W)``, the outermost ones included."""
    rows, columns = (np.linspace(0, size - 1, min(size, side)).round().astype(int) for size in image.shape[-2:])
    return image[..., rows[:, None], columns]


def field_of_view(images: torch.Tensor, frame: Frame | None, *, joint: bool = False) -> torch.Tensor:
    """Return True where images show something: ``(B, C, H, W)`` in [-1, 1] to bool ``(B, 1, H, W)``; for statistics.

    A dark lumen inside the image belongs to the image. An image that is dark throughout is all image.

    Args:
        images: ``(B, C, H, W)`` in [-1, 1].
        frame: of the set that they belong to; None takes all pixels.
        joint: whether the images are the slices of one volume, in order: connected regions reach through slices, and
            only a volume that is dark throughout is all image. The first and the last slice are no edges.

    >>> image = torch.zeros(1, 3, 4, 4)
    >>> image[..., 0] = -1  # a black left edge
    >>> field_of_view(image, find_frame(image))[0, 0, 0].tolist()
    [False, True, True, True]
    """
    if frame is None:
        return torch.ones_like(images[:, :1], dtype=torch.bool)
    dark = (images.amax(dim=1) <= frame.limit).cpu().numpy()
    stacks = [dark] if joint else dark[:, None]
    inside = [~_touching_edge(stack) | stack.all() for stack in stacks]
    return torch.from_numpy(np.concatenate(inside) if inside else dark)[:, None].to(images.device)


def own_view(images: torch.Tensor) -> torch.Tensor:
    """Return the field of view of images ``(B, C, H, W)`` of which each is a set of its own, bool ``(B, 1, H, W)``."""
    return torch.cat([field_of_view(image, find_frame(image)) for image in images.split(1)])


def _touching_edge(black: np.ndarray) -> np.ndarray:
    """Return the part of ``black`` ``(D, H, W)`` that is connected to an edge of a slice."""
    labels, count = ndimage.label(black)
    edges = (labels[:, 0], labels[:, -1], labels[..., 0], labels[..., -1])
    touching = np.zeros(count + 1, dtype=bool)
    touching[np.concatenate([edge.ravel() for edge in edges])] = True
    touching[0] = False
    return touching[labels]
