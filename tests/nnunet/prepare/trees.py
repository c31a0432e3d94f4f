"""Tiny copies of published datasets: file names and formats as their publishers chose them."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image


def picture(seed: int = 0, size: tuple[int, int] = (12, 16)) -> np.ndarray:
    """``(H, W, 3)`` uint8."""
    return np.random.default_rng(seed).integers(0, 255, (*size, 3)).astype(np.uint8)


def mask(seed: int = 0, size: tuple[int, int] = (12, 16), value: int = 255) -> np.ndarray:
    """``(H, W)`` uint8, a rectangle."""
    found = np.zeros(size, np.uint8)
    found[2 : 5 + seed % 4, 3:9] = value
    return found


def save(path: Path, array: np.ndarray) -> Path:
    """Write by suffix: TIFF, gzipped PPM, palette GIF and all that Pillow chooses itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, array)
    elif path.suffix == ".gz":
        buffer = io.BytesIO()
        Image.fromarray(array).convert("RGB").save(buffer, format="PPM")
        path.write_bytes(gzip.compress(buffer.getvalue()))
    else:
        Image.fromarray(array).save(path)
    return path


def pairs(root: Path, images: str, masks: str, cases: list[object]) -> None:
    """``images`` and ``masks`` are file names with ``{}`` for the case."""
    for seed, case in enumerate(cases):
        save(root / images.format(case), picture(seed))
        save(root / masks.format(case), mask(seed))


def clinicdb(root: Path) -> None:
    pairs(root, "Original/{}.tif", "Ground Truth/{}.tif", [1, 2, 25, 26, 51, 52, 68, 612])


def clinicdb_kaggle(root: Path) -> None:
    pairs(root, "PNG/Original/{}.png", "PNG/Ground Truth/{}.png", [1, 2, 25, 26, 51, 52, 68, 612])
    pairs(root, "TIF/Original/{}.tif", "TIF/Ground Truth/{}.tif", [1, 2, 25, 26, 51, 52, 68, 612])


def colondb(root: Path) -> None:
    pairs(root, "CVC-ColonDB/{}.bmp", "CVC-ColonDB/p{}.bmp", list(range(1, 8)))


def etis(root: Path) -> None:
    pairs(root, "ETIS-LaribPolypDB/{}.tif", "Ground Truth/p{}.tif", list(range(1, 8)))


def kvasir(root: Path) -> None:
    names = [f"cju0{i}" for i in range(7)]
    for seed, name in enumerate(names):
        save(root / f"Kvasir-SEG/images/{name}.jpg", picture(seed, (64, 64)))
        save(root / f"Kvasir-SEG/masks/{name}.jpg", np.stack([mask(seed, (64, 64))] * 3, axis=-1))
    (root / "Kvasir-SEG/kavsir_bboxes.json").write_text("{}")


def isic(root: Path) -> None:
    for seed in range(8):
        part = 1 + seed // 4
        save(root / f"HAM10000_images_part_{part}/ISIC_00000{seed}.jpg", picture(seed))
        save(root / f"HAM10000_segmentations_lesion_tschandl/ISIC_00000{seed}_segmentation.png", mask(seed))
    rows = [f"HAM_{seed // 2},ISIC_00000{seed},nv" for seed in range(8)]
    (root / "HAM10000_metadata.csv").write_text("\n".join(["lesion_id,image_id,dx", *rows]))


def drive(root: Path) -> None:
    for part, numbers in (("training", range(21, 27)), ("test", range(1, 4))):
        for number in numbers:
            save(root / f"DRIVE/{part}/images/{number:02d}_{part}.tif", picture(number))
            save(root / f"DRIVE/{part}/1st_manual/{number:02d}_manual1.gif", mask(number))
            field = np.full((12, 16), 255, np.uint8)
            field[:, -2:] = 0
            save(root / f"DRIVE/{part}/mask/{number:02d}_{part}_mask.gif", field)


def stare(root: Path) -> None:
    pairs(root, "stare-images/im000{}.ppm.gz", "labels-ah/im000{}.ah.ppm.gz", list(range(1, 7)))
    pairs(root, "stare-images/im001{}.ppm", "labels-ah/im001{}.ah.ppm", [1])


def chase(root: Path) -> None:
    eyes = [f"{child:02d}{eye}" for child in range(1, 7) for eye in "LR"]
    pairs(root, "CHASE/Image_{}.jpg", "CHASE/Image_{}_1stHO.png", eyes)
    pairs(root, "CHASE/Image_{}.jpg", "CHASE/Image_{}_2ndHO.png", eyes)
