"""Folders: pairing, what the numbers in files mean, and the same scores whatever the number of processes."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.metrics import score_case, score_folder, score_labels, summarise
from nnunet_osasis.evaluation.metrics.tables import cases_csv

CHEAP = ("dice", "iou", "wf", "s", "e_max", "mae", "lesions_found", "lesions", "lesion_recall")


def read(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_a_folder_scores_like_its_cases_one_by_one_and_in_processes(study: Path) -> None:
    folders = {"good": study / "good", "poor": study / "poor"}
    alone = score_folder(folders, study / "truth", metrics=CHEAP, progress=False)
    together = score_folder(folders, study / "truth", metrics=CHEAP, progress=False, processes=2)
    assert cases_csv(alone) == cases_csv(together)
    assert summarise(alone) == summarise(together)
    assert [(s.method, s.case) for s in alone.scores][:7] == [
        *(("good", f"case {i}") for i in range(6)),
        ("poor", "case 0"),
    ]
    for score in alone.scores:
        name = f"{score.case}.png"
        expected = score_case(
            read(study / score.method / name) / 255, read(study / "truth" / name) > 128, metrics=CHEAP
        )
        assert score.values == pytest.approx(expected, nan_ok=True)


def test_the_summary_counts_what_is_undefined_and_pools_lesions(study: Path) -> None:
    scores = score_folder(study / "good", study / "truth", metrics=CHEAP, progress=False)
    part = summarise(scores)["methods"]["prediction"]["foreground"]
    recall, rows = part["by_case"]["lesion_recall"], [s.values for s in scores.scores]
    assert (recall["defined"], recall["undefined"]) == (5, 1)
    assert recall["mean"] == pytest.approx(np.nanmean([r["lesion_recall"] for r in rows]))
    pooled = sum(r["lesions_found"] for r in rows) / sum(r["lesions"] for r in rows)
    assert part["over_all_cases"]["lesion_recall"] == pytest.approx(pooled)
    assert part["by_case"]["lesions"]["sum"] == sum(r["lesions"] for r in rows)
    # PySODMetrics' E max: the largest value of the mean curve, never above the mean of each case's largest.
    assert part["over_all_cases"]["e_max_of_mean_curve"] <= part["by_case"]["e_max"]["mean"]


def test_label_volumes_are_scored_per_class_with_their_spacing(volumes: Path) -> None:
    import SimpleITK as sitk

    names = ("dice", "hd95", "lesions")
    scores = score_folder(volumes / "predicted", volumes / "truth", metrics=names, progress=False)
    assert scores.labels == ("1", "2", "mean")
    truth, prediction = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(volumes / name / "case_0.nii.gz"))) for name in ("truth", "predicted")
    )
    expected = score_labels(prediction, truth, [1, 2], spacing=(2.0, 0.5, 0.5), metrics=names)
    assert [s.values for s in scores.scores[:3]] == [expected[1], expected[2], expected["mean"]]
    only = score_folder(volumes / "predicted", volumes / "truth", classes=[2], metrics=names, progress=False)
    assert only.labels == ("2",) and only.scores[0].values == expected[2]


def test_nnunet_prediction_folders_are_read_with_and_without_probabilities(volumes: Path) -> None:
    import SimpleITK as sitk

    folder = volumes / "predicted"
    for name in ("dataset.json", "plans.json", "predict_from_raw_data_args.json"):
        (folder / name).write_text("{}")
    for path in folder.glob("*.nii.gz"):
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        maps = np.stack([0.9 * (labels == c) + 0.03 for c in range(3)]).astype(np.float32)
        np.savez(folder / f"{path.name[:-7]}.npz", probabilities=maps)
    plain = score_folder(folder, volumes / "truth", metrics=("dice", "mae"), progress=False)
    soft = score_folder(folder, volumes / "truth", metrics=("dice", "mae"), probabilities=True, progress=False)
    assert [s.values["dice"] for s in plain.scores] == pytest.approx([s.values["dice"] for s in soft.scores])
    assert plain.scores[0].values["mae"] != soft.scores[0].values["mae"]
    (folder / "case_1.npz").write_bytes((folder / "case_1.npz").read_bytes()[:200])
    with pytest.raises(OsasisError, match=r"save_probabilities; got .*case_1\.npz"):
        score_folder(folder, volumes / "truth", probabilities=True, progress=False)


def test_images_probabilities_have_nnunets_axis_of_one(tmp_path: Path, blob, save_png) -> None:
    truth = blob(0)
    save_png(tmp_path / "truth/a.png", truth)
    (tmp_path / "p").mkdir()
    np.savez(tmp_path / "p/a.npz", probabilities=np.stack([1 - truth, truth])[:, None].astype(np.float32))
    found = score_folder(tmp_path / "p", tmp_path / "truth", probabilities=True, metrics=["dice"], progress=False)
    assert found.scores[0].values == {"dice": 1.0}


@pytest.mark.parametrize(("prediction", "truth"), [(1, 1), (255, 1), (1, 255), (255, 255)])
def test_masks_of_one_and_of_255_mean_the_same(tmp_path: Path, blob, save_png, prediction: int, truth: int) -> None:
    mask = blob(0)
    save_png(tmp_path / "p/a.png", mask * prediction)
    save_png(
        tmp_path / "r/a.png", np.repeat((mask * truth)[..., None], 3, axis=2)
    )  # stored as colour: three times the same
    found = score_folder(tmp_path / "p", tmp_path / "r", metrics=["dice", "mae"], progress=False)
    assert found.scores[0].values == {"dice": 1.0, "mae": 0.0}


def test_a_faint_map_stays_faint_beside_a_strong_one(tmp_path: Path, blob, save_png) -> None:
    mask = blob(0)
    for name, level in (("a", 1), ("b", 200)):
        save_png(tmp_path / f"p/{name}.png", mask * level)
        save_png(tmp_path / f"r/{name}.png", mask * 255)
    with pytest.raises(OsasisError, match=r"one foreground value; got 1 in .*a\.png and 200 in .*b\.png.*--scale 255"):
        score_folder(tmp_path / "p", tmp_path / "r", metrics=["dice"], progress=False)
    found = score_folder(tmp_path / "p", tmp_path / "r", metrics=["dice"], scale=255, progress=False)
    assert [s.values["dice"] for s in found.scores] == [0.0, 1.0]
    (tmp_path / "p/b.png").unlink()
    save_png(tmp_path / "p/b.png", mask * 2)
    with pytest.raises(OsasisError, match="--scale 255"):
        score_folder(tmp_path / "p", tmp_path / "r", metrics=["dice"], progress=False)
    found = score_folder(tmp_path / "p", tmp_path / "r", metrics=["dice"], scale=255, progress=False)
    assert [s.values["dice"] for s in found.scores] == [0.0, 0.0]


def test_unequal_sets_are_listed_by_side_and_scored_only_when_asked(study: Path) -> None:
    (study / "good/case 2.png").unlink()
    shutil.copy(study / "good/case 1.png", study / "good/other.png")
    message = r"good: 1 without prediction \(case 2\); good: 1 without reference \(other\)"
    with pytest.raises(OsasisError, match=message):
        score_folder({"good": study / "good"}, study / "truth", progress=False)
    both = {"good": study / "good", "poor": study / "poor"}
    scores = score_folder(both, study / "truth", metrics=["dice"], allow_missing=True, progress=False)
    assert "case 2" not in scores.pairs.references and len(scores.scores) == 10
    assert summarise(scores)["left_out"]["good"] == {"without prediction": ["case 2"], "without reference": ["other"]}
    (study / "none").mkdir()
    shutil.copy(study / "good/case 1.png", study / "none/other.png")
    with pytest.raises(OsasisError, match="in common"):
        score_folder(study / "none", study / "truth", allow_missing=True, progress=False)


def spoil(study: Path, volumes: Path, fault: str, save_png) -> tuple[Path, Path, str]:
    """Predictions and references with one fault, and words its message must hold."""
    import SimpleITK as sitk

    good, truth, first = study / "good", study / "truth", study / "good/case 3.png"
    if fault == "missing folder":
        return study / "nowhere", truth, "must exist"
    if fault == "other size":
        save_png(first, np.zeros((20, 52)))
        return good, truth, r"one size; got \(20, 52\) in .*case 3\.png for \(40, 52\)"
    if fault == "truncated":
        first.write_bytes(first.read_bytes()[:150])
        return good, truth, "must be readable; got .*case 3"
    if fault == "colour":
        save_png(first, np.random.default_rng(0).integers(0, 255, (40, 52, 3)))
        return good, truth, "one number per pixel"
    if fault == "sixteen bits":
        Image.fromarray(np.full((40, 52), 3000, np.uint16)).save(first)
        return good, truth, r"\[0, 255\]; got values from 3000 to 3000"
    if fault == "two files of one case":
        save_png(good / "case 3.bmp", np.zeros((40, 52)))
        return good, truth, "one file"
    if fault == "grey truth":
        save_png(truth / "case 3.png", np.arange(40 * 52).reshape(40, 52) % 200)
        save_png(truth / "case 4.png", np.zeros((40, 52)))
        for path in truth.glob("*.png"):
            Image.fromarray(np.minimum(read(path), 200)).save(path)
        return good, truth, "label maps"
    predicted, path = volumes / "predicted", volumes / "predicted/case_1.nii.gz"
    image = sitk.ReadImage(str(path))
    if fault == "nan":  # in MHA: SimpleITK reads NaN of NIfTI files as 0
        values = sitk.GetArrayFromImage(image).astype(np.float32)
        values[0, 0, 0] = np.nan
        path.unlink()
        sitk.WriteImage(sitk.GetImageFromArray(values), str(path.with_name("case_1.mha")))
        return predicted, volumes / "truth", r"case_1\.mha must be finite"
    if fault == "other spacing":
        image.SetSpacing((1.0, 1.0, 2.0))
        sitk.WriteImage(image, str(path))
        return predicted, volumes / "truth", r"one spacing; got \(2\.0, 1\.0, 1\.0\)"
    assert fault == "soft labels"
    soft = sitk.Cast(image, sitk.sitkFloat32) * 0.4
    sitk.WriteImage(soft, str(path))
    return predicted, volumes / "truth", "must be label maps"


FAULTS = (
    "missing folder", "other size", "truncated", "colour", "sixteen bits", "two files of one case", "grey truth", "nan",
    "other spacing", "soft labels",
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_one_clear_error(fault: str, study: Path, volumes: Path, save_png) -> None:
    predictions, references, words = spoil(study, volumes, fault, save_png)
    with pytest.raises(OsasisError, match=words):
        score_folder(predictions, references, metrics=["dice"], progress=False)


def test_errors_of_worker_processes_reach_the_user_whole(study: Path, volumes: Path, save_png) -> None:
    predictions, references, words = spoil(study, volumes, "truncated", save_png)
    with pytest.raises(OsasisError, match=words) as caught:
        score_folder(predictions, references, metrics=["dice"], progress=False, processes=2)
    assert caught.value.remedy is not None


class Killer:
    """Ends the process that receives it, as the system does when memory runs out."""

    def __reduce__(self) -> tuple:
        return os._exit, (9,)


def test_a_killed_worker_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, study: Path) -> None:
    monkeypatch.setattr("nnunet_osasis.evaluation.metrics.folder.survey_file", Killer())
    with pytest.raises(OsasisError, match="-np 1"):
        score_folder(study / "good", study / "truth", metrics=["dice"], progress=False, processes=2)


def test_masks_of_255_are_not_taken_for_class_1(tmp_path: Path, blob, save_png) -> None:
    save_png(tmp_path / "r/a.png", blob(0) + 2 * (blob(1) & ~blob(0)))
    save_png(tmp_path / "p/a.png", blob(0) * 255)
    with pytest.raises(OsasisError, match="references' labels"):
        score_folder(tmp_path / "p", tmp_path / "r", progress=False)


def test_cases_are_in_the_order_people_count(tmp_path: Path, save_png) -> None:
    for name in ("a10", "a9", "a1"):
        for folder in ("p", "r"):
            save_png(tmp_path / folder / f"{name}.png", np.eye(8))
    found = score_folder(tmp_path / "p", tmp_path / "r", metrics=["dice"], progress=False)
    assert [s.case for s in found.scores] == ["a1", "a9", "a10"]
    assert not any(math.isnan(s.values["dice"]) for s in found.scores)


def test_a_prediction_in_another_voxel_order_is_brought_onto_its_references_grid(tmp_path: Path) -> None:
    truth = np.zeros((6, 8, 4), np.uint8)
    truth[1:3, 2:7, 1:3] = 1
    affine = np.diag([1.0, 1, 2, 1])
    affine[:3, 3] = 5, 6, 7
    turned = affine.copy()
    turned[0] = -affine[0, 0], 0, 0, affine[0, 3] + 5 * affine[0, 0]
    elsewhere = affine.copy()
    elsewhere[0, 3] += 3
    for name in ("r", "same", "away"):
        (tmp_path / name).mkdir()
    nibabel.save(nibabel.Nifti1Image(truth, affine), tmp_path / "r/case.nii")
    nibabel.save(nibabel.Nifti1Image(truth[::-1], turned), tmp_path / "same/case.nii")
    nibabel.save(nibabel.Nifti1Image(truth, elsewhere), tmp_path / "away/case.nii")
    scores = score_folder(tmp_path / "same", tmp_path / "r", metrics=["dice"], progress=False).scores
    assert scores[0].values["dice"] == 1
    with pytest.raises(OsasisError, match="same geometry"):
        score_folder(tmp_path / "away", tmp_path / "r", metrics=["dice"], progress=False)
