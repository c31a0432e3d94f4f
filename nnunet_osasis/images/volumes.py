"""MetaImage and NRRD volumes in and out, through SimpleITK, with their geometry and header entries kept.

SimpleITK is imported when the first such file is read or written.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.images.headers import check_size, check_volume_file
from nnunet_osasis.images.image import Geometry, LoadedImage

READERS = {".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO"}

WHOLE = {".mhd": ".mha", ".nhdr": ".nrrd"}
"""Suffixes of headers that name another file, and those under which SimpleITK writes the same content in one."""
"""SimpleITK's reader of each suffix; without one it would also take a picture or a DICOM file of that name."""

ENTRIES = "entries"
"""Key of the header's entries (texts by name) in ``LoadedImage.kept``."""


def read_volume(path: Path, suffix: str) -> tuple[np.ndarray, Geometry, dict[str, Any]]:
    """Read ``(C, H, W)`` or ``(C, D, H, W)``, the geometry, and the header entries that :func:`write_volume` keeps.

    A fourth axis (time) or the components of vectors become the channels.

    Raises:
        OsasisError: whatever :func:`check_volume_file` refuses, and more values than allowed.
        RuntimeError: SimpleITK cannot read the file.
    """
    import SimpleITK as sitk

    check_volume_file(path)
    reader = sitk.ImageFileReader()
    reader.SetImageIO(READERS[suffix])
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    check_size([*reader.GetSize(), reader.GetNumberOfComponents()], path)
    image = reader.Execute()
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    elif image.GetDimension() < 4:
        array = array[None]
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    entries = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    # SimpleITK's own notes are not the file's
    entries = {key: text for key, text in entries.items() if "UNKNOWN_PRINT_CHARACTERISTICS" not in text}
    geometry = Geometry.of(image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return np.ascontiguousarray(array), geometry, {ENTRIES: entries}


def write_volume(loaded: LoadedImage, array: np.ndarray, path: Path) -> None:
    """Write ``array`` with the geometry and header entries of ``loaded``, and check that the file is whole.

    An ``.mhd`` or ``.nhdr`` file holds its voxels itself: one file can be replaced at once, a pair cannot.

    Raises:
        OSError: SimpleITK cannot write.
    """
    import SimpleITK as sitk

    # SimpleITK names the second file of a pair by the name it is given, which is a temporary one
    place = path.with_name(path.name + WHOLE.get(path.suffix.lower(), ""))
    try:
        sitk.WriteImage(_as_image(loaded, array), str(place))
        if place != path:
            os.replace(place, path)
        check_volume_file(path)  # on a full disk SimpleITK writes half a file and raises nothing
    except RuntimeError as error:
        raise OSError(None, str(error).strip().splitlines()[-1], str(path)) from error
    finally:
        if place != path:
            place.unlink(missing_ok=True)


def _as_image(loaded: LoadedImage, array: np.ndarray) -> Any:
    import SimpleITK as sitk

    geometry = loaded.geometry
    if geometry is None:
        return sitk.GetImageFromArray(array[0] if len(array) == 1 else np.moveaxis(array, 0, -1))
    axes = len(geometry.spacing)
    slices = array[:, None] if array.ndim == 3 and axes >= 3 else array
    vector = axes < 4 and len(array) > 1
    values = np.moveaxis(slices, 0, -1) if vector else (slices if axes == 4 else slices[0])
    image = sitk.GetImageFromArray(values, isVector=vector)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    for key, text in loaded.kept.get(ENTRIES, {}).items():
        image.SetMetaData(key, text)
    return image
