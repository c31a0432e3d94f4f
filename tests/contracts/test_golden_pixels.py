"""The same pixels as before, for every read-out and door: a change of structure must not be one of pictures.

A pixel may move by a ten-thousandth between machines. ``OSASIS_GOLDEN_EXACT=1`` asks for equal bytes: right on the
machine that wrote the file.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from . import golden

STORED = safetensors.numpy.load_file(golden.PATH)


def _compare(pixels: dict[str, np.ndarray]) -> None:
    for name, value in pixels.items():
        wanted = STORED[name]
        assert value.dtype == wanted.dtype, name
        if os.environ.get("OSASIS_GOLDEN_EXACT"):
            np.testing.assert_array_equal(value, wanted, err_msg=name)
        else:
            span = float(np.ptp(wanted))
            np.testing.assert_allclose(
                value.astype(np.float64), wanted, atol=1 if wanted.dtype == np.uint8 else 1e-4 * span, err_msg=name
            )


def test_every_readout_in_both_directions() -> None:
    _compare(golden.library_pixels())


def test_folders(tmp_path: Path) -> None:
    _compare(golden.folder_pixels(tmp_path))


def test_monai(tmp_path: Path) -> None:
    _compare(golden.monai_pixels(tmp_path))


def test_one_pass() -> None:
    _compare(golden.one_pass_pixels())


def test_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    _compare(golden.onnx_pixels(tmp_path))


def test_every_stored_picture_is_compared() -> None:
    doors = {name.split("/")[0] for name in STORED}
    assert doors == {"library", "folder", "monai", "one_pass", "onnx"}
    assert {name.split("/")[1] for name in STORED if name.count("/") == 2} >= set(golden.READOUTS)
