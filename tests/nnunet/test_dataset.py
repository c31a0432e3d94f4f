"""The wrapped training dataset: same contract, another image with probability p."""

import pickle

import numpy as np
import pytest
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_osasis.nnunet.cache import StylizedCache
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.dataset import StylizedDataset

from .conftest import RGB, Warmer

KEYS = ["case_0", "case_1", "case_2"]


@pytest.fixture
def wrap(home):
    """A function of (probability, seed, stream, previous stage) that gives (wrapped, original)."""
    setup = NnunetConfiguration.load(RGB, "2d")
    cache = StylizedCache(setup, Warmer(3), None)
    cache.build(KEYS)
    folder = str(home.preprocessed(RGB) / "nnUNetPlans_2d")

    def make(probability, seed=0, stream=(), previous=None):
        original = nnUNetDatasetBlosc2(folder, list(KEYS), previous)
        return StylizedDataset(original, cache.image_path, probability=probability, seed=seed, stream=stream), original

    return make


def draws(dataset, original, count=60):
    """Which of ``count`` loads of one case were stylized."""
    plain = original.load_case("case_0")[0][:]
    return [not np.array_equal(dataset.load_case("case_0")[0][:], plain) for _ in range(count)]


def test_only_the_image_differs(wrap):
    dataset, original = wrap(1.0)
    data, seg, seg_prev, properties = dataset.load_case("case_1")
    plain = original.load_case("case_1")
    assert data.shape == plain[0].shape
    assert not np.array_equal(data[:], plain[0][:])
    np.testing.assert_array_equal(seg[:], plain[1][:])
    assert seg_prev is None
    assert properties.keys() == plain[3].keys()
    assert dataset.identifiers == KEYS


def test_probability_zero_one_and_a_half(wrap):
    assert not any(draws(*wrap(0.0)))
    assert all(draws(*wrap(1.0)))
    assert 15 < sum(draws(*wrap(0.5))) < 45


def test_draws_repeat_with_the_seed_and_change_with_seed_and_stream(wrap):
    first = draws(*wrap(0.5, seed=3))
    assert draws(*wrap(0.5, seed=3)) == first
    assert draws(*wrap(0.5, seed=4)) != first
    assert draws(*wrap(0.5, seed=3, stream=(0, 10))) != first


def test_the_previous_stage_of_a_cascade_passes_through(wrap, home):
    previous = home.root / "previous"
    previous.mkdir()
    _, original = wrap(1.0)
    seg = original.load_case("case_0")[1][:]
    for key in KEYS:
        nnUNetDatasetBlosc2.save_seg(seg[0], str(previous / key), seg.shape[1:], seg.shape[1:])
    dataset, _ = wrap(1.0, previous=str(previous))
    np.testing.assert_array_equal(dataset.load_case("case_0")[2][:], seg[0])


def test_it_survives_a_trip_to_a_worker(wrap):
    dataset, _ = wrap(0.5)
    dataset.load_case("case_0")
    assert pickle.loads(pickle.dumps(dataset)).load_case("case_2")[0].shape == (3, 1, 64, 56)  # noqa: S301


class _Draws:
    """A loader whose batches are the draws of the process they were made in."""

    def __init__(self, dataset):
        self.dataset, self.thread_id = dataset, 0

    def set_thread_id(self, thread_id):
        self.thread_id = thread_id

    def __iter__(self):
        return self

    def __next__(self):
        return {"worker": self.thread_id, "draws": tuple(self.dataset._draw() for _ in range(4))}


def test_workers_draw_differently(wrap):
    dataset, _ = wrap(0.5)
    parent = [dataset._draw() for _ in range(4)]
    augmenter = NonDetMultiThreadedAugmenter(_Draws(dataset), None, 2, num_cached=2, seeds=None)
    first: dict[int, tuple] = {}
    while len(first) < 2:
        batch = next(augmenter)
        first.setdefault(batch["worker"], batch["draws"])
    augmenter._finish()
    assert len({tuple(parent), *first.values()}) == 3


def test_nnunets_loader_draws_batches_from_it(wrap):
    dataset, _ = wrap(0.5)
    setup = NnunetConfiguration.load(RGB, "2d")
    loader = nnUNetDataLoader(dataset, 2, (32, 32), (32, 32), setup.plans.get_label_manager(setup.dataset_json))
    batch = next(loader)
    assert tuple(batch["data"].shape) == (2, 3, 32, 32)
    assert tuple(batch["target"].shape) == (2, 1, 32, 32)
