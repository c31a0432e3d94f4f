"""Checks of a stylizer folder's content: folders are passed around, and their checksums come with them.

A checksum shows damage, not intent: whoever changes a file can change its checksum too. So numbers are checked before
networks are built from them, and maps are tried before images go through them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from nnunet_osasis.diffusion.sampler import SamplerConfig
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.maps.base import PixelMap
from nnunet_osasis.runtime.records import read_json
from nnunet_osasis.stylizer.config import StylizerConfig
from nnunet_osasis.stylizer.names import NETWORK_READOUTS

OBJECTS = ("config", "maps", "card", "findings", "detail", "sha256")
"""Keys of the index whose values are JSON objects."""

INTENSITY = {"kind", "low", "high"}
"""Keys that the index's intensity range must have; it may have ``seen``."""

CHOICES = {"time": ("real", "index", "none"), "teacher": NETWORK_READOUTS}
"""The texts that a network's configuration may hold, by key."""

MAX_MAPS = 64
"""The number of maps an index may hold; a stylizer has a dozen."""

MAX_MAPS_IN_MAPS = 1024
"""The number of maps an index may hold in all, those that others are the mean of among them."""

MAX_NESTED = 5
"""The depth to which means of maps may be nested; a stylizer of several references has 2."""

MAX_DEPTH = 32
"""The depth to which objects of the index may be nested."""

MAX_CONFIG_BYTES = 2**16
"""The size of a network's configuration file, in bytes."""

MAX_NUMBER = 8192
"""The largest number in a network's configuration; the largest preset has a width of 512."""

MAX_CHANNELS = 64
"""The largest number of image channels in a network's configuration."""

MAX_ITEMS = 64
"""The length of a list in a network's configuration."""

OWN_KEYS = {"_class_name", "_diffusers_version", "_name_or_path"}
"""Keys that diffusers adds to a configuration."""


def check_index(index: Mapping[str, Any], folder: Path) -> None:
    """Raise ``OsasisError`` unless the parts of an index are objects and what changes pixels is finite."""
    for name in OBJECTS:
        value = index.get(name)
        _require(isinstance(value, dict), f"A stylizer's {name} must be a JSON object", f"{value!r:.80} in {folder}")
    intensity, sampler = index["config"].get("intensity"), index["config"].get("sampler")
    complete = (
        isinstance(intensity, dict) and set(intensity) - {"seen"} == INTENSITY and isinstance(sampler, dict) and sampler
    )
    _require(complete, "A stylizer's config must hold its intensities and its sampler", f"other keys in {folder}")
    count = len(index["maps"])
    _require(count <= MAX_MAPS, f"A stylizer has {MAX_MAPS} maps at most", f"{count} in {folder}")
    inside = sum(_maps_in(value, MAX_NESTED, folder) for value in index["maps"].values())
    _require(inside <= MAX_MAPS_IN_MAPS, f"A stylizer has {MAX_MAPS_IN_MAPS} maps in all at most", f"more in {folder}")
    for name in ("config", "maps", "detail"):
        _require_finite(index[name], f"{name} in {folder}", MAX_DEPTH)


def _maps_in(value: Any, depth: int, folder: Path) -> int:
    """Return how many maps the JSON form of one holds, itself among them."""
    _require(depth > 0, f"Means of maps are nested {MAX_NESTED} times at most", f"deeper in {folder}")
    parts = value.get("mean_of") if isinstance(value, dict) else None
    return 1 + sum(_maps_in(part, depth - 1, folder) for part in parts) if isinstance(parts, list) else 1


def _require(holds: Any, rule: str, found: object) -> None:
    if not holds:
        raise OsasisError(rule, found=found, remedy="Copy the folder again, or make the stylizer anew.")


def _require_finite(value: Any, where: str, depth: int) -> None:
    _require(depth > 0, f"A stylizer's values must not be nested deeper than {MAX_DEPTH} times", where)
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _require_finite(item, where, depth - 1)
    elif isinstance(value, int | float):
        _require(abs(value) < 1e30, "A stylizer's numbers must be finite", f"{value!r:.40} in {where}")


def check_network_config(path: Path, known: set[str] | None = None) -> dict[str, Any]:
    """The constructor's arguments of a network, read from its ``config.json``.

    Args:
        path: the file.
        known: the names of the constructor's arguments; None allows any name, as long as no network is built.

    Raises:
        OsasisError: a file that is too large, unknown keys, or values that no network of this package has.
    """
    size = path.stat().st_size
    _require(size <= MAX_CONFIG_BYTES, "A network's configuration is a small file", f"{size} bytes at {path}")
    values = read_json(path, what="A network's configuration")
    unknown = sorted(set(values) - known - OWN_KEYS) if known is not None else []
    _require(not unknown, "A network's configuration has known keys only", f"{', '.join(unknown):.60} in {path}")
    values = {name: value for name, value in values.items() if name not in OWN_KEYS}
    for name, value in values.items():
        items = value if isinstance(value, list) else [value]
        numbers = [item for item in items if isinstance(item, int | float)]
        low = -MAX_NUMBER if name in ("low", "high") else 0
        high = MAX_CHANNELS if name in ("channels", "in_channels") else MAX_NUMBER
        _require(
            len(items) <= MAX_ITEMS
            and all(isinstance(item, str | int | float | None) for item in items)
            and all(math.isfinite(number) and low <= number <= high for number in numbers)
            and value in CHOICES.get(name, (value,)),
            "A network's configuration must describe a network of this package",
            f"{name} = {value!r:.60} in {path}",
        )
    return values


def check_network_fits(name: str, config: Mapping[str, Any], channels: int) -> None:
    """Raise ``OsasisError`` for a network of images with other channels, or a student of an impossible size."""
    own = config.get("in_channels", config.get("channels", 3))
    _require(own == channels, f"A stylizer's {name} must be made for the {channels} channel(s) of its reference", own)
    size = config.get("sample_size", 64)
    fits = name != "student" or (type(size) is int and 8 <= size <= 1024)
    _require(fits, "A student looks at 8 to 1024 pixels a side", size)


def check_maps(maps: Mapping[str, PixelMap], channels: int) -> None:
    """Try every map on a few pixels. Raises ``OsasisError`` for another shape or values that are not finite."""
    trial = torch.linspace(-1, 1, channels * 4).view(1, channels, 2, 2)
    for name, change in maps.items():
        result = change(trial.clone())
        changes = result.shape == trial.shape and bool(torch.isfinite(result).all())
        _require(changes, f"A stylizer's maps must change {channels} channel(s)", f"{name:.40}, which does not")


def require_finite_weights(network: torch.nn.Module) -> None:
    """Raise ``OsasisError`` for a network with a weight that is NaN or infinite."""
    for name, tensor in network.state_dict().items():
        finite = not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
        _require(finite, "A stylizer's weights must be finite", f"{name} of {type(network).__name__}")


def read_config(values: dict[str, Any]) -> StylizerConfig:
    """A ``StylizerConfig`` from its JSON form."""
    sampler, intensity = SamplerConfig(**values["sampler"]), IntensityRange(**values["intensity"])
    return StylizerConfig(**values | {"sampler": sampler, "intensity": intensity})
