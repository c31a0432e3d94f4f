"""What a stylizer folder's JSON may say: folders are passed around, and their checksums come with them.

A checksum tells damage, not intent: whoever changes a file can change its checksum too. So numbers are looked at before
networks are built from them, and maps are tried before images go through them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nnunet_osasis.diffusion.sampler import SamplerConfig
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.maps.base import PixelMap
from nnunet_osasis.runtime.records import read_json
from nnunet_osasis.stylizer.config import StylizerConfig
from nnunet_osasis.stylizer.readouts import DECODED

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.student import Student

OBJECTS = ("config", "maps", "card", "sha256")

OPTIONAL = ("findings", "detail")

INTENSITY = {"kind", "low", "high"}

CHOICES = {"time": ("real", "index", "none"), "teacher": DECODED}

MOST_MAPS = 64

DEEPEST = 32

LARGEST_FILE = 2**16

LARGEST = 8192
"""Numbers in a network's configuration; the largest preset has a width of 512."""

CHANNELS = 64

LONGEST = 64

PARTS = ("config.json", "diffusion_pytorch_model.safetensors")

OWN_KEYS = {"_class_name", "_diffusers_version", "_name_or_path"}
"""What diffusers adds to a configuration; other keys of its would make it load more than weights."""


def check_index(index: Mapping[str, Any], folder: Path) -> None:
    """Raise ``OsasisError`` unless the parts of an index are objects and what changes pixels is finite."""
    if isinstance(index.get("format"), bool):
        raise OsasisError(
            "A stylizer's format is a number",
            found=f"{index['format']} in {folder}",
            remedy="Copy the folder again, or make the stylizer anew.",
        )
    for name in (*OBJECTS, *(name for name in OPTIONAL if name in index)):
        if not isinstance(index.get(name), dict):
            raise OsasisError(
                f"A stylizer's {name} must be a JSON object",
                found=f"{index.get(name)!r:.80} in {folder}",
                remedy="Copy the folder again, or make the stylizer anew.",
            )
    intensity, sampler = index["config"].get("intensity"), index["config"].get("sampler")
    if not isinstance(intensity, dict) or not isinstance(sampler, dict) or set(intensity) != INTENSITY or not sampler:
        raise OsasisError(
            "A stylizer's config must say its intensities and its sampler",
            found=f"less in {folder}",
            remedy="Copy the folder again, or make the stylizer anew.",
        )
    if len(index["maps"]) > MOST_MAPS:
        raise OsasisError(
            f"A stylizer has {MOST_MAPS} maps at most",
            found=f"{len(index['maps'])} in {folder}",
            remedy="Copy the folder again, or make the stylizer anew.",
        )
    for name in ("config", "maps", "detail"):
        _require_finite(index.get(name, {}), name, folder, DEEPEST)


def _require_finite(value: Any, where: str, folder: Path, depth: int) -> None:
    if depth == 0:
        raise OsasisError(
            "A stylizer's values must not be nested so deep",
            found=f"{where} in {folder}",
            remedy="Copy the folder again, or make the stylizer anew.",
        )
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            _require_finite(one, where, folder, depth - 1)
    elif isinstance(value, int | float) and not abs(value) < 1e30:
        raise OsasisError(
            "A stylizer's numbers must be finite",
            found=f"{value!r:.40} in {where} in {folder}",
            remedy="Copy the folder again, or make the stylizer anew.",
        )


def check_network_config(path: Path, known: set[str]) -> None:
    """Raise ``OsasisError`` for a network's ``config.json`` with unknown keys, or with numbers no network of ours has.

    ``known`` are the constructor's arguments.
    """
    if path.stat().st_size > LARGEST_FILE:
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
    for name, value in values.items():
        most = CHANNELS if name in ("channels", "in_channels") else LARGEST
        items = value if isinstance(value, list) else [value]
        numbers = [one for one in items if isinstance(one, int | float)]
        least = -LARGEST if name in ("low", "high") else 0
        odd = any(not math.isfinite(one) or not least <= one <= most for one in numbers)
        odd = odd or (name in CHOICES and value not in CHOICES[name])
        if odd or len(items) > LONGEST or not all(isinstance(one, str | int | float | None) for one in items):
            raise OsasisError(
                "A network's configuration must describe a network of ours",
                found=f"{name} = {value!r:.60} in {path}",
                remedy="Make it anew.",
            )


def read_network(kind: Any, folder: Path) -> Any:
    """A network of a class of ours from its folder: safetensors of that folder only, whatever else lies there."""
    check_network_config(folder / "config.json", set(inspect.signature(kind.__init__).parameters) - {"self"})
    if stray := [path.name for path in folder.iterdir() if path.name not in PARTS]:
        raise OsasisError("A network's folder holds two files", found=f"{stray[0]} in {folder}", remedy="Remove it.")
    return kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)


def check_maps(maps: Mapping[str, PixelMap], channels: int, student: Student | None = None) -> None:
    """Try every map on a few pixels. Raises ``OsasisError`` when it gives another shape or no numbers, and for a
    student of images with other channels."""
    if student is not None and student.config.channels != channels:
        raise OsasisError(
            f"A stylizer's student must change {channels} channel(s)",
            found=student.config.channels,
            remedy="Make it anew.",
        )
    size = None if student is None else student.config.sample_size
    if size is not None and (type(size) is not int or not 8 <= size <= 1024):
        raise OsasisError("A student looks at 8 to 1024 pixels a side", found=size, remedy="Make it anew.")
    trial = torch.linspace(-1, 1, channels * 4).view(1, channels, 2, 2)
    for name, one in maps.items():
        found = one(trial)
        if found.shape != trial.shape or not torch.isfinite(found).all():
            raise OsasisError(
                f"A stylizer's maps must change {channels} channel(s)",
                found=f"{name:.40} does not",
                remedy="Make it anew.",
            )


def require_finite_weights(*modules: torch.nn.Module) -> None:
    """Raise ``OsasisError`` for a network with a weight that is no number."""
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
