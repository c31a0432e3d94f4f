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
"""Keys of the index's intensity range."""

CHOICES = {"time": ("real", "index", "none"), "teacher": NETWORK_READOUTS}
"""The texts that a network's configuration may hold, by key."""

MAX_MAPS = 64
"""The number of maps an index may hold; a stylizer has a dozen."""

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
    if isinstance(index.get("format"), bool):
        raise OsasisError(
            "A stylizer's format is a number",
            found=f"{index['format']} in {folder}",
            remedy="Copy the folder again, or make the stylizer anew.",
        )
    for name in OBJECTS:
        if not isinstance(index.get(name), dict):
            raise OsasisError(
                f"A stylizer's {name} must be a JSON object",
                found=f"{index.get(name)!r:.80} in {folder}",
                remedy="Copy the folder again, or make the stylizer anew.",
            )
    intensity, sampler = index["config"].get("intensity"), index["config"].get("sampler")
    if not isinstance(intensity, dict) or not isinstance(sampler, dict) or set(intensity) != INTENSITY or not sampler:
        raise OsasisError(
            "A stylizer's config must hold its intensities and its sampler",
            found=f"other keys in {folder}",
            remedy="Copy the folder again, or make the stylizer anew.",
        )
    if len(index["maps"]) > MAX_MAPS:
        raise OsasisError(
            f"A stylizer has {MAX_MAPS} maps at most",
            found=f"{len(index['maps'])} in {folder}",
            remedy="Copy the folder again, or make the stylizer anew.",
        )
    for name in ("config", "maps", "detail"):
        _require_finite(index[name], name, folder, MAX_DEPTH)


def _require_finite(value: Any, where: str, folder: Path, depth: int) -> None:
    if depth == 0:
        raise OsasisError(
            "A stylizer's values must not be nested so deep",
            found=f"{where} in {folder}",
            remedy="Copy the folder again, or make the stylizer anew.",
        )
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _require_finite(item, where, folder, depth - 1)
    elif isinstance(value, int | float) and not abs(value) < 1e30:
        raise OsasisError(
            "A stylizer's numbers must be finite",
            found=f"{value!r:.40} in {where} in {folder}",
            remedy="Copy the folder again, or make the stylizer anew.",
        )


def check_network_config(path: Path, known: set[str]) -> dict[str, Any]:
    """The constructor's arguments of a network, read from its ``config.json``.

    Args:
        path: the file.
        known: the names of the constructor's arguments.

    Raises:
        OsasisError: a file that is too large, unknown keys, or values that no network of this package has.
    """
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise OsasisError(
            "A network's configuration is a small file",
            found=f"{path.stat().st_size} bytes at {path}",
            remedy="Copy the folder again, or make the stylizer anew.",
        )
    values = read_json(path, what="A network's configuration")
    if unknown := sorted(set(values) - known - OWN_KEYS):
        raise OsasisError(
            "A network's configuration has known keys only",
            found=f"{unknown[0]!r:.60} in {path}",
            remedy="Make it anew.",
        )
    values = {name: value for name, value in values.items() if name not in OWN_KEYS}
    for name, value in values.items():
        items = value if isinstance(value, list) else [value]
        numbers = [item for item in items if isinstance(item, int | float)]
        low = -MAX_NUMBER if name in ("low", "high") else 0
        high = MAX_CHANNELS if name in ("channels", "in_channels") else MAX_NUMBER
        if (
            len(items) > MAX_ITEMS
            or not all(isinstance(item, str | int | float | None) for item in items)
            or not all(math.isfinite(number) and low <= number <= high for number in numbers)
            or value not in CHOICES.get(name, (value,))
        ):
            raise OsasisError(
                "A network's configuration must describe a network of this package",
                found=f"{name} = {value!r:.60} in {path}",
                remedy="Make it anew.",
            )
    return values


def check_network_fits(name: str, config: Mapping[str, Any], channels: int) -> None:
    """Raise ``OsasisError`` for a network of images with other channels, or a student of an impossible size."""
    own = config.get("in_channels", config.get("channels", 3))
    if own != channels:
        raise OsasisError(
            f"A stylizer's {name} must be made for the {channels} channel(s) of its reference",
            found=own,
            remedy="Make it anew.",
        )
    size = config.get("sample_size", 64)
    if name == "student" and (type(size) is not int or not 8 <= size <= 1024):
        raise OsasisError("A student looks at 8 to 1024 pixels a side", found=size, remedy="Make it anew.")


def check_maps(maps: Mapping[str, PixelMap], channels: int) -> None:
    """Try every map on a few pixels. Raises ``OsasisError`` for another shape or values that are not finite."""
    trial = torch.linspace(-1, 1, channels * 4).view(1, channels, 2, 2)
    for name, change in maps.items():
        result = change(trial.clone())
        if result.shape != trial.shape or not torch.isfinite(result).all():
            raise OsasisError(
                f"A stylizer's maps must change {channels} channel(s)",
                found=f"{name:.40} does not",
                remedy="Make it anew.",
            )


def require_finite_weights(*modules: torch.nn.Module) -> None:
    """Raise ``OsasisError`` for a network with a weight that is NaN or infinite."""
    for module in modules:
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise OsasisError(
                    "A stylizer's weights must be finite",
                    found=f"NaN or infinity in {name} of {type(module).__name__}",
                    remedy="Make it anew.",
                )


def read_config(values: dict[str, Any]) -> StylizerConfig:
    """A ``StylizerConfig`` from its JSON form."""
    sampler, intensity = SamplerConfig(**values["sampler"]), IntensityRange(**values["intensity"])
    return StylizerConfig(**values | {"sampler": sampler, "intensity": intensity})
