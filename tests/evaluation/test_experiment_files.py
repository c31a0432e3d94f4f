"""Experiment files: read back as written, and refused in plain words before anything is trained."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.experiment.cells import all_cells
from nnunet_osasis.evaluation.experiment.config import (
    KINDS,
    Budget,
    ImageSet,
    MethodSpec,
    experiment_from_json,
    load_experiment,
)
from nnunet_osasis.evaluation.experiment.data import prepare

from .sites import experiment, image_set, values, write_data

RICH = {
    "train": image_set("a", include=["1-6"], every=2, groups=r"^\d"),
    "test": image_set("a", groups=[1, 4], where={"statistic": "background_red", "at_least": 1.5}),
    "networks": ["unet", {"name": "basic", "monai": "BasicUNet", "arguments": {"features": [4, 4, 4, 4, 4, 4]}}],
    "methods": ["none", {"name": "half", "kind": "fda", "beta": 0.05, "strength": 0.5}, "osasis"],
    "stylizer": {"preset": "tiny", "iterations": 5},
    "tolerance": 3,
}


@pytest.mark.parametrize("changes", [{}, RICH])
def test_an_experiment_survives_its_own_file(changes: dict[str, Any], tmp_path: Path) -> None:
    first = experiment(**changes)
    (tmp_path / "e.json").write_text(json.dumps(first.to_json()))
    again = load_experiment(tmp_path / "e.json")
    assert again == first
    assert again.sha256 == first.sha256


def test_a_note_is_not_part_of_what_decides_the_result() -> None:
    assert experiment(note="why").sha256 == experiment().sha256
    assert experiment(seeds=[1]).sha256 != experiment().sha256
    assert experiment(tolerance=1.0).sha256 != experiment().sha256


def test_an_argument_of_null_is_not_the_default() -> None:
    plain = {"name": "basic", "monai": "BasicUNet"}
    without = experiment(networks=[plain])
    null = experiment(networks=[{**plain, "arguments": {"act": None}}])
    assert null.sha256 != without.sha256
    assert experiment_from_json(null.to_json()) == null


def target(**changes: Any) -> dict[str, Any]:
    return {"targets": [{"name": "b", **changes}]}


POOL = image_set("a", include=["10-12"])
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"methodz": []}, "the keys must be among.*methods.*methodz"),
    "unknown key of a set": ({"train": image_set("a", evry=2)}, "keys of train must be among.*every.*evry"),
    "unknown key of the budget": ({"budget": {"epochs": 3}}, "keys of budget must be among.*iterations.*epochs"),
    "missing key of a set": ({"train": {"images": "a/images"}}, "train.masks must be given"),
    "missing network name": ({"networks": [{"monai": "UNet"}]}, "networks.0.name must be given"),
    "budget is a list": ({"budget": [1]}, "budget must be an object"),
    "stylizer is text": ({"stylizer": "tiny"}, "stylizer must be an object"),
    "text for a number": ({"budget": {"side": "96"}}, "budget.side must be a whole number.*got '96'"),
    "fraction of a step": ({"budget": {"iterations": 1.5}}, "iterations must be a whole number"),
    "yes for a number": ({"budget": {"batch_size": True}}, "batch_size must be a whole number"),
    "number for a note": ({"note": 3}, "note must be a valid string"),
    "text for the tolerance": ({"tolerance": "two"}, "tolerance must be a number"),
    "no iterations": ({"budget": {"iterations": 0}}, "iterations must be .*at least 1; got 0"),
    "negative side": ({"budget": {"side": -1}}, "side must be .*at least 1; got -1"),
    "probability of two": ({"budget": {"probability": 2.0}}, r"probability must be .*in \[0, 1\]; got 2.0"),
    "unknown engine": ({"budget": {"engine": "fast"}}, "light or nnunet"),
    "unknown precision": ({"budget": {"precision": "fp8"}}, "fp32 or bf16"),
    "no methods": ({"methods": []}, "methods must be a list of at least one"),
    "methods as text": ({"methods": "none"}, "methods must be a list"),
    "no targets": ({"targets": []}, "targets must be a list of at least one"),
    "no seeds": ({"seeds": []}, "seeds must be whole numbers of at least 0.*at least one"),
    "a seed twice": ({"seeds": [0, 1, 0]}, "seeds must differ.*each once"),
    "a seed below 0": ({"seeds": [-1]}, "at least 0"),
    "seeds that are text": ({"seeds": ["first"]}, "seeds.0 must be whole numbers"),
    "a space in a target": (
        target(name="camera 1", set=POOL),
        "targets.0.name must be .*letters and digits.*got 'camera 1'",
    ),
    "two underscores in a network": (
        {"networks": [{"name": "a__b", "monai": "UNet"}]},
        "networks.0.name must be .*letters",
    ),
    "an at sign in a method": (
        {"methods": ["none", {"name": "a@b", "kind": "fda"}]},
        "methods.1.name must be .*letters",
    ),
    "an unknown metric": ({"metrics": ["dice", "dicee"]}, r"metrics must be known.*dicee"),
    "a first metric that may be undefined": (
        {"metrics": ["wf", "dice"]},
        "first metric decides.*Begin with one of dice",
    ),
    "a first metric that is an error": ({"metrics": ["mae", "dice"]}, "first metric decides"),
    "a metric twice": ({"metrics": ["dice", "iou", "dice"]}, "name each once"),
    "strength of two": ({"methods": ["none", {"name": "fda", "strength": 2}]}, "strength"),
    "steps for nnU-Net": ({"budget": {"engine": "nnunet", "iterations": 7}}, "nnunet engine has no use.*iterations"),
    "epochs for the light engine": ({"budget": {"trainer_length": "10epochs"}}, "light engine.*trainer_length"),
    "a method twice": ({"methods": ["none", "fda", "fda"]}, "methods must differ.*each once"),
    "a network twice": ({"networks": ["unet", "unet"]}, "networks must differ.*each once"),
    "weights without an encoder": (
        {"networks": [{"name": "unet", "weights": "imagenet"}]},
        "those of a network's encoder",
    ),
    "an encoder for PraNet": ({"networks": [{"name": "pranet", "encoder": "resnet18"}]}, "excludes monai.*got pranet"),
    "none is not first": ({"methods": ["fda", "none"]}, "first method must be none"),
    "unknown kind": ({"methods": ["none", "cyclegan"]}, "kind of a method must be known.*Known: none"),
    "unknown parameter": ({"methods": ["none", {"name": "reinhard", "beta": 1}]}, "unknown parameters.*strength"),
    "parameter of none": ({"methods": [{"name": "none", "strength": 1}]}, "unknown parameters.*none"),
    "a method without name": ({"methods": ["none", {"kind": "fda"}]}, "method needs a name"),
    "a method that is a number": ({"methods": ["none", 3]}, "method needs a name"),
    "target of neither": (target(), "either a set or a camera"),
    "target of both": (target(set=POOL, camera={"seed": 1}, reference_pool=POOL), "either a set or a camera"),
    "camera without pool": (target(camera={"seed": 1}), "needs a reference_pool"),
    "twins of a camera": (
        target(camera={"seed": 1}, reference_pool=POOL, twins="b/twins"),
        "makes its own twins; got b/twins",
    ),
    "camera that is text": (target(camera="blue", reference_pool=POOL), "camera must be a JSON object"),
    "camera of half a seed": (target(camera={"seed": 0.5}, reference_pool=POOL), "whole number"),
    "camera of a negative seed": (target(camera={"seed": -1}, reference_pool=POOL), "whole number"),
    "camera of one parameter": (target(camera={"gamma": 2}, reference_pool=POOL), "all of its parameters.*missing"),
    "a target is text": ({"targets": ["b"]}, "targets.0 must be an object; got 'b'"),
    "a target called source": ({"targets": [{"name": "source", "set": POOL}]}, "must not be called source"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_file_is_refused_in_plain_words(case: str) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(OsasisError) as caught:
        experiment(**changes)
    assert re.search(message, str(caught.value), re.IGNORECASE), str(caught.value)


@pytest.mark.parametrize("key", ["name", "train", "test", "targets", "networks", "methods"])
def test_every_missing_key_is_named(key: str) -> None:
    given = values()
    del given[key]
    with pytest.raises(OsasisError, match=key):
        experiment_from_json(given)


UNNOTICED: dict[str, dict[str, Any]] = {
    "unknown metric": {"metrics": ["dice", "dicee"]},
    "no metric": {"metrics": []},
    "first metric is an error": {"metrics": ["mae", "dice"]},
    "train is text": {"train": "a"},
    "seeds is a number": {"seeds": 3},
    "a seed is text": {"seeds": ["first"]},
    "include is text": {"train": image_set("a", include="1-6")},
    "every is zero": {"train": image_set("a", every=0)},
    "budget holds null": {"budget": {"iterations": None}},
    "negative learning rate": {"budget": {"learning_rate": -1.0}},
    "probability is yes": {"budget": {"probability": True}},
    "strength is text": {"methods": ["none", {"name": "fda", "strength": "much"}]},
    "parameters is a list": {"methods": ["none", {"name": "fda", "parameters": [1]}]},
    "kind is a list": {"methods": ["none", {"name": "fda", "kind": ["fda"]}]},
    "a name that is a path": {"networks": [{"name": "../unet", "monai": "UNet"}]},
    "camera parameter is text": target(
        camera={**experiment().targets[0].camera.to_json(), "gamma": "high"}, reference_pool=POOL
    ),
    "bound of a rule is text": {"train": image_set("a", where={"statistic": "background_red", "below": "x"})},
    "group rule is no expression": {"train": image_set("a", groups="(")},
}


@pytest.mark.parametrize("case", UNNOTICED)
def test_a_mistake_that_would_surface_late_is_refused_with_the_file(case: str) -> None:
    with pytest.raises(OsasisError):
        experiment(**UNNOTICED[case])


def test_the_baseline_may_have_a_name_of_its_own() -> None:
    from nnunet_osasis.evaluation.report.summary import summarise

    from .scores import rows_of

    spec = experiment(methods=[{"name": "plain", "kind": "none"}, "fda"])
    rows, groups = rows_of(spec, {"plain": 0.6, "fda": 0.7})
    assert [entry["method"] for entry in summarise(spec, rows, groups)][:2] == ["plain", "fda"]


@pytest.mark.parametrize("place", ["../outside", "/etc", "a/../../outside"])
def test_paths_do_not_leave_the_data_folder(place: str, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    write_data(tmp_path / "outside")
    spec = experiment(test=image_set(place))
    with pytest.raises(OsasisError, match="inside the data folder"):
        prepare(spec, data)


def test_a_file_that_is_missing_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(OsasisError, match=r"no file .*gone\.json"):
        load_experiment(tmp_path / "gone.json")
    (tmp_path / "half.json").write_text('{"name": ')
    with pytest.raises(OsasisError, match=r"readable JSON.*half\.json"):
        load_experiment(tmp_path / "half.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(OsasisError, match="JSON object"):
        load_experiment(tmp_path / "list.json")


def test_a_budget_is_checked_however_it_is_made() -> None:
    with pytest.raises(OsasisError, match="probability"):
        replace(Budget(), probability=-0.1)
    with pytest.raises(OsasisError, match=r"keys must be among.*every.*got 'evry'"):
        ImageSet(images="a", masks="b", evry=2)  # type: ignore[call-arg]
    with pytest.raises(OsasisError, match="repeats no group"):
        ImageSet(images="a", masks="b", groups="(a+)+$")


def test_every_kind_reads_as_a_method_and_says_what_it_is() -> None:
    assert {MethodSpec.from_json({"name": kind}).role for kind in KINDS} == {
        "baseline", "check", "control", "stylizer",
    }  # fmt: skip
    spec = MethodSpec.from_json({"name": "weak", "kind": "fda", "strength": 0.5})
    assert spec.label == "FDA (strength 0.5)" and spec.needs_reference


def test_the_first_seed_of_everything_comes_first_and_each_style_has_its_training() -> None:
    cells = all_cells(experiment(methods=["none", "fda", "truth"], seeds=[4, 2]))
    assert [cell.name for cell in cells[:4]] == [
        "unet__none__4", "unet__fda@camera__4", "unet__fda@b__4", "unet__truth@camera__4",
    ]  # fmt: skip
    assert [cell.seed for cell in cells] == [4] * 4 + [2] * 4
    assert [cell.tests for cell in cells[:3]] == [("source", "camera", "b"), ("source", "camera"), ("source", "b")]
    assert len({cell.random_seed for cell in cells}) == len(cells)
