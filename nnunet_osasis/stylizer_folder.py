"""The layout of a stylizer folder, known here and nowhere else: JSON configurations, safetensors, checksums, a card."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nnunet_osasis.autoencoder import DiffusionAutoencoder
from nnunet_osasis.calibrator import Calibrator
from nnunet_osasis.detail import DetailChange
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.estimates import map_from_json
from nnunet_osasis.image_io import check_array
from nnunet_osasis.intensity import IntensityRange
from nnunet_osasis.presets import as_json
from nnunet_osasis.sampler import SamplerConfig
from nnunet_osasis.spn import StructurePreservingNetwork
from nnunet_osasis.storage import (
    atomic_write_json,
    load_tensors,
    read_json,
    save_tensors,
    sha256_of_array,
    sha256_of_file,
    sha256_of_json,
    write_error,
)

if TYPE_CHECKING:
    from nnunet_osasis.stylizer import OSASISStylizer
    from nnunet_osasis.stylizer_config import StylizerConfig

FORMAT = 2
READABLE = (1, 2)
"""Format 1 had colour maps of the decoder and the pair alone, and no calibrator."""
INDEX = "stylizer.json"
_CALIBRATOR = ("calibrator/config.json", "calibrator/diffusion_pytorch_model.safetensors")
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
    return (Path(folder) / INDEX).is_file()


def stylizer_fingerprint(stylizer: OSASISStylizer) -> str:
    """SHA-256 (hex) of weights, reference, maps and configuration."""
    parts = (stylizer.autoencoder, stylizer.decoder, stylizer.spn)
    return sha256_of_json(
        {
            "weights": [sha256_of_array(v.cpu().numpy()) for m in parts for _, v in sorted(m.state_dict().items())],
            "reference": sha256_of_array(stylizer.reference),
            "maps": {name: one.to_json() for name, one in stylizer.maps.items()},
            "detail": stylizer.detail.to_json(),
            "config": as_json(stylizer.config),
        }
    )


def _card(stylizer: OSASISStylizer) -> str:
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
    lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in sorted(stylizer.card.items())]
    return "\n".join(lines) + "\n"


def save_stylizer(stylizer: OSASISStylizer, folder: Path) -> Path:
    """Write the folder beside its final place, then rename: readers see the old one or the whole new one."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        temporary.chmod(0o755)
        stylizer.autoencoder.save_pretrained(temporary / "autoencoder")
        stylizer.spn.save_pretrained(temporary / "spn")
        save_tensors(temporary / "decoder/diffusion_pytorch_model.safetensors", stylizer.decoder.state_dict())
        save_tensors(temporary / "reference.safetensors", {"reference": torch.from_numpy(stylizer.reference)})
        (temporary / "README.md").write_text(_card(stylizer), encoding="utf-8")
        files = _FILES
        if stylizer.calibrator is not None:
            stylizer.calibrator.save_pretrained(temporary / "calibrator")
            files += _CALIBRATOR
        index: dict[str, Any] = {
            "format": FORMAT,
            "config": as_json(stylizer.config),
            "maps": {name: color_map.to_json() for name, color_map in stylizer.maps.items()},
            "card": stylizer.card,
            "findings": stylizer.findings,
            "detail": stylizer.detail.to_json(),
            "sha256": {name: sha256_of_file(temporary / name) for name in files},
        }
        atomic_write_json(temporary / INDEX, index)
        # files that are not the stylizer's own (logs, checkpoints, grids) live beside these and stay
        folder.mkdir(exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        shutil.rmtree(folder / "calibrator", ignore_errors=True)  # of an older stylizer; the new one may have none
        for part in sorted(p for p in temporary.iterdir() if p.name != INDEX):
            target = folder / part.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(part, target)
        os.replace(temporary / INDEX, folder / INDEX)
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


def _read_index(folder: Path) -> dict[str, Any]:
    _require_index(folder)
    index = read_json(folder / INDEX, what="The stylizer's index")
    if index.get("format") not in READABLE:
        raise OsasisError(
            f"The stylizer must be of format {' or '.join(map(str, READABLE))}",
            found=f"format {index.get('format')} in {folder}",
            remedy="Use the version of nnunet-osasis that made it, or make it anew.",
        )
    for name in _FILES + (_CALIBRATOR if _has_calibrator(index) else ()):
        path = folder / name
        if not path.is_file():
            raise OsasisError(
                "A stylizer must be complete", found=f"{name} missing in {folder}", remedy="Copy it again."
            )
        if sha256_of_file(path) != index.get("sha256", {}).get(name):
            raise OsasisError(
                "A stylizer's files must be the ones it was saved with",
                found=f"another checksum for {path}",
                remedy="The file is truncated, damaged or foreign: copy the folder again or make it anew.",
            )
    return index


def _has_calibrator(index: dict[str, Any]) -> bool:
    return _CALIBRATOR[0] in index.get("sha256", {})


def read_config(values: dict[str, Any]) -> StylizerConfig:
    """A ``StylizerConfig`` from its JSON form."""
    from nnunet_osasis.stylizer_config import StylizerConfig

    sampler, intensity = SamplerConfig(**values["sampler"]), IntensityRange(**values["intensity"])
    return StylizerConfig(**values | {"sampler": sampler, "intensity": intensity})


def load_stylizer(folder: Path, device: str = "cpu") -> OSASISStylizer:
    """Read a stylizer folder; see ``OSASISStylizer.from_pretrained``."""
    from nnunet_osasis.stylizer import OSASISStylizer

    index = _read_index(folder)
    try:
        config = read_config(index["config"])
        maps = {name: map_from_json(value) for name, value in index["maps"].items()}
        autoencoder = DiffusionAutoencoder.from_pretrained(folder / "autoencoder", local_files_only=True)
        decoder = autoencoder.make_unet()
        decoder.load_state_dict(
            load_tensors(folder / "decoder/diffusion_pytorch_model.safetensors", what="The stylizer's decoder")
        )
        spn = StructurePreservingNetwork.from_pretrained(folder / "spn", local_files_only=True)
        detail = DetailChange(**index.get("detail", {}))
        calibrator = None
        if _has_calibrator(index):
            calibrator = Calibrator.from_pretrained(folder / "calibrator", local_files_only=True).eval()
            for parameter in calibrator.parameters():  # a mapped file is aligned otherwise, and sums in another order
                parameter.data = parameter.data.clone()
        reference = load_tensors(folder / "reference.safetensors", what="The stylizer's reference")["reference"].numpy()
    except OsasisError:
        raise
    except (KeyError, TypeError, OSError, RuntimeError, ValueError) as error:
        raise OsasisError(
            "The stylizer's parts must fit together", found=f"{error} in {folder}", remedy="Make it anew."
        ) from error
    check_array(reference, name="the stylizer's reference", channels=autoencoder.config.in_channels)
    stylizer = OSASISStylizer(
        autoencoder, decoder, spn, reference=reference, maps=maps, config=config, card=index["card"],
        findings=index.get("findings"), calibrator=calibrator, detail=detail,
    )  # fmt: skip
    return stylizer.to(device)
