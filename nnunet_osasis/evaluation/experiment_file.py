"""Experiment files: JSON in, a checked :class:`Experiment` out, with the key that is wrong in every message."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment import Budget, Experiment, ImageSet, NetworkSpec, StylizerSpec, Target
from nnunet_osasis.evaluation.method_list import MethodSpec
from nnunet_osasis.runtime.records import read_json
from nnunet_osasis.synthetic.known_camera import camera_from_json

LONGEST_NAME, LONGEST_PATTERN, MOST_REPEATS = 64, 200, 4


def load_experiment(path: str | Path) -> Experiment:
    """Read an experiment file. Raises ``OsasisError`` naming the key that is missing, unknown or of a wrong type."""
    return experiment_from_json(read_json(path, what="The experiment file"))


def experiment_from_json(values: Mapping[str, Any]) -> Experiment:
    """Build an :class:`Experiment` from JSON values."""
    values = _mapping(values, "The experiment")
    given_budget = values.get("budget", {})
    for key in ("train", "test"):
        if key in values:
            values[key] = _build(ImageSet, values[key], key)
    values["targets"] = tuple(_target(item) for item in _items(values, "targets"))
    values["networks"] = tuple(
        _build(NetworkSpec, {"name": item} if isinstance(item, str) else item, "networks")
        for item in _items(values, "networks")
    )
    values["methods"] = tuple(
        MethodSpec.from_json({"name": item} if isinstance(item, str) else item) for item in _items(values, "methods")
    )
    for key, kind in (("budget", Budget), ("stylizer", StylizerSpec)):
        values[key] = _build(kind, values.get(key, {}), key)
    _refuse_idle_options(given_budget, values["budget"].engine)
    experiment: Experiment = _build(Experiment, values, "the experiment")
    _refuse_extremes(experiment)
    return experiment


def _target(values: Any) -> Target:
    values = _mapping(values, "a target")
    for key in ("set", "reference_pool"):
        if values.get(key) is not None:
            values[key] = _build(ImageSet, values[key], key)
    if values.get("camera") is not None:
        values["camera"] = camera_from_json(values["camera"])
    target: Target = _build(Target, values, "a target")
    if (target.set is None) == (target.camera is None):
        raise OsasisError("A target is either a set or a camera", found=f"target {target.name}")
    if target.camera is not None and target.reference_pool is None:
        raise OsasisError(
            "A camera target needs a reference_pool: source images in neither split, one of which is the reference",
            found=f"target {target.name}",
        )
    return target


def _refuse_extremes(experiment: Experiment) -> None:
    """Names become parts of file names, seeds go to generators, rules are matched with names that others chose."""
    groups = (experiment.targets, experiment.networks, experiment.methods)
    names = [part.name for parts in groups for part in parts]
    if long := [name for name in names if len(name) > LONGEST_NAME]:
        raise OsasisError(
            f"Names have {LONGEST_NAME} characters at most", found=f"{long[0][:40]}...", remedy="Shorten it."
        )
    if max(experiment.seeds) >= 2**32:
        raise OsasisError(f"Seeds must be below {2**32}", found=max(experiment.seeds), remedy="Choose smaller ones.")
    of_targets = [one for target in experiment.targets for one in (target.set, target.reference_pool) if one]
    for images in (experiment.train, experiment.test, *of_targets):
        if isinstance(images.groups, str):
            require_quick_pattern(images.groups)


def require_quick_pattern(pattern: str) -> None:
    """Refuse a regular expression that may take for ever on some file name: a long one, or a repeat of repeats.

    Raises ``OsasisError``.
    """
    repeats = len(re.findall(r"(?<!\\)[*+]|\{\d*,\d*\}", pattern))
    if len(pattern) > LONGEST_PATTERN or repeats > MOST_REPEATS or re.search(r"\)(?:[*+]|\{)", pattern):
        raise OsasisError(
            f"A group rule has {LONGEST_PATTERN} characters and {MOST_REPEATS} repeats at most, and repeats no group",
            found=f"{pattern[:80]!r}",
            remedy=r"Such as ^(patient\d+).",
        )


def _refuse_idle_options(given: Mapping[str, Any], engine: str) -> None:
    idle = ("iterations", "learning_rate", "precision") if engine == "nnunet" else ("trainer_length",)
    if unused := [name for name in idle if name in given and given[name] != getattr(Budget, name)]:
        raise OsasisError(
            f"The {engine} engine has no use for some options of the budget",
            found=", ".join(unused),
            remedy="Remove them.",
        )


def _items(values: Mapping[str, Any], key: str) -> list[Any]:
    found = values.get(key)
    if not isinstance(found, list | tuple) or not found:
        raise OsasisError(f"The experiment's {key} must be a list of at least one", found=found)
    return list(found)


def _mapping(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise OsasisError(f"{where} must be a JSON object", found=repr(values)[:80])
    return dict(values)


def _build(kind: type, values: Any, where: str) -> Any:
    """``kind(**values)`` with lists as tuples; unknown, missing and mistyped keys are refused."""
    values = _mapping(values, where)
    known = {item.name: item for item in fields(kind)}
    if unknown := sorted(set(values) - set(known)):
        raise OsasisError(f"{where}: unknown keys", found=", ".join(unknown), remedy=f"Known: {', '.join(known)}.")
    wanting = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in values]
    if wanting:
        raise OsasisError(f"{where}: every required key must be there", found=f"no {', '.join(wanting)}")
    hints = get_type_hints(kind)
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    for name, value in given.items():
        if not _fits(value, hints[name]):
            raise OsasisError(
                f"{where}: {name} must be {_words(hints[name])}", found=repr(values[name])[:80], remedy="Correct it."
            )
    return kind(**given)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value (lists as tuples) is of an annotated type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(item, inner[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def _words(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_words(one) for one in inner if one is not type(None))
    if origin is tuple:
        plural = {str: "texts", int: "whole numbers", float: "numbers"}
        return f"a list of {plural.get(inner[0], 'objects')}"
    names = {str: "text", int: "a whole number", float: "a number", dict: "an object"}
    return names.get(hint, "an object")
