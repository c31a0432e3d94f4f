"""Volume files that lie: about their length, their size, their geometry, or where their voxels are."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_osasis.images.io import read_image

from .files import cut, equals, meta, nifti, nrrd, reading, volume, volume_bytes
from .harness import Bad, bad

CUBE = np.arange(64, dtype=np.uint8).reshape(1, 4, 4, 4)
SUFFIXES = (".nii", ".nii.gz", ".mha", ".nrrd")


def truncated(folder: Path) -> list[Bad]:
    """Without its last bytes a volume is refused; SimpleITK fills NIfTI files up with what was in memory."""
    cases = []
    for suffix in SUFFIXES:
        for packed in (False, True) if suffix in (".mha", ".nrrd") else (False,):
            data = volume_bytes(folder, suffix, packed=packed)
            kind = f"{'packed ' if packed else ''}{suffix}"
            whole = equals(volume()[None]) if packed and suffix == ".nrrd" else None  # its last bytes are a checksum
            cases += [
                Bad(f"{kind} cut at byte {n}", reading(f"a{suffix}", part), whole, refusable=True)
                for n, part in cut(data, 12).items()
            ]
    return cases


def mislabelled(folder: Path) -> list[Bad]:
    """One format named as another, and files that are none."""
    data = {suffix: volume_bytes(folder, suffix) for suffix in SUFFIXES}
    data |= {"text": b"hello\n", "zeros": bytes(900), "nothing": b"", "gzip of nothing": gzip.compress(b"")}
    data |= {
        "PNG": b"\x89PNG\r\n\x1a\n" + bytes(99),
        "DICOM": bytes(128) + b"DICM" + bytes(300),
        "HDF5": b"\x89HDF\r\n",
    }
    return [
        Bad(f"{form} named {suffix}", reading(f"a{suffix}", content))
        for form, content in data.items()
        for suffix in (*SUFFIXES, ".mhd")
        if form != suffix and (form, suffix) not in ((".mha", ".mhd"), (".nii", ".nii.gz"))
    ]


def headers() -> list[Bad]:
    """What header entries may say."""
    cases = [
        Bad(f"NIfTI of {name}", reading("a.nii", data))
        for name, data in {
            "a negative side": nifti((-6, 7, 4)), "an empty side": nifti((6, 0, 4)), "no axes": nifti(axes=0),
            "eight axes": nifti(axes=8), "minus one axes": nifti(axes=-1), "voxels of no bits": nifti(bits=0),
            "an unknown type": nifti(kind=77), "type and bits that differ": nifti(bits=32),
            "RGB in 16 bits": nifti(kind=128),
            "voxels at NaN": nifti(offset=float("nan")), "voxels before the file": nifti(offset=-9.0),
            "voxels far away": nifti(offset=1e12), "voxels elsewhere": nifti(magic=b"ni1\0"),
            "no magic": nifti(magic=b"\0\0\0\0"), "32767 cubed": nifti((32767,) * 3),
            "one voxel too many": nifti((7, 6, 5)), "NaN": nifti((4, 4, 4), kind=16, bits=32,
            data=b"\0\0\xc0\x7f" * 64),
            "infinity": nifti((4, 4, 4), kind=16, bits=32, data=b"\0\0\x80\x7f" * 64),
            "complex numbers": nifti((4, 4, 4), kind=32, bits=64, data=bytes(512)),
            "six axes": nifti((2, 2, 2, 2, 2, 2), kind=2, bits=8),
        }.items()
    ]  # fmt: skip
    for step in (0.0, -1.0, float("nan"), float("inf")):
        for axis in range(3):
            steps = [1.0] * 3
            steps[axis] = step
            cases.append(Bad(f"NIfTI of spacing {step} along axis {axis}", reading("a.nii", nifti(steps=steps))))
            text = " ".join(map(str, steps))
            cases.append(
                Bad(f"MetaImage of spacing {step} along axis {axis}", reading("a.mha", meta(ElementSpacing=text)))
            )
            if step == step:  # NaN is NRRD's word for none
                cases.append(Bad(f"NRRD of spacing {step} along axis {axis}", reading("a.nrrd", nrrd(spacings=text))))
    wrong = {
        "DimSize": (
            "4 4",
            "4 4 4 4",
            "4 4 0",
            "-4 4 4",
            "a b c",
            "",
            "4 4 1e400",
            "4 4 nan",
            "99999 99999 99999",
            "4 4 5",
        ),
        "NDims": ("0", "-1", "2000000000", "x"),
        "ElementType": ("MET_NONSENSE", "MET_STRING", ""),
        "ElementNumberOfChannels": ("0", "-3", "1000000000000", "two"),
        "ElementSpacing": ("x y z", "1,1,1"),
        "TransformMatrix": ("0 0 0 0 0 0 0 0 0", "nan 0 0 0 1 0 0 0 1"),
        "Offset": ("nan 0 0", "inf 0 0"),
        "CompressedData": ("True",),
    }
    cases += [
        Bad(f"MetaImage, {key} = {value or 'nothing'}", reading("a.mha", meta(**{key: value})), _finite, refusable=True)
        for key, values in wrong.items()
        for value in values
    ]
    odd = {
        "sizes": ("4 4", "4 4 0", "-4 4 4", "x", "99999 99999 99999", "4 4 5"),
        "dimension": ("0", "99", "-1", "x"),
        "type": ("block", "nonsense"),
        "encoding": ("nonsense", "gzip", "bzip2"),
        "space directions": ("(0,0,0) (0,0,0) (0,0,0)", "(nan,0,0) (0,1,0) (0,0,1)", "none none none"),
        "byte skip": ("-2", "1000000000000"),
        "line skip": ("-1", "1000000000000"),
    }
    cases += [
        Bad(f"NRRD, {key}: {value}", reading("a.nrrd", nrrd(**{key: value})), _finite, refusable=True)
        for key, values in odd.items()
        for value in values
    ]
    return [*cases, Bad("MetaImage header without end", reading("a.mha", b"Comment = " + b"x" * 2**21))]


def _finite(found: np.ndarray) -> None:
    """A reader that overlooks the entry still gives the file's own 64 bytes."""
    assert found.size <= 64
    assert set(found.ravel().tolist()) <= set(range(64))


def places() -> list[Bad]:
    """Headers name data files; only a plain file beside the header is read."""
    names = (
        "../secret.raw", "/etc/passwd", "/dev/zero", "sub/secret.raw", "..\\secret.raw", "..", ".", "missing.raw",
        "pipe",
        "folder", "LIST", "LIST 3D", "slice%03d.raw 1 4 1", "loop",
    )  # fmt: skip

    def make(name: str, suffix: str) -> Callable[[Path], Callable[[], Any]]:
        def prepare(folder: Path) -> Callable[[], Any]:
            (folder / "in").mkdir()
            (folder / "in/sub").mkdir()
            (folder / "in/folder").mkdir()
            os.mkfifo(folder / "in/pipe")
            (folder / "in/loop").symlink_to("loop")
            for place in ("secret.raw", "in/sub/secret.raw"):
                (folder / place).write_bytes(b"S" * 64)
            text = meta(last=name, data=b"") if suffix == ".mhd" else nrrd(data_file=name, data=b"")
            path = folder / f"in/a{suffix}"
            path.write_bytes(text)
            return lambda: read_image(path).array

        return prepare

    return [
        Bad(f"{suffix} with voxels in {name}", make(name, suffix)) for suffix in (".mhd", ".nrrd") for name in names
    ]


def shapes() -> list[Bad]:
    """Unusual, and right."""

    def written(suffix: str, array: np.ndarray, vector: bool = False) -> Callable[[Path], Callable[[], Any]]:
        def make(folder: Path) -> Callable[[], Any]:
            path = folder / f"a{suffix}"
            sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(path))
            return lambda: read_image(path).array

        return make

    cases = []
    for suffix in (*SUFFIXES, ".mhd"):
        flat, four = volume(np.int16, (1, 7, 6)), volume(np.float32, (2, 3, 7, 6))
        cases += [
            Bad(f"{suffix} of one slice", written(suffix, flat), equals(flat)),
            Bad(f"{suffix} of one column", written(suffix, volume()[:, :, :1]), equals(volume()[None, :, :, :1])),
            Bad(f"{suffix} of one voxel", written(suffix, flat[:, :1, :1]), equals(flat[:, :1, :1])),
            Bad(f"{suffix} of four axes", written(suffix, four), equals(four)),
            Bad(f"{suffix} of vectors", written(suffix, np.moveaxis(four, 0, -1), True), equals(four)),
            Bad(f"{suffix} in two axes", written(suffix, flat[0]), equals(flat)),
            Bad(f"{suffix} of five axes", written(suffix, np.zeros((2, 2, 2, 2, 2), np.uint8), True)),
        ]
    cases += [
        Bad("MetaImage by bytes", reading("a.mha", meta()), equals(CUBE)),
        Bad("NRRD by bytes", reading("a.nrrd", nrrd()), equals(CUBE)),
        Bad("NIfTI unpacked, named .nii.gz", reading("a.nii.gz", nifti()), lambda a: _sides(a, (1, 4, 7, 6))),
        Bad("NIfTI of colors", reading("a.nii", nifti(kind=128, bits=24, data=bytes(range(252)) * 2)),
            equals(np.moveaxis(np.frombuffer(bytes(range(252)) * 2, np.uint8).reshape(4, 7, 6, 3), -1, 0))),
        Bad("packed NIfTI of 1000 cubed", reading("a.nii.gz", gzip.compress(nifti((1000,) * 3)))),
        Bad("packed NIfTI of one voxel too many", reading("a.nii.gz", gzip.compress(nifti((7, 6, 5))))),
        Bad("NIfTI of channels on two axes", reading("a.nii", nifti((6, 7, 2, 2, 2), data=bytes(999)))),
        Bad("NIfTI of a flat axis without spacing", reading("a.nii", nifti((6, 7, 1), steps=(1, 1, 0))),
        lambda a: _sides(a, (1, 7, 6))),
        Bad("gzip with a flipped bit", reading("a.nii.gz", _flipped())),
        Bad("packed MetaImage with a flipped bit", reading("a.mha", _flipped(packed_meta()))),
        Bad("packed NRRD with a flipped bit", reading("a.nrrd", _flipped(packed_nrrd()))),
        Bad("packed MetaImage", reading("a.mha", packed_meta()), equals(CUBE)),
        Bad("packed NRRD", reading("a.nrrd", packed_nrrd()), equals(CUBE)),
    ]  # fmt: skip
    return cases


def _sides(found: np.ndarray, shape: tuple[int, ...]) -> None:
    assert found.shape == shape


def _flipped(whole: bytes | None = None) -> bytes:
    data = bytearray(gzip.compress(nifti(), mtime=0) if whole is None else whole)
    data[-20 if whole else -6] ^= 1  # of the stream, or of the checksum
    return bytes(data)


def packed_meta() -> bytes:
    data = zlib.compress(bytes(range(64)))
    return meta(CompressedData="True", CompressedDataSize=str(len(data)), data=data)


def packed_nrrd() -> bytes:
    return nrrd(encoding="gzip", data=gzip.compress(bytes(range(64)), mtime=0))


def _from_scratch(make: Callable[[Path], list[Bad]]) -> list[Bad]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return make(Path(folder))


TRUNCATED, MISLABELLED = _from_scratch(truncated), _from_scratch(mislabelled)
HEADERS, PLACES, SHAPES = headers(), places(), shapes()
CASES = [*TRUNCATED, *MISLABELLED, *HEADERS, *PLACES, *SHAPES]


@bad(TRUNCATED)
def test_a_volume_without_its_end_is_never_filled_up(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("volumes", case)


@bad(MISLABELLED)
def test_a_volume_of_another_format_than_its_name_is_refused(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("volumes", case)


@bad(HEADERS)
def test_headers_are_not_believed(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("volumes", case)


@bad(PLACES)
def test_no_header_makes_us_read_another_file(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("volumes", case)


@bad(SHAPES)
def test_unusual_volumes_are_read_as_they_are(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("volumes", case)
