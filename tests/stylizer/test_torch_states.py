"""What a caller has switched on in torch never changes a pixel, and results can be trained on."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from specimens import draw, unit_images

from monai_transforms import OSASISStylize, RandOSASISStylize
from nnunet_osasis import OSASISStylizer
from nnunet_osasis.nnunet.on_the_fly.transfer import OnePassTransfer
from nnunet_osasis.runtime.compute import as_usual
from nnunet_osasis.stylizer.names import READOUTS


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def cuda_autocast() -> Iterator[None]:
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)


@contextmanager
def coarse_products() -> Iterator[None]:
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


STATES: dict[str, Callable[[], AbstractContextManager]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast of cuda": cuda_autocast,
    "float64 by default": lambda: default_dtype(torch.float64),
    "bfloat16 by default": lambda: default_dtype(torch.bfloat16),
    "meta device by default": lambda: default_device("meta"),
    "a device context": lambda: torch.device("meta"),
    "coarse products": coarse_products,
    "deterministic": deterministic,
    "inference mode": torch.inference_mode,
    "no graphs": torch.no_grad,
    "graphs": torch.enable_grad,
}

image = draw(4).astype(np.float32)


@pytest.fixture(scope="module")
def doors(stylizer_folder: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Results of every door as numpy arrays."""
    stylizer = OSASISStylizer.from_pretrained(stylizer_folder)
    images, batch, strengths = unit_images(2), np.stack([image, image]), torch.ones(2)
    doors: dict[str, Callable[[], np.ndarray]] = {
        f"stylize, {name}": lambda name=name: np.asarray(stylizer.stylize(images, readout=name)) for name in READOUTS
    }
    transfer, module = OnePassTransfer(stylizer), stylizer.as_module(readout="calibrator")
    return doors | {
        "stylize_array": lambda: stylizer.stylize_array(image),
        "stylize_array of a volume": lambda: stylizer.stylize_array(np.stack([image] * 3, 1), readout="local_affine"),
        "stylize_arrays": lambda: np.stack(stylizer.stylize_arrays([image, image], [1, 0.5], readout="raw")),
        "way back": lambda: stylizer.stylize_array(image, direction="target_to_source"),
        "with detail": lambda: stylizer.configured(detail=True).stylize_array(image),
        "decode_style": lambda: np.asarray(stylizer.decode_style(images)),
        "reference_unit": lambda: np.asarray(stylizer.reference_unit()),
        "OnePassTransfer.stylize_array": lambda: transfer.stylize_array(image),
        "OnePassTransfer.restyle": lambda: np.asarray(transfer.restyle(images, strengths)),
        "as_module": lambda: np.asarray(stylizer.as_module(readout="student")(images, strengths)),
        "a module": lambda: np.asarray(module(images, strengths)),
        "MONAI": lambda: OSASISStylize(stylizer, gate=False)(image),
        "MONAI, torch": lambda: np.asarray(OSASISStylize(stylizer, gate=False)(torch.from_numpy(image))),
        "MONAI, random": lambda: RandOSASISStylize(stylizer, 1.0, 0.7, gate=False, batched=True)(batch),
        "read anew": lambda: OSASISStylizer.from_pretrained(stylizer_folder).stylize_array(image, readout="raw"),
        "unpickled": lambda: pickle.loads(pickle.dumps(stylizer)).stylize_array(image),  # noqa: S301
    }


@pytest.fixture(scope="module")
def usual(doors: dict[str, Callable[[], np.ndarray]]) -> dict[str, np.ndarray]:
    """The results in a fresh state."""
    return {name: door() for name, door in doors.items()}


@pytest.mark.parametrize("state", STATES)
def test_no_state_of_torch_changes_a_pixel(
    doors: dict[str, Callable[[], np.ndarray]], usual: dict[str, np.ndarray], state: str
) -> None:
    for name, door in doors.items():
        with STATES[state]():
            result = door()
        assert result.dtype == usual[name].dtype, name
        assert np.array_equal(result, usual[name]), name


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("readout", READOUTS)
def test_a_network_can_be_trained_on_the_result(stylizer: OSASISStylizer, readout: str, state: str) -> None:
    images = unit_images(1)
    images.requires_grad_(state == "graphs")
    with STATES[state]():
        result = stylizer.stylize(images, readout=readout)
    assert not result.requires_grad
    assert not result.is_inference()
    assert result.dtype == torch.float32
    torch.nn.Conv2d(3, 1, 1)(result).sum().backward()


def test_the_callers_state_is_as_before(stylizer: OSASISStylizer) -> None:
    with default_dtype(torch.float64), default_device("meta"), torch.autocast("cpu"), coarse_products():
        stylizer.stylize_array(image)
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_default_device().type == "meta"
        assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"


def test_threads_that_overlap_all_compute_as_usual() -> None:
    entered, left, seen = threading.Barrier(2), threading.Event(), []

    def first() -> None:
        with as_usual():
            entered.wait()
        left.set()

    def second() -> None:
        with as_usual():
            entered.wait()
            left.wait()
            seen.append(torch.get_default_dtype())

    with default_dtype(torch.float64):
        threads = [threading.Thread(target=target) for target in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [torch.float32]
        assert torch.get_default_dtype() == torch.float64
