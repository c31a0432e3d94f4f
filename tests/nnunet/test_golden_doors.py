"""The pixels of nnU-Net's two doors, the cache and the training step, as they were before a change of structure.

``OSASIS_GOLDEN_WRITE=1`` writes the file anew: after a change of pixels that was meant, with the reason in the commit.
"""

from __future__ import annotations

import os
from pathlib import Path

import blosc2
import numpy as np
import safetensors.numpy
import torch

from nnunet_osasis.nnunet.cache import StylizedCache
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.on_the_fly.transfer import OnePassTransfer

from ..contracts.golden import golden_stylizer
from .conftest import RGB
from .test_on_the_fly import stored, style_of

PATH = Path(__file__).with_name("golden_doors.safetensors")
KEY = "case_0"
CORNER = (slice(None), slice(0, 24), slice(0, 36))


def test_cache_and_training_step(home):
    setup = NnunetConfiguration.load(RGB, "2d")
    stylizer = golden_stylizer()
    cache = StylizedCache(setup, stylizer, 0.8)
    cache.build([KEY, "case_1"])
    pixels = {"cache/combined": blosc2.open(str(cache.image_path(KEY)))[:][:, 0]}
    style = style_of(setup, OnePassTransfer(stylizer))
    step = style.restyle(stored(setup, KEY)[None], [0], [0], np.array([0.8]), 0)[0]
    pixels["on_the_fly/combined"] = torch.as_tensor(step).numpy()
    pixels = {name: np.ascontiguousarray(value[CORNER]) for name, value in pixels.items()}
    if os.environ.get("OSASIS_GOLDEN_WRITE"):
        safetensors.numpy.save_file(pixels, PATH)
    wanted = safetensors.numpy.load_file(PATH)
    assert pixels.keys() == wanted.keys()
    for name, value in pixels.items():
        assert np.ptp(value) > 0.1
        if os.environ.get("OSASIS_GOLDEN_EXACT"):
            np.testing.assert_array_equal(value, wanted[name], err_msg=name)
        else:
            np.testing.assert_allclose(value, wanted[name], atol=1e-4 * float(np.ptp(wanted[name])), err_msg=name)
