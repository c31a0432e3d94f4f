"""The state of a stylizer, in a folder or in bytes. The layout of both is known here only.

In a folder the index ``stylizer.json`` holds configuration, maps, card, diagnostics, gate and the SHA-256 of all files;
beside it lie the reference, a README and a subfolder for each network. In bytes all of it is one safetensors block, so
that equal stylizers have equal bytes: MONAI names its cache entries by the hash of a transform's pickle.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.thresholds import GateThresholds
from nnunet_osasis.images.image import check_array, is_file
from nnunet_osasis.maps.base import PixelMap, map_from_json
from nnunet_osasis.maps.detail import DetailChange
from nnunet_osasis.maps.field_of_view import NO_FRAME, Frame
from nnunet_osasis.runtime.compute import resolve_device
from nnunet_osasis.runtime.escaping import markdown_text
from nnunet_osasis.runtime.folders import atomic_folder
from nnunet_osasis.runtime.records import (
    as_json,
    atomic_write_json,
    parse_json,
    read_json,
    read_sealed_json,
    write_sealed_json,
)
from nnunet_osasis.runtime.storage import (
    load_tensors,
    remove_stale_temporaries,
    save_tensors,
    sha256_of_array,
    sha256_of_file,
    sha256_of_json,
)
from nnunet_osasis.stylizer.checks import check_index, check_maps, read_config
from nnunet_osasis.stylizer.config import StylizerConfig
from nnunet_osasis.stylizer.names import is_map
from nnunet_osasis.stylizer.networks import (
    CONFIG,
    NETWORKS,
    WEIGHTS,
    Networks,
    StoredNetwork,
    check_file,
    files_of,
    networks_of,
    stored_networks,
    weights_digest,
)

logger = logging.getLogger(__name__)

FORMAT = 2
"""Version of the folder's layout; others are refused."""

INDEX = "stylizer.json"
"""File whose presence makes a folder a stylizer; it is written last."""

REFERENCE = "reference.safetensors"
"""File of the reference image."""

PICKLED = "A pickled stylizer has the networks of its own read-out: pickle stylizer.configured(readout=...)."
"""Remedy for a network that a pickle does not hold."""


@dataclass
class StylizerState:
    """All that a stylizer is: what its folder, its pickle and its fingerprint are made of.

    Attributes:
        config: how it is used.
        reference: the image of the target domain, native units, ``(C, H, W)``.
        maps: maps by the name of their read-out and, for the way back, that name with ``_inverse``.
        networks: the networks it has, which may be none.
        card: what the folder's card says about its origin.
        diagnostics: what was measured while it was made; ``findings`` in the index.
        detail: sharpness and noise that ``config.detail`` carries over.
        gate: thresholds of the structure gate.
        frame: of the source images.
    """

    config: StylizerConfig
    reference: np.ndarray
    maps: dict[str, PixelMap]
    networks: Networks = field(default_factory=lambda: Networks({}))
    card: dict[str, Any] = field(default_factory=dict)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    detail: DetailChange = field(default_factory=DetailChange)
    gate: GateThresholds | None = None
    frame: Frame | None = None

    @property
    def in_channels(self) -> int:
        """Channels of the images it was made for."""
        return int(self.reference.shape[0])

    @property
    def size(self) -> int | None:
        """Side in pixels that the networks work at, or else the calibrator; None when there is neither."""
        for name in ("autoencoder", "calibrator"):
            if name in self.networks:
                return int(self.networks.config(name)["sample_size"])
        return None

    def fingerprint(self) -> str:
        """SHA-256 (hex) of configuration, reference, and the maps and networks that the configured read-out runs."""
        used = (self.config.readout, f"{self.config.readout}_inverse")
        return sha256_of_json(
            {
                "weights": weights_digest(*(self.networks[name] for name in networks_of(self.config.readout))),
                "reference": sha256_of_array(self.reference),
                "maps": {name: self.maps[name].to_json() for name in used if name in self.maps},
                "detail": self.detail.to_json(),
                "frame": self.frame and self.frame.to_json(),
                "config": as_json(self.config),
            }
        )

    def to_json(self) -> dict[str, Any]:
        """All but tensors; ``from_json`` reads it."""
        return {
            "config": as_json(self.config),
            "maps": {name: change.to_json() for name, change in self.maps.items()},
            "card": self.card,
            "findings": self.diagnostics,
            "detail": self.detail.to_json(),
            "gate": None if self.gate is None else self.gate.to_json(),
            "frame": None if self.frame is None else self.frame.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], reference: np.ndarray, networks: Networks) -> StylizerState:
        """Back from ``to_json``. Raises ``OsasisError``, or what a value of a wrong type raises."""
        return cls(
            config=read_config(values["config"]),
            reference=reference,
            maps={name: map_from_json(value) for name, value in values["maps"].items()},
            networks=networks,
            card=values["card"],
            diagnostics=values["findings"],
            detail=DetailChange(**values["detail"]),
            gate=GateThresholds(**values["gate"]) if values["gate"] else None,
            frame=None if values.get("frame") is None else Frame(**values["frame"]),
        )

    def write(self, folder: Path) -> Path:
        """Write the folder beside its final place, flush it, then rename part by part, the index last.

        A reader sees the old stylizer, none, or the whole new one. What a killed run left beside it is cleared; files
        in the folder that are not the stylizer's own (logs, checkpoints, grids) stay. Raises ``OsasisError`` when the
        disk is full or the folder cannot be written.
        """
        remove_stale_temporaries(folder.parent)
        with atomic_folder(folder, marker=INDEX, into=NETWORKS) as temporary:
            self._fill(temporary)
        return folder

    def _fill(self, folder: Path) -> None:
        for name in self.networks:
            _save_network(self.networks[name], folder / name)
        save_tensors(folder / REFERENCE, {"reference": torch.from_numpy(self.reference)})
        (folder / "README.md").write_text(model_card(self), encoding="utf-8")
        files = [REFERENCE, *(file for name in self.networks for file in files_of(name))]
        sha256 = {name: sha256_of_file(folder / name) for name in files}
        write_sealed_json(folder / INDEX, {"format": FORMAT, **self.to_json(), "sha256": sha256})

    @classmethod
    def read(cls, folder: str | Path) -> StylizerState:
        """Read a folder. Networks are read, and checked against their checksums, when they are first needed.

        Raises ``OsasisError`` for a missing, incomplete, damaged or foreign folder.
        """
        folder = Path(folder)
        index = read_index(folder)
        check_index(index, folder)
        try:
            path = check_file(folder, REFERENCE, index["sha256"])
            reference = _reference(load_tensors(path, what="The stylizer's reference"), path)
            state = cls.from_json(index, reference, stored_networks(folder, index["sha256"], len(reference)))
            check_maps(state.maps, state.in_channels)
            if "frame" not in index:
                logger.warning(
                    "%s was made before frames were learned: it restyles a frame like all else. Make it anew.", folder
                )
        except OsasisError:
            raise
        except (KeyError, TypeError, AttributeError, ArithmeticError, OSError, RuntimeError, ValueError) as error:
            raise OsasisError(
                "The stylizer's parts must fit together", found=f"{error} in {folder}", remedy="Make it anew."
            ) from error
        return state

    def to_bytes(self) -> bytes:
        """All that determines the pixels of the configured read-out, and the device; equal states give equal bytes.

        Networks that this read-out does not run stay behind, so that a worker that applies a map holds none.
        """
        held = [name for name in networks_of(self.config.readout) if name in self.networks]
        tensors = {"reference": torch.from_numpy(self.reference).contiguous()}
        for name in held:
            state = self.networks[name].state_dict()
            tensors |= {f"{name}.{key}": value.cpu().contiguous() for key, value in state.items()}
        configs = {name: self.networks.config(name) for name in held if name != "decoder"}
        values = {**self.to_json(), "networks": configs, "held": held, "device": str(self.networks.device)}
        return safetensors.torch.save(tensors, metadata={"stylizer": json.dumps(values, sort_keys=True)})

    @classmethod
    def from_bytes(cls, data: bytes) -> StylizerState:
        """Back from ``to_bytes``, on the same device. Raises ``OsasisError`` when this machine has none of its kind."""
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
        values, tensors = parse_json(header["__metadata__"]["stylizer"].encode()), safetensors.torch.load(data)
        reference = tensors["reference"].numpy()
        parts = {}
        for name in values["held"]:
            weights = {
                key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")
            }
            config = values["networks"]["autoencoder" if name == "decoder" else name]
            parts[name] = StoredNetwork(name, partial(dict, config), partial(dict, weights), len(reference))
        networks = Networks(parts, torch.device(resolve_device(values["device"])), remedy=PICKLED)
        return cls.from_json(values, reference, networks)


def _reference(tensors: Mapping[str, torch.Tensor], path: Path) -> np.ndarray:
    """Return the reference ``(C, H, W)`` in its images' type, the one tensor of its file.

    Raises ``OsasisError`` for any other content.
    """
    found = {name: f"{tuple(tensor.shape)} {tensor.dtype}" for name, tensor in tensors.items()}
    tensor = tensors.get("reference")
    if len(tensors) != 1 or tensor is None or tensor.ndim != 3:
        raise OsasisError(
            'The stylizer\'s reference must be the tensor "reference" (C, H, W), alone in its file',
            found=f"{found} in {path}",
            remedy="Copy the folder again, or make the stylizer anew.",
        )
    array = tensor.numpy()
    check_array(array, name="the stylizer's reference")
    return array


def is_stylizer_folder(folder: str | Path) -> bool:
    """Whether a folder claims to hold a stylizer (it may still be damaged)."""
    return is_file(Path(folder) / INDEX)


def stylizer_digest(folder: str | Path) -> str:
    """SHA-256 (hex) of a folder's index, which holds the configuration and the checksum of every file.

    Cheap: no weights are read. Raises ``OsasisError`` for a folder without a stylizer.
    """
    _require_index(Path(folder))
    return sha256_of_file(Path(folder) / INDEX)


def read_index(folder: str | Path) -> dict[str, Any]:
    """A stylizer folder's index, checked against its own checksum (``format``, ``config``, ``card``, ``sha256``, ...).

    Cheap: no weights are read. Raises ``OsasisError`` for no stylizer, a damaged index, or another format.
    """
    folder = Path(folder)
    _require_index(folder)
    index = read_sealed_json(
        folder / INDEX,
        what="The stylizer's index",
        remedy="The file is damaged: copy the folder again or make the stylizer anew.",
    )
    if type(index.get("format")) is not int or index["format"] != FORMAT:
        raise OsasisError(
            f"The stylizer must be of format {FORMAT}",
            found=f"format {index.get('format')!r:.40} in {folder}",
            remedy="Use the version of nnunet-osasis that made it, or make it anew.",
        )
    return index


def _require_index(folder: Path) -> None:
    if not is_stylizer_folder(folder):
        raise OsasisError(
            "A stylizer folder must hold stylizer.json",
            found=f"none in {folder}",
            remedy="Make a stylizer with osasis-pretrain-stylizer --images DIR --style IMAGE --output "
            f"{folder}; an interrupted one continues with --resume.",
        )


def _save_network(network: Any, folder: Path) -> None:
    if folder.name == "decoder":  # no diffusers model: it has the configuration of the autoencoder
        save_tensors(folder / WEIGHTS, network.state_dict())
        return
    network.save_pretrained(folder)
    config = read_json(folder / CONFIG, what="A network's configuration")
    config.pop("_name_or_path", None)  # the path it was loaded from is private, and differs between machines
    atomic_write_json(folder / CONFIG, config)


def model_card(state: StylizerState) -> str:
    """The folder's README: Markdown with the front matter that model hubs read."""
    networks = f"networks work at {state.size} px" if "autoencoder" in state.networks else "no diffusion networks yet"
    lines = [
        "---",
        "library_name: nnunet-osasis",
        "tags: [medical-imaging, style-transfer, domain-shift]",
        "---",
        "# OSASIS stylizer",
        "",
        "Restyles source-domain images to look like one reference image. For research; not a medical device.",
        "It holds a model of its training images and the reference itself: share it only as their terms allow.",
        "",
        f"- channels {state.in_channels}, {networks}, read-out `{state.config.readout}`",
        f"- intensities: {state.config.intensity}",
        f"- frame: {state.frame or NO_FRAME}",
    ]
    if "student" in state.networks:
        student: Any = state.networks["student"]
        fidelity = state.diagnostics.get("student", {}).get("source_to_target", "not measured")
        weights = sum(parameter.numel() for parameter in student.parameters())
        lines.append(
            f"- one-pass student of `{student.config.teacher}`, {weights} weights; on source images it was not trained "
            f"on, beside its teacher: {markdown_text(str(fidelity))}"
        )
    elif is_map(state.config.readout):
        lines.append(f"- one pass: `{state.config.readout}` is a map and needs no student; ONNX with osasis-export")
    if state.gate is not None:
        lines.append(
            f"- structure gate: least scores {state.gate.scores}, measured on {state.gate.views} views of source "
            f"images; {100 * state.gate.false_alarms:.1f} % of them fail; damage found: {state.gate.detection}"
        )
    lines += [
        f"- {markdown_text(key.replace('_', ' '))}: {markdown_text(str(value))}"
        for key, value in sorted(state.card.items())
    ]
    return "\n".join(lines) + "\n"
