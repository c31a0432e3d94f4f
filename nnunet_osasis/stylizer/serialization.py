"""The layout of a stylizer folder, known here and nowhere else: JSON configurations, safetensors, checksums, a card.

A stylizer as a pair of byte strings: what is pickled into workers and hashed by caches.

Pickling the modules themselves works, but gives other bytes each time; equal stylizers must give equal bytes,
because MONAI names cache entries by the hash of a transform's pickle.

The README.md of a stylizer folder.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from diffusers import ModelMixin

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.calibration import GateThresholds
from nnunet_osasis.images.image import check_array, is_file
from nnunet_osasis.maps.base import map_from_json
from nnunet_osasis.maps.detail import DetailChange
from nnunet_osasis.runtime.compute import resolve_device
from nnunet_osasis.runtime.records import as_json, atomic_write_json, read_json, read_sealed_json, write_sealed_json
from nnunet_osasis.runtime.storage import (
    load_tensors,
    remove_stale_temporaries,
    save_tensors,
    sha256_of_array,
    sha256_of_file,
    sha256_of_json,
    sync_folder,
    sync_tree,
    temporary_prefix,
    write_error,
)
from nnunet_osasis.stylizer.calibrator import Calibrator
from nnunet_osasis.stylizer.checks import check_index, check_maps, read_config, read_network, require_finite_weights
from nnunet_osasis.stylizer.config import identity_of
from nnunet_osasis.stylizer.readouts import DECODED
from nnunet_osasis.stylizer.student import Student

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

FORMAT = 2

READABLE = (1, 2)
"""Format 1 had colour maps of the decoder and the pair alone, and no calibrator."""

INDEX = "stylizer.json"

_OPTIONAL = ("calibrator", "student")
"""Networks a stylizer may lack: folders, and attributes of ``OSASISStylizer``."""

_FILES: tuple[str, ...] = (
    "autoencoder/config.json",
    "autoencoder/diffusion_pytorch_model.safetensors",
    "decoder/diffusion_pytorch_model.safetensors",
    "spn/config.json",
    "spn/diffusion_pytorch_model.safetensors",
    "reference.safetensors",
)


def is_stylizer_folder(folder: str | Path) -> bool:
    """Whether a folder claims to hold a stylizer (it may still be damaged)."""
    return is_file(Path(folder) / INDEX)


def stylizer_fingerprint(stylizer: OSASISStylizer) -> str:
    """SHA-256 (hex) of weights, reference, maps and configuration."""
    parts = filter(None, (stylizer.autoencoder, stylizer.decoder, stylizer.spn, stylizer.student))
    return sha256_of_json(
        {
            "weights": [sha256_of_array(v.cpu().numpy()) for m in parts for _, v in sorted(m.state_dict().items())],
            "reference": sha256_of_array(stylizer.reference),
            "maps": {name: one.to_json() for name, one in stylizer.maps.items()},
            "detail": stylizer.detail.to_json(),
            "config": identity_of(stylizer.config),
        }
    )


def _save_network(network: ModelMixin, folder: Path) -> None:
    network.save_pretrained(folder)
    config = read_json(folder / "config.json", what="A network's configuration")
    config.pop("_name_or_path", None)  # where it was loaded from is nobody's business, and no two machines' the same
    atomic_write_json(folder / "config.json", config)


def save_stylizer(stylizer: OSASISStylizer, folder: Path) -> Path:
    """Write the folder beside its final place, flush it, then rename part by part, the index last.

    A reader sees the old stylizer, none, or the whole new one; what a killed run left beside it is cleared.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_stale_temporaries(folder.parent)
        temporary = Path(tempfile.mkdtemp(prefix=temporary_prefix(), dir=folder.parent))
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        temporary.chmod(0o755)
        _save_network(stylizer.autoencoder, temporary / "autoencoder")
        _save_network(stylizer.spn, temporary / "spn")
        save_tensors(temporary / "decoder/diffusion_pytorch_model.safetensors", stylizer.decoder.state_dict())
        save_tensors(temporary / "reference.safetensors", {"reference": torch.from_numpy(stylizer.reference)})
        (temporary / "README.md").write_text(model_card(stylizer), encoding="utf-8")
        files = _FILES
        for name in _OPTIONAL:
            if (network := getattr(stylizer, name)) is not None:
                _save_network(network, temporary / name)
                files += _files_of(name)
        index: dict[str, Any] = {
            "format": FORMAT,
            "config": as_json(stylizer.config),
            "maps": {name: color_map.to_json() for name, color_map in stylizer.maps.items()},
            "card": stylizer.card,
            "findings": stylizer.findings,
            "detail": stylizer.detail.to_json(),
            "gate": None if stylizer.gate is None else stylizer.gate.to_json(),
            "sha256": {name: sha256_of_file(temporary / name) for name in files},
        }
        write_sealed_json(temporary / INDEX, index)
        sync_tree(temporary)
        # files that are not the stylizer's own (logs, checkpoints, grids) live beside these and stay
        folder.mkdir(exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        for name in _OPTIONAL:  # of an older stylizer; the new one may have none
            shutil.rmtree(folder / name, ignore_errors=True)
        for part in sorted(p for p in temporary.iterdir() if p.name != INDEX):
            target = folder / part.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(part, target)
        sync_folder(folder)
        os.replace(temporary / INDEX, folder / INDEX)
        sync_folder(folder)
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def stylizer_digest(folder: str | Path) -> str:
    """SHA-256 (hex) of a folder's index, which holds the configuration and the checksum of every file.

    Cheap: no weights are read. Raises ``OsasisError`` for a folder without a stylizer.
    """
    _require_index(Path(folder))
    return sha256_of_file(Path(folder) / INDEX)


def _require_index(folder: Path) -> None:
    if not is_stylizer_folder(folder):
        raise OsasisError(
            "A stylizer folder must hold stylizer.json",
            found=f"none in {folder}",
            remedy="Make a stylizer with osasis-pretrain-stylizer --images DIR --style IMAGE --output "
            f"{folder}; an interrupted one continues with --resume.",
        )


def read_index(folder: str | Path) -> dict[str, Any]:
    """A stylizer folder's index, checked against its own checksum (``format``, ``config``, ``card``, ``sha256``, ...).

    Cheap: no weights are read. Raises ``OsasisError`` for no stylizer, a damaged index, or an unknown format.
    """
    folder = Path(folder)
    _require_index(folder)
    index = read_sealed_json(
        folder / INDEX,
        what="The stylizer's index",
        remedy="The file is damaged: copy the folder again or make the stylizer anew.",
    )
    if index.get("format") not in READABLE:
        raise OsasisError(
            f"The stylizer must be of format {' or '.join(map(str, READABLE))}",
            found=f"format {index.get('format')} in {folder}",
            remedy="Use the version of nnunet-osasis that made it, or make it anew.",
        )
    return index


def _read_index(folder: Path) -> dict[str, Any]:
    """The index, after every file was compared with its checksum."""
    index = read_index(folder)
    check_index(index, folder)
    optional = (file for name in _OPTIONAL if _has(index, name) for file in _files_of(name))
    for name in (*_FILES, *optional):
        path = folder / name
        if not path.is_file():
            raise OsasisError(
                "A stylizer must be complete", found=f"{name} missing in {folder}", remedy="Copy it again."
            )
        if sha256_of_file(path) != index["sha256"].get(name):
            raise OsasisError(
                "A stylizer's files must be the ones it was saved with",
                found=f"another checksum for {path}",
                remedy="The file is truncated, damaged or foreign: copy the folder again or make it anew.",
            )
    return index


def _files_of(network: str) -> tuple[str, ...]:
    return (f"{network}/config.json", f"{network}/diffusion_pytorch_model.safetensors")


def _has(index: dict[str, Any], network: str) -> bool:
    return any(name in index.get("sha256", {}) for name in _files_of(network))


def load_stylizer(folder: Path, device: str = "cpu") -> OSASISStylizer:
    """Read a stylizer folder; see ``OSASISStylizer.from_pretrained``."""
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

    index = _read_index(folder)
    try:
        config = read_config(index["config"])
        maps = {name: map_from_json(value) for name, value in index["maps"].items()}
        autoencoder = read_network(DiffusionAutoencoder, folder / "autoencoder")
        decoder = autoencoder.make_unet()
        decoder.load_state_dict(
            load_tensors(folder / "decoder/diffusion_pytorch_model.safetensors", what="The stylizer's decoder")
        )
        spn = read_network(StructurePreservingNetwork, folder / "spn")
        detail = DetailChange(**index.get("detail", {}))
        gate = GateThresholds(**index["gate"]) if index.get("gate") else None
        calibrator = read_network(Calibrator, folder / "calibrator").eval() if _has(index, "calibrator") else None
        student = read_network(Student, folder / "student") if _has(index, "student") else None
        for network in filter(None, (autoencoder, spn, calibrator, student)):
            for parameter in network.parameters():  # a mapped file is aligned otherwise, and sums in another order
                parameter.data = parameter.data.clone()
        reference = load_tensors(folder / "reference.safetensors", what="The stylizer's reference")["reference"].numpy()
        require_finite_weights(*filter(None, (autoencoder, decoder, spn, student)))
        check_maps(maps, autoencoder.config.in_channels, student)
    except OsasisError:
        raise
    except (KeyError, TypeError, AttributeError, ArithmeticError, OSError, RuntimeError, ValueError) as error:
        raise OsasisError(
            "The stylizer's parts must fit together", found=f"{error} in {folder}", remedy="Make it anew."
        ) from error
    check_array(reference, name="the stylizer's reference", channels=autoencoder.config.in_channels)
    stylizer = OSASISStylizer(
        autoencoder, decoder, spn, reference=reference, maps=maps, config=config, card=index["card"],
        findings=index.get("findings"), calibrator=calibrator, detail=detail, gate=gate, student=student,
    )  # fmt: skip
    return stylizer.to(device)


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
    from nnunet_osasis.stylizer.checks import read_config
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

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


def model_card(stylizer: OSASISStylizer) -> str:
    """Markdown with the front matter that model hubs read."""
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
        f"- channels {stylizer.in_channels}, networks work at {stylizer.size} px, read-out `{stylizer.config.readout}`",
        f"- intensities: {stylizer.config.intensity}",
    ]
    if stylizer.student is not None:
        found = stylizer.findings.get("student", {})
        lines.append(
            f"- one-pass student of `{stylizer.student.config.teacher}`, "
            f"{sum(p.numel() for p in stylizer.student.parameters())} weights; on source images it was not trained on, "
            f"beside its teacher: {found.get('source_to_target', 'not measured')}"
        )
    elif stylizer.config.readout not in DECODED:
        lines.append(f"- one pass: `{stylizer.config.readout}` is a map and needs no student; ONNX with osasis-export")
    if stylizer.gate is not None:
        lines.append(
            f"- structure gate: least scores {stylizer.gate.scores}, measured on {stylizer.gate.views} views of source "
            f"images; {100 * stylizer.gate.false_alarms:.1f} % of them fail; damage found: {stylizer.gate.detection}"
        )
    lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in sorted(stylizer.card.items())]
    return "\n".join(lines) + "\n"
