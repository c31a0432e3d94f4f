"""Nobody looks at a test mask before the scoring; domains and references follow stated rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.experiment import data as preparation
from nnunet_osasis.evaluation.experiment import tasks as work
from nnunet_osasis.evaluation.experiment.cells import Cell, all_cells
from nnunet_osasis.evaluation.experiment.data import Case
from nnunet_osasis.evaluation.experiment.domains import STATISTICS, choose_reference, fits_domain
from nnunet_osasis.evaluation.experiment.methods import make_transfer, style_all, training_set
from nnunet_osasis.maps.distance import lab_values

from .sites import disc, experiment, image_set, picture, save, write_data, write_site


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path)


def test_preparing_opens_the_masks_of_the_training_set_alone(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, opened = Case.read_mask, set()

    def watched(self: Case, side: int) -> tuple[np.ndarray, int | None]:
        opened.add(f"{self.mask_path.parent.parent.name}/{self.name}")
        return real(self, side)

    monkeypatch.setattr(Case, "read_mask", watched)
    spec = experiment()
    prepared = preparation.prepare(spec, data)
    assert opened == {f"a/{i}" for i in range(1, 7)}
    preparation.test_masks(prepared, spec, "b")
    assert opened == {f"a/{i}" for i in range(1, 7)} | {f"b/{case.name}" for case in prepared.cases["b"]}


def test_methods_and_keys_need_no_test_mask(data: Path) -> None:
    for folder, names in (("a", range(7, 13)), ("b", range(1, 5))):
        for name in names:
            (data / folder / "masks" / f"{name}.png").write_text("not a picture")
    spec = experiment(methods=["none", "identity", "histogram_matching", "pooled_reinhard", "fda", "gin", "truth"])
    prepared = preparation.prepare(spec, data)
    for method in spec.methods:
        for target in ("camera", "b"):
            styled = None
            if method.kind in ("identity", "histogram_matching", "pooled_reinhard", "fda"):
                transfer = make_transfer(method, prepared, target, None)
                styled, _ = style_all(transfer, prepared.train, prepared.train_masks, strength=None)
                assert all(image.dtype == np.uint8 for image in styled)
            if method.kind != "truth" or target == "camera":
                assert len(training_set(method, prepared, target, styled).images) == 6
    assert len({cell.key(spec, prepared, None) for cell in all_cells(spec)}) == len(all_cells(spec))
    with pytest.raises(OsasisError, match="readable"):
        preparation.test_masks(prepared, spec, "source")


def test_the_reference_is_the_most_typical_picture_and_is_never_tested(data: Path) -> None:
    outlier = picture(99, tint=(20, 220, 30))
    save(data / "b" / "images" / "2.png", outlier)
    prepared = preparation.prepare(experiment(), data)
    chosen = prepared.report["references"]["b"]
    assert chosen["case"] != "2" and "no mask" in chosen["rule"]
    assert chosen["case"] not in prepared.tests["b"] and len(prepared.tests["b"]) == 3
    assert len(prepared.tests["camera"]) == len(prepared.tests["source"]) == 3
    pictures = [picture(i, tint=(100 + 20 * i, 100, 100)) for i in range(5)]
    assert choose_reference(pictures) == 2


def test_a_reference_named_in_the_file_is_taken_or_refused(data: Path) -> None:
    def with_reference(name: str) -> preparation.Prepared:
        target = {"name": "b", "set": image_set("b"), "reference": name}
        return preparation.prepare(experiment(targets=[target]), data)

    prepared = with_reference("3")
    assert np.array_equal(prepared.references["b"], picture(52, tint=(90, 150, 160)))
    assert "named in the experiment" in prepared.report["references"]["b"]["rule"]
    with pytest.raises(OsasisError, match="one of the target's images; got 9"):
        with_reference("9")


def test_a_target_of_its_reference_alone_is_refused(data: Path) -> None:
    with pytest.raises(OsasisError, match="besides its reference"):
        preparation.prepare(experiment(targets=[{"name": "b", "set": image_set("b", include=["2"])}]), data)


def test_the_camera_shows_the_same_scenes_with_fresh_noise_and_the_truth_without(data: Path) -> None:
    spec = experiment()
    prepared = preparation.prepare(spec, data)
    camera, truth = spec.targets[0].camera, prepared.truths["camera"]
    for source, clean, noisy in zip(prepared.train, truth.clean, truth.pictures, strict=True):
        assert np.array_equal(clean, camera.shoot(source)) and not np.array_equal(clean, noisy)
    assert list(prepared.tests["camera"]) == list(prepared.tests["source"])
    again = preparation.prepare(spec, data)
    assert again.sha256("camera", "b", "source") == prepared.sha256("camera", "b", "source")
    assert set(prepared.truths) == {"camera"}


def twin_target(data: Path) -> dict[str, object]:
    """Target ``b`` with the training cases as its scanner shows them."""
    for i in range(1, 7):
        save(data / "twins" / f"{i}.png", picture(i - 1, tint=(90, 150, 160)))
    return {"name": "b", "set": image_set("b"), "twins": "twins"}


def test_twins_of_the_training_images_are_a_known_truth(data: Path) -> None:
    spec = experiment(targets=[twin_target(data)], methods=["none", "truth"])
    prepared = preparation.prepare(spec, data)
    truth = prepared.truths["b"]
    assert all(np.array_equal(twin, picture(i, tint=(90, 150, 160))) for i, twin in enumerate(truth.pictures))
    assert [(cell.method.kind, cell.target) for cell in all_cells(spec)] == [("none", None), ("truth", "b")]
    cell = all_cells(spec)[1]
    before = cell.key(spec, prepared, None)
    save(data / "twins" / "3.png", picture(30))
    assert cell.key(spec, preparation.prepare(spec, data), None) != before


@pytest.mark.parametrize(
    ("change", "message"),
    [("missing", "needs a twin; got none for 3"), ("small", "must have the size"), ("test", "No image may be in two")],
)
def test_unusable_twins_are_refused(change: str, message: str, data: Path) -> None:
    target = twin_target(data)
    if change == "missing":
        (data / "twins" / "3.png").unlink()
    else:
        save(data / "twins" / "3.png", picture(2, size=(20, 32)) if change == "small" else picture(50))
    if change == "test":
        for i in range(1, 5):  # whichever of them is the reference, the others are test images
            save(data / "twins" / f"{i}.png", picture(49 + i, tint=(90, 150, 160)))
    with pytest.raises(OsasisError, match=message):
        preparation.prepare(experiment(targets=[target]), data)


@pytest.mark.parametrize("change", ["picture", "mask", "test picture"])
def test_other_pixels_are_other_work(change: str, data: Path) -> None:
    spec = experiment()

    def keys() -> set[str]:
        prepared = preparation.prepare(spec, data)
        return {cell.key(spec, prepared, None) for cell in all_cells(spec)}

    before = keys()
    if change == "mask":
        save(data / "a" / "masks" / "1.png", disc(77) * np.uint8(255))
    else:
        save(data / "a" / "images" / ("1.png" if change == "picture" else "7.png"), picture(77))
    assert keys().isdisjoint(before)


def test_a_renamed_test_case_keeps_its_key_but_not_its_maps(data: Path) -> None:
    spec = experiment(targets=[{"name": "b", "set": image_set("b"), "reference": "1"}])
    before = preparation.prepare(spec, data)
    for part in ("images", "masks"):
        (data / "b" / part / "4.png").rename(data / "b" / part / "5.png")
    after, cell = preparation.prepare(spec, data), all_cells(spec)[0]
    assert list(before.tests["b"]) != list(after.tests["b"])
    assert cell.key(spec, before, None) == cell.key(spec, after, None)  # pixels; names are looked for in the maps
    trained: list[str] = []

    def by_hand(cell: Cell, _: object, prepared: preparation.Prepared, **__: object) -> tuple[dict, dict]:
        trained.append(cell.name)
        maps = {f"{test}/{n}": image[0] for test in cell.tests for n, image in prepared.tests[test].items()}
        return maps, {"seconds": 0.0, "seconds_predict": 0.0}

    for prepared, times in ((before, 1), (before, 1), (after, 2), (after, 2)):
        record = work.train_cell(cell, spec, prepared, data, None, by_hand, "cpu", 1)
        assert len(trained) == times
    names = [f"{test}/{name}" for test in cell.tests for name in after.tests[test]]
    assert work.holds(data / "cells" / f"{cell.name}.npz", names, record)


def test_all_images_of_the_references_patient_leave_the_test_set(data: Path) -> None:
    for part in ("images", "masks"):
        for old, new in {"1": "p1_1", "2": "p1_2", "3": "p2_1", "4": "p3_1"}.items():
            (data / "b" / part / f"{old}.png").rename(data / "b" / part / f"{new}.png")
    target = {"name": "b", "set": image_set("b", groups=r"^p\d+"), "reference": "p1_2"}
    prepared = preparation.prepare(experiment(targets=[target]), data)
    assert list(prepared.tests["b"]) == ["p2_1", "p3_1"]
    alone = experiment(targets=[{**target, "set": image_set("b", groups=r"^p")}])
    with pytest.raises(OsasisError, match="besides its reference"):
        preparation.prepare(alone, data)


def test_a_patient_in_the_two_folders_of_one_site_is_refused(tmp_path: Path) -> None:
    write_site(tmp_path / "train", ["p1_1", "p2_1"])
    write_site(tmp_path / "test", ["p2_2", "p3_1"], first=20)
    write_site(tmp_path / "b", ["p1_1", "p4_1"], first=40)  # another hospital's first patient is somebody else

    def prepared(**test: object) -> preparation.Prepared:
        train, rule = image_set("train", groups=r"^p\d+"), r"^p\d+"
        targets = [{"name": "b", "set": image_set("b", groups=rule)}]
        return preparation.prepare(
            experiment(train=train, test=image_set("test", groups=rule, **test), targets=targets), tmp_path
        )

    with pytest.raises(OsasisError, match="two sets; got p2 in train and source"):
        prepared()
    assert list(prepared(include=["p3*"]).tests["source"]) == ["p3_1"]


def test_a_rule_divides_one_folder_by_the_colour_around_the_lesions() -> None:
    mask = disc(1)
    red, blue = picture(1, tint=(200, 90, 80)), picture(1, tint=(80, 90, 200))
    painted = np.where(mask, np.array([0, 255, 0], np.uint8)[:, None, None], red)  # the lesion itself has no say
    threshold = (STATISTICS["background_red"](lab_values(red)[mask == 0]) + 0.0) - 5
    upper, lower = (
        {"statistic": "background_red", "at_least": threshold},
        {"statistic": "background_red", "below": threshold},
    )
    assert fits_domain(red, mask, upper) and fits_domain(painted, mask, upper) and not fits_domain(blue, mask, upper)
    assert fits_domain(blue, mask, lower) and not fits_domain(red, mask, lower)
    assert fits_domain(blue, mask, {}) and not fits_domain(red, np.ones_like(mask), upper)


def test_a_boundary_value_belongs_to_one_side_only() -> None:
    image, mask = picture(4), disc(4)
    value = STATISTICS["background_lightness"](lab_values(image)[mask == 0])
    assert fits_domain(image, mask, {"statistic": "background_lightness", "at_least": value})
    assert not fits_domain(image, mask, {"statistic": "background_lightness", "below": value})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"statistic": "background_mood", "below": 1}, "must be known; got background_mood"),
        ({"below": 1}, "must be known"),
        ({"statistic": "background_red", "above": 1}, "also .*above"),
    ],
)
def test_unknown_rules_are_refused(rule: dict, message: str) -> None:
    with pytest.raises(OsasisError, match=message):
        fits_domain(picture(0), disc(0), rule)


def test_grey_and_colour_do_not_mix_in_one_experiment(data: Path) -> None:
    for path in (data / "b" / "images").iterdir():
        save(path, picture(int(path.stem) + 50)[:1])
    with pytest.raises(OsasisError, match="same channels"):
        preparation.prepare(experiment(), data)
