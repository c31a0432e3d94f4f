"""Images and volumes in and out, through Pillow, tifffile and SimpleITK, with their geometry kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.storage import atomic_write

NATURAL_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
TIFF_SUFFIXES = (".tif", ".tiff")
VOLUME_SUFFIXES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd")
SUFFIXES = NATURAL_SUFFIXES + TIFF_SUFFIXES + VOLUME_SUFFIXES


@dataclass(frozen=True)
class LoadedImage:
    """One image or volume as stored.

    Attributes:
        array: ``(C, H, W)`` or, for a volume of more than one slice, ``(C, D, H, W)``; the file's own dtype and units.
        path: where it came from.
        geometry: spacing, origin and direction of medical formats (SimpleITK's), else None.
    """

    array: np.ndarray
    path: Path
    geometry: Any = field(default=None, compare=False, repr=False)

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Spacing of ``array``'s spatial axes ``(D, H, W)``; None where the file has none or is no volume."""
        if self.geometry is None or self.array.ndim != 4:
            return None
        x, y, z = self.geometry.GetSpacing()[:3]
        return z, y, x


def image_suffix(path: str | Path) -> str:
    """The suffix that decides the format, lower case (``.nii.gz`` counts as one), or ``""`` if it is none of ours."""
    name = Path(path).name.lower()
    return max((suffix for suffix in SUFFIXES if name.endswith(suffix)), key=len, default="")


def image_stem(path: str | Path) -> str:
    """The file's name without its image suffix."""
    return Path(path).name[: -len(image_suffix(path)) or None]


def list_images(folder: str | Path) -> list[Path]:
    """The readable image files of ``folder``, by name. Raises ``OsasisError`` when it is missing or holds none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise OsasisError("The image folder must exist", found=f"no folder {folder}", remedy="Check the path.")
    found = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".") and image_suffix(p))
    if not found:
        raise OsasisError(
            "The image folder must hold images",
            found=f"none in {folder}",
            remedy=f"Readable formats: {', '.join(SUFFIXES)}.",
        )
    return found


def _read_natural(path: Path) -> np.ndarray:
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        picture: Image.Image = ImageOps.exif_transpose(opened) or opened
        if picture.mode == "P" or picture.mode.startswith("CMYK"):
            picture = picture.convert("RGB")
        elif picture.mode in ("LA", "RGBA", "La", "RGBa"):  # alpha is not an image channel of ours
            picture = picture.convert(picture.mode[:-1].upper())
        elif picture.mode == "1":
            picture = picture.convert("L")
        array = np.array(picture)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(np.moveaxis(array, -1, 0))


def _read_tiff(path: Path) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(path) as opened:
        series = opened.series[0]
        axes, array = series.axes, series.asarray()
    samples = axes.find("S")
    if samples >= 0:  # colour samples first; a fourth one is alpha
        array = np.moveaxis(array, samples, 0)
        array = array[:3] if len(array) == 4 else array
    else:
        array = array[None]
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    return np.ascontiguousarray(array)


def _read_volume(path: Path) -> tuple[np.ndarray, Any]:
    import SimpleITK as sitk

    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    elif image.GetDimension() < 4:
        array = array[None]
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    return np.ascontiguousarray(array), image


def read_image(path: str | Path) -> LoadedImage:
    """Read one image or volume.

    Raises:
        OsasisError: the file is missing, truncated, of an unknown format, of more pixels than Pillow opens or of more
            than three spatial axes, or it holds NaN or infinity.
    """
    from PIL.Image import DecompressionBombError

    path = Path(path)
    suffix = image_suffix(path)
    if not path.is_file():
        raise OsasisError("The image must exist", found=f"no file {path}", remedy="Check the path.")
    if not suffix:
        raise OsasisError(
            "The image format must be known", found=path.name, remedy=f"Use one of {', '.join(SUFFIXES)}."
        )
    geometry = None
    try:
        if suffix in NATURAL_SUFFIXES:
            array = _read_natural(path)
        elif suffix in TIFF_SUFFIXES:
            array = _read_tiff(path)
        else:
            array, geometry = _read_volume(path)
    except (OSError, ValueError, RuntimeError, SyntaxError, IndexError, KeyError, DecompressionBombError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise OsasisError(
            "The image must be readable", found=f"{path}: {reason}", remedy="Replace the file or leave it out."
        ) from error
    check_array(array, name=str(path))
    return LoadedImage(array, path, geometry)


def check_array(array: np.ndarray, *, name: str = "the image", channels: int | None = None) -> None:
    """Refuse what no stylizer can use: rank other than ``(C, H, W)``/``(C, D, H, W)``, emptiness, NaN, infinity.

    Raises ``OsasisError``; with ``channels`` also when the channel count differs.
    """
    if array.ndim not in (3, 4):
        raise OsasisError(
            f"{name} must have the axes (C, H, W) or (C, D, H, W)",
            found=f"shape {array.shape}",
            remedy="Split time series and stacks of more axes first.",
        )
    if array.size == 0 or array.dtype.kind not in "uifb":
        raise OsasisError(f"{name} must hold numbers", found=f"shape {array.shape}, dtype {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise OsasisError(f"{name} must be finite", found=f"{bad} NaN or infinite values", remedy="Repair or drop it.")
    if channels is not None and array.shape[0] != channels:
        kind = {1: "grayscale", 3: "colour"}
        raise OsasisError(
            f"{name} must have {channels} channel(s) ({kind.get(channels, 'as the stylizer')})",
            found=f"{array.shape[0]} ({kind.get(array.shape[0], 'other')})",
            remedy="Convert it, or use a stylizer made for images of that kind.",
        )


def to_dtype(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Back to a file's dtype: integers are rounded and clipped to their range, floats cast."""
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return np.clip(np.rint(array), limits.min, limits.max).astype(dtype)
    return array.astype(dtype)


def write_like(loaded: LoadedImage, array: np.ndarray, path: str | Path) -> Path:
    """Write ``array`` (axes as ``loaded.array``) with the dtype and geometry of ``loaded``, atomically.

    The suffix of ``path`` decides the format; JPEG becomes PNG by the caller's choice of ``path``, as lossy
    re-encoding would change structure.
    """
    if array.shape != loaded.array.shape:
        raise OsasisError("The result must have its source's shape", found=f"{array.shape} for {loaded.array.shape}")
    array = to_dtype(array, loaded.array.dtype)
    suffix = image_suffix(path)

    def write(temporary: Path) -> None:
        if suffix in VOLUME_SUFFIXES:
            _write_volume(loaded, array, temporary)
        elif suffix in TIFF_SUFFIXES:
            import tifffile

            tifffile.imwrite(temporary, array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1))
        else:
            from PIL import Image

            Image.fromarray(array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)).save(temporary)

    return atomic_write(path, write)


def _write_volume(loaded: LoadedImage, array: np.ndarray, path: Path) -> None:
    import SimpleITK as sitk

    source = loaded.geometry
    if source is None:
        sitk.WriteImage(
            sitk.GetImageFromArray(array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, -1)), str(path)
        )
        return
    dimension, vector = source.GetDimension(), source.GetNumberOfComponentsPerPixel() > 1
    slices = array[:, None] if array.ndim == 3 and dimension >= 3 else array
    values = np.moveaxis(slices, 0, -1) if vector else (slices if dimension == 4 else slices[0])
    image = sitk.GetImageFromArray(values, isVector=vector)
    image.CopyInformation(source)
    for key in source.GetMetaDataKeys():
        image.SetMetaData(key, source.GetMetaData(key))
    sitk.WriteImage(image, str(path))
