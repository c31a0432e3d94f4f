"""Configurations of wrong types, out of range, or unknown: refused where they are made, not where they are used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunet_osasis.controls import PooledReinhard
from nnunet_osasis.diffusion.sampler import SamplerConfig
from nnunet_osasis.evaluation.experiment.config import experiment_from_json, load_experiment
from nnunet_osasis.evaluation.metrics.protocol import choose_protocol
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.nnunet.options import OsasisOptions
from nnunet_osasis.nnunet.prepare.labels import parse_classes
from nnunet_osasis.nnunet.prepare.splits import SplitRule
from nnunet_osasis.runtime.records import read_json
from nnunet_osasis.stylizer.calibrator import CalibratorConfig
from nnunet_osasis.stylizer.config import StylizerConfig
from nnunet_osasis.training.presets import PretrainConfig

from .harness import Bad, bad

NAN, INF, HUGE = float("nan"), float("inf"), 10**400
ODD: tuple[Any, ...] = ("x", "", None, True, [], [1], {}, {"a": 1}, -1, 1.5, NAN, INF, HUGE)


def _call(function: Callable[..., Any], *args: Any, **options: Any) -> Callable[[Path], Callable[[], Any]]:
    return lambda folder: lambda: function(*args, **options)


def options_cases() -> list[Bad]:
    """``"osasis": {...}`` in nnU-Net's plans."""

    def read(section: Any) -> Any:
        return OsasisOptions.from_configuration({"osasis": section}, relative_to=Path("/data"))

    cases = [Bad(f"osasis = {value!r}", _call(read, value)) for value in ("x", [], 3, True, [["stylizer", "a"]])]
    fine = {"probability": (True,), "strength": (None,), "seed": (), "backbone": (None, "x")}
    for key in ("probability", "strength", "seed", "backbone", "stylizer", "reference", "backbone_weights", "Stylizer"):
        paths = key in ("stylizer", "reference", "backbone_weights")
        for value in ODD:
            named = paths and (value is None or isinstance(value, str))
            if named or (key in fine and value in fine[key] and not isinstance(value, bool)):
                continue
            cases.append(Bad(f"osasis: {key} = {value!r:.30}", _call(read, {key: value})))
    cases += [Bad(f"osasis: {key} = a NUL byte", _call(read, {key: "a\0b"})) for key in ("stylizer", "reference")]
    return cases


def dataclass_cases() -> list[Bad]:
    """Frozen configurations, one field wrong."""
    wrong: dict[type, dict[str, tuple[Any, ...]]] = {
        IntensityRange: {
            "kind": ("x", None, 1, ["fixed"]),
            "low": ("0", None, [0], NAN, INF, 255.0, 300, True, HUGE),
            "high": ("1", None, NAN, -INF, 0.0, -5, HUGE),
        },
        SamplerConfig: {
            "t0": (0, 1000, -1, 2.5, "3", None, HUGE, NAN),
            "encode_steps": (0, -1, 301, 1.5, "2", None, HUGE),
            "decode_steps": (0, HUGE, None),
            "grid_power": (-1, "2", NAN, INF, None, 1e9),
            "spn_weight": ("x", NAN, INF, None, 1e9),
            "mix": ("x", None, 1),
            "level_alignment": ("x", None),
        },
        StylizerConfig: {
            "readout": ("x", None, 3, ["raw"]),
            "strength": (-1, 2, "1", None, NAN, True, [1], HUGE),
            "detail": ("yes", 1, None),
            "sampler": (None, {}, "x"),
            "intensity": (None, {}, (0, 255)),
        },
        PretrainConfig: {
            "iterations": (0, -1),
            "batch_size": (0, -5),
            "precision": ("fp8", None),
            "learning_rate": (0.0, -1.0, NAN, INF),
            "seed": (-1, 2**32),
        },
        CalibratorConfig: {"iterations": (-1,), "batch_size": (0,), "crop": (1.0, -0.1, NAN), "strength": (0.0, -1,
            NAN)},
        SplitRule: {"seed": (-1,)},
    }  # fmt: skip
    return [
        Bad(f"{kind.__name__}, {key} = {value!r:.30}", _call(kind, **{key: value}))
        for kind, fields in wrong.items()
        for key, values in fields.items()
        for value in values
    ] + [
        Bad("percentiles beyond 100", _call(IntensityRange, "percentile", 1, 101)),
        Bad("percentiles below 0", _call(IntensityRange, "channel_percentile", -1, 99)),
        *(
            Bad(f"protocol, {key} = {value!r}", _call(choose_protocol, "standard", **{key: value}))
            for key, values in {
                "threshold": (0.0, 1.5, NAN), "tolerance": (-1, NAN, INF), "lesion_overlap": (-0.1, 2, NAN),
            }.items()
            for value in values
        ),
        Bad("a protocol of another name", _call(choose_protocol, "magic")),
        *(
            Bad(f"labels {items}", _call(parse_classes, items))
            for items in (
                [], ["a"], ["a=1"], ["background=0"], ["background=0", "a=x"], ["background=0", "a=0"], ["=1", "a=2"],
                ["background=0", "background=1"], ["background=0", "ignore=1"], ["background=0", "a=-1"],
                ["background=0", "a=²"],
            )
        ),
    ]  # fmt: skip


def experiment() -> dict[str, Any]:
    """A right experiment file's values."""
    sets = {"images": "a/images", "masks": "a/masks"}
    return {
        "name": "demo", "train": dict(sets), "test": dict(sets), "targets": [{"name": "b", "set": dict(sets)}],
        "networks": ["unet"], "methods": ["none", "reinhard"], "seeds": [0, 1], "metrics": ["dice", "iou"],
    }  # fmt: skip


def experiment_cases() -> list[Bad]:
    """Experiment files with one value changed, and files that are none."""

    def changed(place: str, value: Any) -> Callable[[Path], Callable[[], Any]]:
        def make(folder: Path) -> Callable[[], Any]:
            values = experiment()
            spot: Any = values
            *parts, last = place.split("/")
            for part in parts:
                spot = spot[int(part)] if part.isdigit() else spot[part]
            spot[int(last) if last.isdigit() else last] = value
            (folder / "e.json").write_text(json.dumps(values))
            return lambda: load_experiment(folder / "e.json")

        return make

    objects: tuple[Any, ...] = ("x", 3, None, True, [], {}, {"magic": 1}, NAN)
    lists: tuple[Any, ...] = ("x", 3, None, {}, [], [3], [None], [[]], ["magic"], ["none", "none"])
    whole: tuple[Any, ...] = ("x", None, True, -1, 1.5, NAN, [1], {})
    wrong: dict[str, tuple[Any, ...]] = {
        "name": (3, None, [], {}), "magic": (1,), "train": objects, "test": objects, "targets": lists, "methods": lists,
        "networks": ("x", 3, None, {}, [], [3], [None], [[]], ["a b"], ["unet", "unet"], ["../x"]),
        "seeds": ("x", 3, None, {}, [], [-1], [0, 0], [1.5], ["0"], [True], [[0]], [2**32]),
        "metrics": ("x", 3, None, [], ["magic"], ["hd95"], ["dice", "dice"], [3]),
        "tolerance": ("x", -1, NAN, INF, [2], True), "note": (3, []),
        "train/images": (3, None, []), "train/include": ("1-3", 3, [3], [None]), "train/every": (0, *whole),
        "train/where": ("x", 3, {"statistic": "magic"}, {"at_least": 1}, {"statistic": "background_red", "below": "x"}),
        "train/groups": ("(", "[", "*", 3.5, ["a"], {}, "(a+)+$", "(.*)*x", "((a|a)+)+", "a" * 5000, r"(\w*\w*\w*)*!"),
        "targets/0": ("x", 3, None, [], {}), "targets/0/name": (3, None, "", "source", "a b", "../b", "a" * 300),
        "targets/0/set": (3, "x", [], {}), "targets/0/camera": ({"seed": 1}, "x", 3, {"seed": -1}, {"gains": 1}, {}),
        "targets/0/reference": (3, []), "methods/0": ("reinhard", "identity", {"name": 3}, {"kind": "none"}),
        "methods/1": ("magic", {"name": "a", "kind": "magic"}, {"name": "r", "kind": "reinhard", "strength": 2},
                      {"name": "r", "kind": "reinhard", "strength": NAN}, {"name": "r", "kind": "reinhard", "x": 1},
                      {"name": "f", "kind": "fda", "beta": "a"}, {"name": "o", "kind": "osasis", "readout": "magic"},
                      {"name": "o", "kind": "osasis", "readout": ["raw"]}, {"name": "o", "parameters": [],
                          "kind": "gin"},
                      {"name": "../../x", "kind": "gin"}, {"name": "o", "kind": ["osasis"]}),
        "networks/0": ({"name": 3}, {"name": "unet", "magic": 1}, {"name": "x", "arguments": []}),
        "budget": ("x", 3, None, [], {"magic": 1}), "stylizer": ("x", 3, [], {"magic": 1}, {"iterations": "x"}),
    }  # fmt: skip
    cases = [
        Bad(f"{place} = {value!r:.50}", changed(place, value))
        for place, values in wrong.items()
        for value in values
    ]  # fmt: skip
    budget = {
        "engine": ("magic", None, 3), "side": (0, *whole), "patch": (0, -32), "iterations": (0, *whole),
        "batch_size": (0, -1),
        "learning_rate": (0, 1, -1, NAN, "x"), "probability": (-1, 2, NAN, "x", None), "precision": ("fp8", 3),
        "features": ("x", [], [0, 8], [8], [-1, 8], [1.5, 2]), "trainer_length": (3, "9epochs", "x; rm -rf /", "../x"),
    }  # fmt: skip
    cases += [
        Bad(f"budget: {key} = {value!r:.40}", changed("budget", {key: value}))
        for key, values in budget.items()
        for value in values
    ]

    def text(data: bytes) -> Callable[[Path], Callable[[], Any]]:
        def make(folder: Path) -> Callable[[], Any]:
            (folder / "e.json").write_bytes(data)
            return lambda: load_experiment(folder / "e.json")

        return make

    files = {
        "nothing": b"", "text": b"hello", "bytes": bytes(range(256)), "a list": b"[]", "a number": b"3",
        "null": b"null",
        "half": json.dumps(experiment()).encode()[:90], "a byte order mark": b"\xef\xbb\xbf{}",
        "UTF-16": "{}".encode("utf-16"),
        "depth": b'{"name": ' * 50_000 + b"1" + b"}" * 50_000, "digits": b'{"seeds": [' + b"9" * 9999 + b"]}",
        "an object of nothing": b"{}", "surrogates": b'{"name": "\\ud800", "train": 3}',
    }  # fmt: skip
    return [
        *cases,
        *(Bad(f"a file of {name}", text(data)) for name, data in files.items()),
        Bad("values that are a list", _call(experiment_from_json, [])),
        Bad("the right one", _call(experiment_from_json, experiment()), lambda found: None),
    ]


def json_cases() -> list[Bad]:
    """Other JSON that is read from disk."""
    statistics = {
        "space": "native", "value_range": [0.0, 255.0], "source_mean": [1.0], "source_std": [1.0],
        "reference_mean": [1.0], "reference_std": [1.0],
    }  # fmt: skip
    wrong: dict[str, tuple[Any, ...]] = {
        "space": ("magic", None, 3), "value_range": (None, [0], [255, 0], ["a", "b"], [NAN, 1], 3),
        "source_mean": ([], None, "x", ["a"], [NAN], [1.0, 2.0], 3), "source_std": ([-1.0], [INF], None, [None]),
        "reference_std": ([[1.0]], [NAN], {}), "magic": (1,),
    }  # fmt: skip
    cases = [
        Bad(f"Reinhard statistics, {key} = {value!r}", _call(PooledReinhard.from_dict, {**statistics, key: value}))
        for key, values in wrong.items()
        for value in values
    ]
    cases += [Bad(f"Reinhard statistics that are {v!r}", _call(PooledReinhard.from_dict, v)) for v in ({}, [], None)]

    def pipe(folder: Path) -> Callable[[], Any]:
        (folder / "loop").symlink_to("loop")
        return lambda: read_json(folder / "loop", what="A file")

    return [
        *cases,
        Bad("JSON that links to itself", pipe),
        Bad("JSON that is a folder", lambda f: lambda: read_json(f, what="It")),
    ]


OPTIONS, CLASSES, EXPERIMENTS, FILES = options_cases(), dataclass_cases(), experiment_cases(), json_cases()
CASES = [*OPTIONS, *CLASSES, *EXPERIMENTS, *FILES]


@bad(OPTIONS)
def test_options_in_plans_are_refused_by_name(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("nnU-Net options", case)


@bad(CLASSES)
def test_a_configuration_cannot_be_made_wrong(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("configurations", case)


@bad(EXPERIMENTS)
def test_an_experiment_file_is_checked_before_anything_runs(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("experiment files", case)


@bad(FILES)
def test_stored_statistics_are_checked(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("other JSON", case)
