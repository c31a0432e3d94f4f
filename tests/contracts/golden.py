"""A stylizer without training, the same on every machine, and its pixels through every door.

Run as a script (``python tests/contracts/golden.py``) it writes ``golden_pixels.safetensors`` anew: after a change of
pixels that was meant, and with the reason in the commit.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.maps.base import map_from_json
from nnunet_osasis.maps.field_of_view import Frame
from nnunet_osasis.stylizer.config import StylizerConfig
from nnunet_osasis.stylizer.student import Student
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

PATH = Path(__file__).with_name("golden_pixels.safetensors")
READOUTS = (
    "raw", "local_affine", "difference", "frequency",
    "decoder", "decoder_bent", "moments", "pair", "calibrator", "combined", "student",
)  # fmt: skip
DIRECTIONS = ("source_to_target", "target_to_source")
NETWORKS = ("raw", "local_affine", "difference", "frequency", "student")


def _map(channels: int, terms: tuple[str, ...], seed: int) -> dict:
    features = channels + 1
    features += channels * (channels + 1) // 2 if "quadratic" in terms else 0
    features += 5 * channels if "tone" in terms else 0
    features += channels + 1 if "radial" in terms else 0
    features += 2 * (channels + 1) if "field" in terms else 0
    rows = np.random.default_rng(seed).normal(0, 0.08, (channels, features))
    return {
        "coefficients": rows.round(4).tolist(), "terms": list(terms),
        "low": [-0.9] * channels, "high": [0.8] * channels,
    }  # fmt: skip


def _moments(channels: int) -> dict:
    if channels == 3:
        return {
            "source_mean": [48.0, 8.0, 6.0], "source_std": [22.0, 11.0, 9.0],
            "target_mean": [56.0, 15.0, -4.0], "target_std": [19.0, 14.0, 12.0],
        }  # fmt: skip
    return {
        "source_mean": [-8.0] * channels, "source_std": [22.0] * channels,
        "target_mean": [5.0] * channels, "target_std": [17.0] * channels,
    }  # fmt: skip


def _randomized(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def golden_stylizer(channels: int = 3, **config: object) -> OSASISStylizer:
    """A stylizer of ``channels`` channels with every read-out; weights drawn, nothing trained."""
    autoencoder = DiffusionAutoencoder(
        in_channels=channels, sample_size=32, block_out_channels=(8, 8), encoder_block_out_channels=(8, 8, 8),
        layers_per_block=1, attention_sizes=(), time_dim=16, z_dim=16, norm_groups=4,
    )  # fmt: skip
    _randomized(autoencoder, 1)
    decoder = copy.deepcopy(autoencoder.unet)
    _randomized(decoder, 2)
    spn = StructurePreservingNetwork(in_channels=channels, hidden_channels=(8, 8), time_dim=16)
    _randomized(spn, 3)
    student = Student(channels=channels, sample_size=32, width=8, teacher="local_affine")
    _randomized(student, 4)
    kinds: dict[str, tuple[str, ...]] = {
        "decoder": (), "decoder_bent": ("quadratic", "tone", "radial"), "pair": ("field",), "calibrator": ("tone",),
    }  # fmt: skip
    maps: dict[str, dict] = {}
    for ending in ("", "_inverse"):
        for seed, (name, terms) in enumerate(kinds.items()):
            maps[name + ending] = _map(channels, terms, seed + 10 * len(ending))
        one = _moments(channels)
        if ending:
            one = {name.replace("source", "x").replace("target", "source").replace("x", "target"): value
                   for name, value in one.items()}  # fmt: skip
        maps["moments" + ending] = one
        maps["combined" + ending] = {"mean_of": [one, maps["calibrator" + ending]], "confidence": 0.9}
    reference = np.random.default_rng(5).integers(0, 255, (channels, 32, 32)).astype(np.uint8)
    reference[:, :3], reference[:, -3:], reference[:, :, :3], reference[:, :, -3:] = 0, 0, 0, 0
    return OSASISStylizer(
        autoencoder, decoder, spn,
        reference=reference, maps={name: map_from_json(value) for name, value in maps.items()},
        config=StylizerConfig(**config), student=student, frame=Frame(0.5 / 127.5 - 1, 1.0, 0.4),
    )  # fmt: skip


def picture(channels: int = 3, height: int = 24, width: int = 36, seed: int = 0) -> np.ndarray:
    """``(channels, height, width)`` uint8: a smooth scene with a bright disc in a black frame of three pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    image = np.stack([120 + 50 * np.sin(5 * x + 3 * c + seed) + 30 * np.cos(7 * y - c) for c in range(channels)])
    image += 45 * (((x - 0.6) ** 2 + (y - 0.4) ** 2) < 0.03)
    image = np.clip(image + rng.normal(0, 2, image.shape), 1, 255)
    image[:, :3], image[:, -3:], image[:, :, :3], image[:, :, -3:] = 0, 0, 0, 0
    return image.astype(np.uint8)


def unit(channels: int = 3, seed: int = 0) -> torch.Tensor:
    """``picture`` as ``(1, channels, H, W)`` in [-1, 1]."""
    return torch.from_numpy(picture(channels, seed=seed).astype(np.float32) / 127.5 - 1)[None]


def library_pixels() -> dict[str, np.ndarray]:
    """Every read-out in both directions, strengths, volumes and native units."""
    stylizer, found = golden_stylizer(), {}
    for readout in READOUTS:
        for direction in DIRECTIONS:
            found[f"library/{readout}/{direction}"] = stylizer.stylize(unit(), readout=readout, direction=direction)
    found["library/combined/half"] = stylizer.stylize(unit(), strength=0.5)
    found["library/raw/half"] = stylizer.stylize(unit(), readout="raw", strength=0.5)
    pixels = {name: value.numpy() for name, value in found.items()}
    pixels["library/array"] = stylizer.stylize_array(picture())
    scan = golden_stylizer(2, intensity=IntensityRange("channel_percentile", 0.5, 99.5))
    volume = np.stack([picture(2, seed=i) for i in range(3)], axis=1).astype(np.float32) * 7 - 300
    for readout in ("combined", "local_affine", "student"):
        pixels[f"library/volume/{readout}"] = scan.stylize_array(volume, readout=readout)
    return pixels


def folder_pixels(root: Path) -> dict[str, np.ndarray]:
    """A folder of pictures through ``osasis-stylize``'s own function, without and with the gate."""
    from nnunet_osasis.stylizer.archive.run import stylize_folder

    (root / "images").mkdir()
    Image.fromarray(np.moveaxis(picture(), 0, -1)).save(root / "images/case.png")
    found = {}
    for readout in ("combined", "raw"):
        stylizer = golden_stylizer(readout=readout)
        stylize_folder(stylizer, root / "images", root / readout, gated=False, progress=False)
        found[f"folder/{readout}"] = np.moveaxis(np.asarray(Image.open(root / readout / "case.png")), -1, 0)
    return found


def monai_pixels(root: Path) -> dict[str, np.ndarray]:
    """MONAI's array and dictionary transforms."""
    from monai_transforms import OSASISStylize, OSASISStylized

    golden_stylizer().save_pretrained(root / "stylizer")
    array = OSASISStylize(root / "stylizer")(picture())
    named = OSASISStylized("image", root / "stylizer", strength=0.7)({"image": picture()})["image"]
    return {"monai/array": np.asarray(array), "monai/dictionary": np.asarray(named)}


def one_pass_pixels() -> dict[str, np.ndarray]:
    """The module that nnU-Net's training step and ONNX files run."""
    stylizer, strength = golden_stylizer(), torch.tensor([0.8])
    return {
        f"one_pass/{readout}/{direction}": stylizer.one_pass(direction, readout)(unit(), strength).numpy()
        for readout in ("combined", "decoder_bent", "student")
        for direction in DIRECTIONS
    }


def onnx_pixels(root: Path) -> dict[str, np.ndarray]:
    """The exported file in ONNX Runtime."""
    import onnxruntime

    from nnunet_osasis.stylizer.onnx import export_one_pass

    path = root / "restyle.onnx"
    export_one_pass(golden_stylizer(), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    values = (unit().numpy(), np.array([0.8], np.float32))
    return {"onnx/combined": session.run(None, dict(zip(names, values, strict=True)))[0]}


if __name__ == "__main__":
    import tempfile

    import safetensors.numpy

    with tempfile.TemporaryDirectory() as folder:
        rooms = [Path(folder) / name for name in ("folder", "monai", "onnx")]
        for room in rooms:
            room.mkdir()
        every = library_pixels() | folder_pixels(rooms[0]) | monai_pixels(rooms[1]) | one_pass_pixels()
        every |= onnx_pixels(rooms[2])
    safetensors.numpy.save_file({name: np.ascontiguousarray(value) for name, value in every.items()}, PATH)
    sys.stdout.write(f"{len(every)} pictures, {PATH.stat().st_size} bytes\n")
