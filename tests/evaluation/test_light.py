"""The light engine: same seed, same weights; every network learns and predicts; styled copies as often as asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.experiment import light
from nnunet_osasis.evaluation.experiment.cells import _sha256_of_weights
from nnunet_osasis.evaluation.experiment.config import Budget, NetworkSpec
from nnunet_osasis.evaluation.experiment.light import TrainingSet, make_network, predict, train
from nnunet_osasis.evaluation.experiment.methods import RANDOM, RandomAugmentation

from .sites import disc, picture

BUDGET = Budget(side=32, patch=32, iterations=2, batch_size=2, features=(4, 8))
UNET = NetworkSpec(name="unet")
IMAGES, MASKS = [picture(i) for i in range(4)], [disc(i) for i in range(4)]
PLAIN = TrainingSet(images=IMAGES, masks=MASKS)
STYLED = [255 - image for image in IMAGES]
NETWORKS = {
    "unet": UNET,
    "unetpp": NetworkSpec(name="unetpp", arguments={"features": [4, 4, 8, 8, 8, 4]}),
    "pranet": NetworkSpec(name="pranet", arguments={"backbone": "resnet18"}),
    "encoder": NetworkSpec(name="unet", encoder="resnet10t", arguments={"features": [8, 8, 8, 4, 4]}),
    "MONAI": NetworkSpec(name="basic", monai="BasicUNet", arguments={"features": [4, 4, 4, 4, 4, 4]}),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(data: TrainingSet = PLAIN, *, seed: int = 1, **changes: Any) -> bytes:
    network, _ = train(UNET, data, replace(BUDGET, **changes), seed=seed)
    return b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())


def test_a_seed_decides_the_weights_to_the_last_bit() -> None:
    first = weights()
    torch.rand(3), np.random.rand(3)  # whatever happened before in the process
    assert weights() == first
    assert weights(seed=2) != first


def test_styled_copies_are_drawn_as_often_as_asked() -> None:
    plain, styled = weights(), replace(PLAIN, styled=STYLED)
    assert weights(styled, probability=0.0) == plain
    assert weights(styled, probability=1.0) != plain
    assert weights(styled, probability=1.0) == weights(TrainingSet(images=STYLED, masks=MASKS), probability=1.0)
    assert weights(replace(PLAIN, styled=IMAGES), probability=1.0) == weights(probability=1.0)


def test_styled_copies_make_their_share_of_the_batches() -> None:
    white = replace(PLAIN, images=[np.zeros_like(i) for i in IMAGES], styled=[np.full_like(i, 255) for i in IMAGES])
    budget, rng = replace(BUDGET, batch_size=400, probability=0.3), np.random.default_rng(0)

    def untouched(image: torch.Tensor, segmentation: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"image": image, "segmentation": segmentation}

    images, labels = light._batch(white, budget, untouched, rng)
    assert images.shape == (400, 3, 32, 32) and labels.shape == (400, 1, 32, 32) and labels.dtype == torch.int64
    assert float((images.mean(dim=(1, 2, 3)) == 1).float().mean()) == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("kind", RANDOM)
def test_random_controls_are_drawn_anew_and_as_often_as_asked(kind: str) -> None:
    augment, drawn = RandomAugmentation(kind, 3), []

    def counted(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        drawn.append(augment(image, rng))
        return drawn[-1]

    assert weights(replace(PLAIN, augment=counted), probability=0.0) == weights()
    assert not drawn
    assert weights(replace(PLAIN, augment=counted), probability=1.0) == weights(
        replace(PLAIN, augment=augment), probability=1.0
    )
    assert len(drawn) == BUDGET.iterations * BUDGET.batch_size
    assert all(np.isfinite(image).all() and image.min() >= 0 and image.max() <= 255 for image in drawn)
    rng = np.random.default_rng(0)
    assert not np.array_equal(augment(IMAGES[0], rng), augment(IMAGES[0], rng))


def test_da5_trains_and_is_another_augmentation() -> None:
    da5 = replace(PLAIN, da5=True)
    assert weights(da5) == weights(da5) != weights()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_trains_and_predicts_maps_of_the_images_size(name: str) -> None:
    budget = replace(BUDGET, side=64, patch=64) if name in ("pranet", "encoder") else BUDGET
    network, facts = train(NETWORKS[name], PLAIN, budget, seed=0)
    assert len(facts["losses"]) == 2 and np.isfinite(facts["losses"]).all() and facts["seconds"] > 0
    sizes = {"smaller": (20, 27), "patch": (32, 32), "larger": (70, 81), "long": (24, 90)}
    maps = predict(network, {key: picture(9, size=size) for key, size in sizes.items()}, budget)
    assert {key: (found.shape, found.dtype) for key, found in maps.items()} == {
        key: (size, np.dtype(np.uint8)) for key, size in sizes.items()
    }
    assert all(0 < found.mean() < 255 for found in maps.values())


def test_the_network_learns_the_task_it_is_given() -> None:
    budget = replace(BUDGET, iterations=80, batch_size=4, learning_rate=1e-2, features=(8, 16))
    network, facts = train(UNET, TrainingSet(images=IMAGES, masks=MASKS), budget, seed=0)
    assert facts["losses"][-1] < facts["losses"][0] - 0.3
    found = predict(network, {"new": picture(11)}, budget)["new"] > 127
    truth = disc(11) > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.6


@pytest.mark.parametrize("size", [(20, 20), (20, 60), (64, 48)])
def test_pictures_smaller_and_larger_than_the_patch_can_be_trained_on(size: tuple[int, int]) -> None:
    data = TrainingSet(images=[picture(i, size=size) for i in range(3)], masks=[disc(i, size=size) for i in range(3)])
    assert weights(data) == weights(data)


def test_grey_pictures_and_half_precision_train() -> None:
    grey = TrainingSet(images=[image[:1] for image in IMAGES], masks=MASKS)
    network, facts = train(UNET, grey, replace(BUDGET, precision="bf16"), seed=0)
    assert np.isfinite(facts["losses"]).all()
    assert predict(network, {"a": IMAGES[0][:1]}, BUDGET)["a"].shape == (32, 32)


def test_a_third_of_the_patches_hold_foreground_where_it_is_rare() -> None:
    mask = np.zeros((400, 400), np.uint8)
    mask[390:393, 5:8] = 1
    rng, hits = np.random.default_rng(0), 0
    for _ in range(300):
        row, column = light._corner(mask, 32, rng)
        assert 0 <= row <= 368 and 0 <= column <= 368
        hits += bool(mask[row : row + 32, column : column + 32].any())
    assert 0.25 < hits / 300 < 0.45


REFUSED: Sequence[tuple[dict[str, Any], str]] = (
    ({"name": "resunet"}, "must be known; got resunet"),
    ({"name": "x", "monai": "NoSuchNet"}, "class of monai.networks.nets; got NoSuchNet"),
    ({"name": "x", "monai": "np"}, "class of monai"),
    ({"name": "unet", "arguments": {"depth": 3}}, "unet must take its arguments"),
    ({"name": "pranet", "arguments": {"backbone": "nosuch"}}, "nosuch"),
    ({"name": "unet", "encoder": "nosuch"}, "model of the installed timm; got 'nosuch'"),
    ({"name": "unet", "encoder": "convnext_atto"}, "strides 2, 4, 8, 16, 32; got strides 4"),
    ({"name": "unet", "encoder": "resnet10t", "weights": "imagenet"}, r"none for resnet10t.*nnunet-osasis\[encoders\]"),
    ({"name": "unet", "encoder": "resnet10t", "weights": "gone.pth"}, "must be a file; got gone.pth"),
)


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_unknown_networks_and_arguments_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OsasisError, match=message):
        make_network(NetworkSpec(**values), 3, BUDGET)


def test_the_encoders_weights_are_loaded_and_decide_the_cells_key(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    published = timm.create_model("resnet10t").state_dict()
    torch.save(published, "w.pth")
    spec = NetworkSpec(name="unet", encoder="resnet10t", weights="w.pth")
    network = make_network(spec, 3, BUDGET)
    assert torch.equal(network.encoder.state_dict()["conv1.0.weight"], published["conv1.0.weight"])  # type: ignore[operator, union-attr, index]
    before = _sha256_of_weights(spec)
    torch.save({name: value + 1 for name, value in published.items()}, "w.pth")
    assert _sha256_of_weights(spec) != before


def test_the_encoders_u_net_answers_at_the_images_size_and_channels() -> None:
    gray = make_network(NetworkSpec(name="unet", encoder="resnet10t"), 1, BUDGET).eval()
    assert gray(torch.rand(1, 1, 37, 90)).shape == (1, 2, 37, 90)
