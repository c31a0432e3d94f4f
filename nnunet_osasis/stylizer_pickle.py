"""A stylizer as a pair of byte strings: what is pickled into workers and hashed by caches.

Pickling the modules themselves works, but gives other bytes each time; equal stylizers must give equal bytes,
because MONAI names cache entries by the hash of a transform's pickle.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import safetensors.torch
import torch

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.gate.calibration import GateThresholds
from nnunet_osasis.maps.base import map_from_json
from nnunet_osasis.maps.detail import DetailChange
from nnunet_osasis.runtime.compute import resolve_device
from nnunet_osasis.runtime.records import as_json
from nnunet_osasis.student import Student

if TYPE_CHECKING:
    from nnunet_osasis.stylizer import OSASISStylizer


def pack(stylizer: OSASISStylizer) -> tuple[str, bytes]:
    """``(JSON, safetensors)`` of configuration, maps, card and device, and of weights and reference.

    All that determines pixels; the calibrator, which only makes the maps of other references, stays behind.
    """
    text = json.dumps(
        {
            "autoencoder": _plain(stylizer.autoencoder.config),
            "spn": _plain(stylizer.spn.config),
            "config": as_json(stylizer.config),
            "maps": {name: color_map.to_json() for name, color_map in stylizer.maps.items()},
            "detail": stylizer.detail.to_json(),
            "card": stylizer.card,
            "findings": stylizer.findings,
            "gate": None if stylizer.gate is None else stylizer.gate.to_json(),
            "device": str(stylizer.device),
            "student": None if stylizer.student is None else _plain(stylizer.student.config),
        },
        sort_keys=True,
    )
    parts = {"autoencoder": stylizer.autoencoder, "decoder": stylizer.decoder, "spn": stylizer.spn}
    if stylizer.student is not None:
        parts["student"] = stylizer.student
    tensors = {f"{part}.{k}": v.cpu().contiguous() for part, m in parts.items() for k, v in m.state_dict().items()}
    tensors["reference"] = torch.from_numpy(stylizer.reference).contiguous()
    return text, safetensors.torch.save(tensors)


def unpack(text: str, data: bytes) -> OSASISStylizer:
    """Back from :func:`pack`, on the same device. Raises ``OsasisError`` when this machine has none of its kind."""
    from nnunet_osasis.stylizer import OSASISStylizer
    from nnunet_osasis.stylizer_check import read_config

    values, tensors = json.loads(text), safetensors.torch.load(data)

    def weights(part: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}

    autoencoder = DiffusionAutoencoder.from_config(values["autoencoder"])
    spn = StructurePreservingNetwork.from_config(values["spn"])
    decoder = autoencoder.make_unet()
    student = Student.from_config(values["student"]) if values["student"] else None
    for part, module in (("autoencoder", autoencoder), ("decoder", decoder), ("spn", spn), ("student", student)):
        if module is None:
            continue
        module.load_state_dict(weights(part))
    maps = {name: map_from_json(value) for name, value in values["maps"].items()}
    stylizer = OSASISStylizer(
        autoencoder, decoder, spn,
        reference=tensors["reference"].numpy(), maps=maps, config=read_config(values["config"]), card=values["card"],
        detail=DetailChange(**values["detail"]), findings=values["findings"],
        gate=GateThresholds(**values["gate"]) if values["gate"] else None, student=student,
    )  # fmt: skip
    return stylizer.to(resolve_device(values["device"]))


def _plain(config: dict) -> dict:
    """A diffusers configuration without its own bookkeeping (versions, paths)."""
    return {key: value for key, value in dict(config).items() if not key.startswith("_")}
