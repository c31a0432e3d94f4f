"""The transforms where MONAI users put them: Compose, caches, DataLoader workers, lazy and inverse pipelines."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import (
    CacheDataset,
    CacheNTransDataset,
    DataLoader,
    Dataset,
    MetaTensor,
    PersistentDataset,
    decollate_batch,
    list_data_collate,
    pickle_hashing,
)
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    Flipd,
    Invertd,
    LoadImaged,
    RandFlipd,
    Rotate90d,
    Spacingd,
)
from specimens import SIZE, draw, stylize_on

from monai_transforms import OSASISStylize, OSASISStylized, RandOSASISStylized
from monai_transforms import loading as loading_module
from nnunet_osasis import OSASISStylizer


def items(count: int = 4) -> list[dict]:
    return [{"image": draw(i).astype(np.float32), "label": (draw(i)[:1] > 150).astype(np.uint8)} for i in range(count)]


def test_in_a_compose_only_the_images_change(stylizer_folder: Path, image_folder: Path) -> None:
    transform = Compose(
        [
            LoadImaged(keys=["image", "label"], reader="PILReader"),
            EnsureChannelFirstd(keys=["image", "label"]),
            OSASISStylized(keys="image", stylizer=stylizer_folder),
        ]
    )
    case = {"image": image_folder / "images/case 1.png", "label": image_folder / "masks/case 1.png"}
    plain = Compose(transform.transforms[:-1])(case)
    found = transform(case)
    assert torch.equal(found["label"], plain["label"])
    assert not torch.equal(found["image"], plain["image"])
    assert found["image"].meta["filename_or_obj"] == plain["image"].meta["filename_or_obj"]


# --- caches -------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the transforms that were really computed."""
    calls: list[str] = []
    original = OSASISStylize.__call__

    def call(self: OSASISStylize, *args: object, **options: object) -> object:
        calls.append(self.handle.digest)
        return original(self, *args, **options)

    monkeypatch.setattr(OSASISStylize, "__call__", call)
    return calls


def test_the_deterministic_part_is_cached_and_the_random_part_is_not(stylizer_folder: Path, counted: list[str]) -> None:
    pipeline = Compose(
        [
            OSASISStylized("image", stylizer_folder),
            RandFlipd("image", prob=0.5),
            RandOSASISStylized("image", stylizer_folder, prob=1.0),
        ]
    )
    dataset = CacheDataset(items(), pipeline, progress=False)
    assert len(counted) == 4
    for i in range(4):
        dataset[i]
    assert len(counted) == 8  # the random one, once per access


@pytest.mark.parametrize("kind", [PersistentDataset, CacheNTransDataset])
def test_another_stylizer_is_another_cache_entry(
    stylizer_folder: Path, tmp_path: Path, counted: list[str], kind: type
) -> None:
    other = OSASISStylizer.from_pretrained(stylizer_folder).configured(strength=0.4)
    other.save_pretrained(tmp_path / "other")

    def dataset(folder: Path, **changes: object) -> Dataset:
        pipeline = Compose([OSASISStylized("image", folder, **changes), RandFlipd("image", prob=0.5)])
        options = {"cache_n_trans": 1} if kind is CacheNTransDataset else {}
        cache = tmp_path / "cache"
        return kind(items(2), pipeline, cache_dir=cache, hash_transform=pickle_hashing, **options)

    first = dataset(stylizer_folder)
    first[0], first[0], first[1]
    assert len(counted) == 2
    dataset(stylizer_folder)[0]
    assert len(counted) == 2  # made anew, the same content: the same entry
    dataset(tmp_path / "other")[0]
    assert len(counted) == 3
    dataset(stylizer_folder, strength=0.5)[0]
    assert len(counted) == 4
    assert len(set(counted)) == 2


def test_a_stylizer_object_is_cached_by_content_too(stylizer_folder: Path, tmp_path: Path) -> None:
    hashes = []
    for strength in (1.0, 1.0, 0.4):
        stylizer = OSASISStylizer.from_pretrained(stylizer_folder).configured(strength=strength)
        pipeline = Compose([OSASISStylized("image", stylizer)])
        dataset = PersistentDataset(items(1), pipeline, cache_dir=tmp_path, hash_transform=pickle_hashing)
        hashes.append(dataset.transform_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_using_a_transform_does_not_change_its_hash(stylizer_folder: Path) -> None:
    for stylizer in (stylizer_folder, OSASISStylizer.from_pretrained(stylizer_folder)):
        transform = OSASISStylized("image", stylizer)
        before = pickle_hashing([transform])
        transform(items(1)[0])
        assert pickle_hashing([transform]) == before


# --- workers ------------------------------------------------------------------------------------------------------


def test_picklable_and_small(stylizer_folder: Path) -> None:
    for name in (OSASISStylized, RandOSASISStylized):
        transform = name("image", stylizer_folder)
        data = pickle.dumps(transform)
        again = pickle.loads(data)  # noqa: S301 (our own bytes)
        assert len(data) < 5000
        if name is OSASISStylized:
            assert np.array_equal(again(items(1)[0])["image"], transform(items(1)[0])["image"])


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("fork", "folder"),
        ("fork", "object"),
        ("spawn", "object"),
        pytest.param("spawn", "folder", marks=pytest.mark.slow),
    ],
)
def test_workers_give_the_same_pixels(stylizer_folder: Path, method: str, given: str) -> None:
    source = stylizer_folder if given == "folder" else OSASISStylizer.from_pretrained(stylizer_folder)
    pipeline = Compose([OSASISStylized("image", source, readout="local_affine"), EnsureTyped(["image", "label"])])
    dataset = Dataset(items(4), pipeline)
    expected = torch.stack([dataset[i]["image"].as_tensor() for i in range(4)])
    loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context=method)
    found = torch.cat([batch["image"] for batch in loader])
    torch.testing.assert_close(found.as_tensor(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("method", "message"), [("fork", "forked worker"), ("spawn", "device")])
def test_no_cuda_after_a_fork(stylizer_folder: Path, method: str, message: str) -> None:
    if method == "spawn" and torch.cuda.is_available():
        pytest.skip("a spawned process may use the GPU of this machine")
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    worker = context.Process(target=stylize_on, args=("cuda", stylizer_folder, queue))
    worker.start()
    worker.join(60)
    assert not queue.empty(), f"the worker ended with {worker.exitcode}"
    found = queue.get()
    assert message in found
    assert ("spawn" in found) == (method == "fork")


def test_weights_are_loaded_once_per_process_by_many_threads(
    stylizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    original = OSASISStylizer.from_pretrained.__func__

    def counting(cls: type, *args: object, **options: object) -> OSASISStylizer:
        loads.append(args)
        return original(cls, *args, **options)

    monkeypatch.setattr(OSASISStylizer, "from_pretrained", classmethod(counting))
    loading_module._LOADED.clear()
    pipeline = Compose([OSASISStylized("image", stylizer_folder), OSASISStylized("image", str(stylizer_folder))])
    CacheDataset(items(8), pipeline, num_workers=4, progress=False)
    assert len(loads) == 1


def test_a_fork_during_loading_does_not_hang(stylizer_folder: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    loading_module._LOADED.clear()
    with loading_module._LOADING:  # as another thread would hold it
        worker = context.Process(target=stylize_on, args=("cpu", stylizer_folder, queue))
        worker.start()
        worker.join(60)
    assert worker.exitcode == 0
    assert queue.get() == "ran"


def test_many_stylizers_stay_loaded(stylizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = []
    for i in range(6):
        stylizer = OSASISStylizer.from_pretrained(stylizer_folder).configured(strength=1 - i / 10)
        folders.append(stylizer.save_pretrained(tmp_path / str(i)))
    loads = []
    original = OSASISStylizer.from_pretrained.__func__
    counting = classmethod(lambda cls, folder, **options: loads.append(folder) or original(cls, folder, **options))
    monkeypatch.setattr(OSASISStylizer, "from_pretrained", counting)
    transforms = [OSASISStylize(folder) for folder in folders]
    for _ in range(2):
        for transform in transforms:
            transform(draw(0))
    assert len(loads) == 6


# --- what surrounds it in a pipeline ---------------------------------------------------------------------------------


def test_workers_draw_differently_and_reproducibly(stylizer_folder: Path) -> None:
    pipeline = Compose([RandOSASISStylized("image", stylizer_folder, prob=0.7)])

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        dataset = Dataset([items(1)[0]] * 8, pipeline)
        loader = DataLoader(dataset, batch_size=1, num_workers=2, multiprocessing_context="fork")
        return torch.cat([torch.as_tensor(batch["image"]) for batch in loader])

    first, again, other = run(0), run(0), run(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({float(image.mean()) for image in first}) > 3


def test_decollation_gives_the_samples_back(stylizer_folder: Path) -> None:
    pipeline = Compose([EnsureTyped(["image", "label"]), OSASISStylized("image", stylizer_folder)])
    dataset = Dataset(items(4), pipeline)
    batch = next(iter(DataLoader(dataset, batch_size=4, num_workers=0)))
    samples = decollate_batch(batch)
    assert len(samples) == 4
    for i, sample in enumerate(samples):
        assert isinstance(sample["image"], MetaTensor)
        assert torch.equal(sample["image"], dataset[i]["image"])


def test_after_collation_a_whole_batch_is_stylized(stylizer_folder: Path) -> None:
    dataset = Dataset(items(3), EnsureTyped(["image", "label"]))
    batch = list_data_collate([dataset[i] for i in range(3)])
    found = OSASISStylized("image", stylizer_folder, batched=True)(batch)
    single = OSASISStylized("image", stylizer_folder)
    for i, sample in enumerate(decollate_batch(found)):
        torch.testing.assert_close(sample["image"], single(dataset[i])["image"], atol=1e-2, rtol=0)


@pytest.mark.parametrize("lazy", [False, True])
def test_pending_operations_are_executed_first(stylizer_folder: Path, lazy: bool) -> None:
    volume = MetaTensor(
        np.stack([draw(1)] * 6, axis=-1).astype(np.float32), affine=torch.diag(torch.tensor([1, 1, 3, 1.0]))
    )
    pipeline = Compose(
        [
            Spacingd("image", pixdim=(2, 2, 3)),
            Rotate90d("image", k=1),
            OSASISStylized("image", stylizer_folder),
            Flipd("image", spatial_axis=0),
        ],
        lazy=lazy,
    )
    found = pipeline({"image": volume})["image"]
    stretched = Compose(pipeline.transforms[:2])({"image": volume})["image"]
    expected = Flipd("image", spatial_axis=0)({"image": OSASISStylize(stylizer_folder)(stretched)})["image"]
    assert found.shape == expected.shape
    assert not found.pending_operations
    assert (found - expected).abs().mean() < 3  # grey levels; one resampling instead of two when lazy


def test_inverting_undoes_the_geometry_and_leaves_the_style(stylizer_folder: Path) -> None:
    image = MetaTensor(draw(1).astype(np.float32), affine=torch.eye(4))
    pipeline = Compose(
        [
            Rotate90d(["image", "label"], k=1),
            OSASISStylized("image", stylizer_folder),
            Flipd(["image", "label"], spatial_axis=1),
        ]
    )
    found = pipeline({"image": image, "label": image.clone()})
    back = pipeline.inverse(found)
    assert torch.equal(back["label"], image)
    torch.testing.assert_close(
        back["image"].as_tensor(), OSASISStylize(stylizer_folder)(image).as_tensor(), atol=1e-3, rtol=0
    )
    found = pipeline({"image": image, "label": image.clone()})  # MONAI's inverse uses up the record of operations
    prediction = {"image": found["image"], "pred": found["label"]}
    undone = Invertd("pred", transform=pipeline, orig_keys="image", nearest_interp=False)(prediction)["pred"]
    assert torch.equal(torch.as_tensor(undone), image.as_tensor())


def test_in_a_random_pipeline_the_label_follows_the_geometry_only(stylizer_folder: Path) -> None:
    pipeline = Compose(
        [RandOSASISStylized("image", stylizer_folder, prob=1), RandFlipd(["image", "label"], prob=0.5, spatial_axis=0)]
    ).set_random_state(0)
    for item in items(6):
        found = pipeline(item)
        label = np.asarray(found["label"])
        assert np.array_equal(label, item["label"]) or np.array_equal(label, item["label"][:, ::-1])
        assert found["image"].shape == (3, SIZE, SIZE)
