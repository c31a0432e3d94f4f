"""Reinhard color transfer: one affine map for the whole source set (pooled), or one for each image."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from skimage.color import lab2rgb, rgb2lab

from nnunet_osasis.controls.base import EIGHT_BIT, Control, check_range, native_range
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import check_array
from nnunet_osasis.images.intensity import LARGEST
from nnunet_osasis.runtime.records import atomic_write_json, read_json
from nnunet_osasis.runtime.storage import sha256_of_json
from nnunet_osasis.transfer import is_number

FLAT = 1e-6
"""Standard deviation below which a channel counts as constant and is only shifted."""


@dataclass(frozen=True, kw_only=True)
class ReinhardStatistics:
    """The numbers of one pooled Reinhard transfer.

    Attributes:
        space: ``lab`` or ``native``, where the moments were taken.
        value_range: native interval that results are clipped to.
        source_mean: per channel, over the source set.
        source_std: standard deviation per channel, over the source set.
        reference_mean: per channel, of the reference.
        reference_std: standard deviation per channel, of the reference.
    """

    space: str
    value_range: tuple[float, float]
    source_mean: tuple[float, ...]
    source_std: tuple[float, ...]
    reference_mean: tuple[float, ...]
    reference_std: tuple[float, ...]

    def __post_init__(self) -> None:
        columns = [getattr(self, name) for name in _MOMENTS]
        rows = [self.value_range, *columns]
        numbers = all(isinstance(row, tuple) and all(is_number(v) and abs(v) < LARGEST for v in row) for row in rows)
        if self.space not in ("lab", "native") or not numbers or len(self.value_range) != 2:
            problem = "a space (lab, native) and finite numbers"
        elif len({len(column) for column in columns}) != 1 or not columns[0]:
            problem = "one number per channel"
        elif self.value_range[0] > self.value_range[1] or min(*self.source_std, *self.reference_std) < 0:
            problem = "a rising range and no negative deviation"
        elif self.space == "lab" and len(columns[0]) != 3:
            problem = "three channels in lab"
        else:
            return
        raise OsasisError(f"Reinhard statistics need {problem}", found=self, remedy="Fit them anew.")


class PooledReinhard(Control):
    """Moves mean and deviation of every channel from those of the whole source set to those of the reference.

    8-bit images of three channels are treated in CIELAB (Reinhard et al. 2001 with a modern opponent space), all others
    channel by channel in native units. Pooling over the set keeps what differs between patients, and
    the map cannot invent structure: the strongest free control (it beats the per-image one).

    >>> rng = np.random.default_rng(0)
    >>> source, reference = rng.normal(0, 1, (1, 8, 8)), rng.normal(5, 2, (1, 8, 8))
    >>> moved = PooledReinhard.fit([source], reference, value_range=(-99, 99)).stylize_array(source)
    >>> bool(abs(moved.mean() - reference.mean()) < 1e-5)
    True
    """

    def __init__(self, statistics: ReinhardStatistics) -> None:
        super().__init__(len(statistics.source_mean), statistics.value_range)
        self.statistics = statistics
        columns = [np.array(getattr(statistics, name))[:, None, None] for name in _MOMENTS]
        self._source_mean, source_std, self._reference_mean, reference_std = columns
        # A channel without any contrast in the source has no scale to transfer: it is only shifted.
        self._scale = np.where(source_std > FLAT, reference_std / np.maximum(source_std, FLAT), 1.0)

    @classmethod
    def fit(
        cls,
        source_images: Iterable[np.ndarray],
        reference: np.ndarray,
        *,
        value_range: tuple[float, float] | None = None,
    ) -> PooledReinhard:
        """Measure images and reference, each ``(C, H, W)`` or ``(C, D, H, W)`` in native units.

        The images are read once and not kept, unless ``value_range`` is None and has to be found from them.

        Raises:
            OsasisError: no source image, or ranks or channels that do not fit.
        """
        check_array(reference, name="the reference")
        channels = reference.shape[0]
        if value_range is None:
            source_images = list(source_images)
            value_range = native_range([*source_images, reference])
        lab = _is_color(channels, value_range)
        source = _moments(source_images, channels, lab=lab)
        return cls(_statistics(value_range, source, _moments([reference], channels, lab=lab)))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the statistics."""
        return sha256_of_json({"control": "pooled_reinhard", **self.to_dict()})

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics as JSON-ready values."""
        return asdict(self.statistics)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PooledReinhard:
        """Read :meth:`to_dict`. Raises ``OsasisError`` when a statistic is missing or unknown."""
        if not isinstance(values, dict):
            raise OsasisError(
                "Reinhard statistics must be an object", found=type(values).__name__, remedy="Fit them anew."
            )
        try:
            tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(ReinhardStatistics(**tuples))
        except TypeError as error:
            raise OsasisError("Reinhard statistics must be complete", found=error, remedy="Fit them anew.") from error

    def save(self, path: str | Path) -> Path:
        """Write the statistics as JSON, atomically."""
        return atomic_write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> PooledReinhard:
        """Read the file of :meth:`save`; pixels and fingerprint are the same."""
        return cls.from_dict(read_json(path, what="The file of Reinhard statistics"))

    def _stylize_slice(self, image: np.ndarray) -> np.ndarray:
        lab = self.statistics.space == "lab"
        values = _to_lab(image) if lab else image
        moved = (values - self._source_mean) * self._scale + self._reference_mean
        return _from_lab(moved) if lab else moved


class Reinhard(Control):
    """Moves mean and deviation of every channel of each image to those of the reference (Reinhard et al. 2001).

    CIELAB for 8-bit images of three channels, native units for all others, as :class:`PooledReinhard`. The
    statistics of a volume are those of all its slices. What differs between patients is removed: two images come out
    equally bright.

    Args:
        reference: the target-style image ``(C, H, W)`` or volume ``(C, D, H, W)`` in native units.
        value_range: native interval; None takes it from the reference (integers: their type's).

    Raises:
        OsasisError: the reference has another rank, NaN or infinity.
    """

    def __init__(self, reference: np.ndarray, *, value_range: tuple[float, float] | None = None) -> None:
        check_array(reference, name="the reference")
        self._range = check_range(value_range) or native_range([reference])
        super().__init__(reference.shape[0], self._range)
        self._reference = _moments([reference], self.in_channels, lab=_is_color(self.in_channels, self._range))

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the reference's moments and the native range."""
        return sha256_of_json({"control": "reinhard", "reference": self._reference, "range": self._range})

    def _stylize_whole(self, array: np.ndarray) -> np.ndarray:
        own = _moments([array], self.in_channels, lab=_is_color(self.in_channels, self._range))
        columns = array.reshape(self.in_channels, -1, 1)
        return (
            PooledReinhard(_statistics(self._range, own, self._reference))._stylize_slice(columns).reshape(array.shape)
        )


_MOMENTS = ("source_mean", "source_std", "reference_mean", "reference_std")

Moments = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation, one value per channel."""


def _is_color(channels: int, value_range: tuple[float, float]) -> bool:
    return channels == 3 and tuple(value_range) == EIGHT_BIT


def _statistics(value_range: tuple[float, float], source: Moments, reference: Moments) -> ReinhardStatistics:
    return ReinhardStatistics(
        space="lab" if _is_color(len(source[0]), value_range) else "native",
        value_range=(float(value_range[0]), float(value_range[1])),
        source_mean=source[0],
        source_std=source[1],
        reference_mean=reference[0],
        reference_std=reference[1],
    )


def _moments(images: Iterable[np.ndarray], channels: int, *, lab: bool) -> Moments:
    """Return mean and standard deviation per channel over all pixels of all images."""
    count, mean, squares = 0, np.zeros(channels), np.zeros(channels)
    for image in images:
        check_array(image, name="every source image", channels=channels)
        columns = image.reshape(channels, -1, 1).astype(np.float64)
        values = (_to_lab(columns) if lab else columns).reshape(channels, -1)
        # Chan's update: sums of squares of large values would lose the small deviations of e.g. CT.
        added, own_mean = values.shape[1], values.mean(axis=1)
        delta = own_mean - mean
        total = count + added
        squares += ((values - own_mean[:, None]) ** 2).sum(axis=1) + delta**2 * count * added / total
        mean += delta * added / total
        count = total
    if count == 0:
        raise OsasisError("Pooled Reinhard needs at least one source image", found="none")
    return tuple(mean.tolist()), tuple(np.sqrt(squares / count).tolist())


def _to_lab(image: np.ndarray) -> np.ndarray:
    return np.asarray(rgb2lab(np.clip(image / EIGHT_BIT[1], 0, 1), channel_axis=0))


def _from_lab(image: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        # Colors outside the gamut are expected here, and clipped like every other result.
        warnings.filterwarnings("ignore", message=".*negative Z values.*")
        return np.asarray(lab2rgb(image, channel_axis=0)) * EIGHT_BIT[1]
