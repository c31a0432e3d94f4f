"""One experiment as data: what is trained on what, with which methods, how often; one JSON file.

Experiment files: JSON in, a checked :class:`Experiment` out, with the key that is wrong in every message.

The methods an experiment may compare: their names, kinds and parameters, as data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment.domains import check_rule
from nnunet_osasis.evaluation.metrics.protocol import METRICS
from nnunet_osasis.runtime.records import read_json
from nnunet_osasis.runtime.storage import sha256_of_json
from nnunet_osasis.synthetic.known_camera import KnownCamera, camera_from_json

NAME = r"[A-Za-z0-9]+([_-][A-Za-z0-9]+)*"
"""Names of networks, targets and methods: they become parts of file names, joined by ``@`` and double underscores."""

DECIDING = ("dice", "iou", "dice_mean", "iou_mean", "s", "e_max", "e_mean", "e_adaptive", "nsd")
"""Metrics a verdict may rest on: in [0, 1], higher is better, defined for every case."""


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """Images and masks of one site.

    Attributes:
        images, masks: folders, relative to the data folder; paired by file name without its ending.
        include: which stems: names, numeric ranges (``"1-178"``) or shell patterns (``"*_test"``); empty takes all.
        every: take every n-th of them (videos).
        where: bounds on a colour statistic of the background, see ``domains.py``; how one folder becomes two domains.
        groups: what belongs together: a regular expression whose first group (or whole match) names a patient,
            or a list of the numbers at which sequences begin; empty: every image for itself.
    """

    images: str
    masks: str
    include: tuple[str, ...] = ()
    every: int = 1
    where: Mapping[str, Any] = field(default_factory=dict)
    groups: str | tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.every < 1:
            raise OsasisError("Of a set every n-th image is taken, n at least 1", found=self.every)
        if isinstance(self.groups, str):
            try:
                re.compile(self.groups)
            except re.error as error:
                raise OsasisError("groups must be a regular expression", found=f"{self.groups!r}: {error}") from error
        if self.where:
            check_rule(self.where)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A second site: either a set of its own, or a camera through which the source's images are seen (known truth).

    Attributes:
        set: images and masks; only the reference is looked at before the scoring.
        camera: a camera model; the target's test images are then the source's test images through it, and its
            reference one image of ``reference_pool`` through it.
        reference_pool: source-site images that are in neither split (camera targets only).
        reference: stem of the reference image; None chooses it by the rule, without masks.
    """

    name: str
    set: ImageSet | None = None
    camera: KnownCamera | None = None
    reference_pool: ImageSet | None = None
    reference: str | None = None


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """A network by name: ``unet`` (nnU-Net's), ``unetpp``, ``pranet``, or any network of MONAI.

    Attributes:
        monai: class name in ``monai.networks.nets``, for other names than those three.
        arguments: constructor arguments that differ from the default.
    """

    name: str
    monai: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long every training is, the same for every method.

    Attributes:
        engine: ``light`` (one small loop for any network) or ``nnunet`` (``nnUNetv2_train`` itself).
        side: images are reduced so that the longer side is no more than this. patch: side of a training patch.
        iterations, batch_size, learning_rate: of the light engine (AdamW, polynomial decay).
        trainer_length: suffix of nnU-Net's trainers, such as ``5epochs``.
        features: of nnU-Net's U-Net, from the top.
        probability: with which a training image is drawn stylized or augmented.
        precision: ``fp32`` or ``bf16`` (autocast).
    """

    engine: str = "light"
    side: int = 96
    patch: int = 96
    iterations: int = 400
    batch_size: int = 8
    learning_rate: float = 2e-3
    trainer_length: str = "5epochs"
    features: tuple[int, ...] = (16, 32, 64, 128)
    probability: float = 0.5
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.engine not in ("light", "nnunet"):
            raise OsasisError("The engine must be light or nnunet", found=self.engine)
        if self.precision not in ("fp32", "bf16"):
            raise OsasisError("The precision must be fp32 or bf16", found=self.precision)
        if not 0 <= self.probability <= 1:
            raise OsasisError("The probability must lie in [0, 1]", found=self.probability)
        for name in ("side", "patch", "iterations", "batch_size"):
            if getattr(self, name) < 1:
                raise OsasisError(f"The budget's {name} must be at least 1", found=getattr(self, name))
        if not 0 < self.learning_rate < 1:
            raise OsasisError("The budget's learning_rate must lie between 0 and 1", found=self.learning_rate)
        least = 2 if self.engine == "light" else 3
        if any(width < 1 for width in self.features) or (
            len(self.features) < least and (self.engine == "light" or self.features)
        ):
            raise OsasisError(f"The budget's features must be {least} or more positive widths", found=self.features)


@dataclass(frozen=True, kw_only=True)
class StylizerSpec:
    """How stylizers are made when a method needs one: options of ``osasis-pretrain-stylizer``."""

    preset: str = "tiny"
    iterations: int | None = None
    adapt_iterations: int | None = None
    calibrator_iterations: int | None = None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that decides the result; equal experiments on equal data give equal rows on a CPU.

    Attributes:
        train, test: of the source site. targets: sites to test on.
        metrics: what is scored per case, names of ``evaluation.metrics``; the first one decides the verdict.
        tolerance: of the normalised surface distance, in pixels.
    """

    name: str
    train: ImageSet
    test: ImageSet
    targets: tuple[Target, ...]
    networks: tuple[NetworkSpec, ...]
    methods: tuple[MethodSpec, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    budget: Budget = field(default_factory=Budget)
    stylizer: StylizerSpec = field(default_factory=StylizerSpec)
    metrics: tuple[str, ...] = ("dice", "iou", "specificity", "wf", "s", "e_mean", "mae", "hd95", "nsd")
    tolerance: float = 2.0
    note: str = ""

    def __post_init__(self) -> None:
        for what, names in (
            ("targets", [target.name for target in self.targets]),
            ("networks", [network.name for network in self.networks]),
            ("methods", [method.name for method in self.methods]),
        ):
            if not names or len(set(names)) < len(names):
                raise OsasisError(f"An experiment's {what} must be named, each once", found=names)
            if odd := [name for name in names if not re.fullmatch(NAME, name)]:
                raise OsasisError(
                    f"Names of {what} are letters and digits with single - or _ between them", found=repr(odd[0])
                )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise OsasisError("The seeds must be whole numbers of at least 0, each once", found=self.seeds)
        if self.methods[0].kind != "none":
            raise OsasisError(
                "The first method must be none: everything is compared with it", found=self.methods[0].name
            )
        kinds = [method.kind for method in self.methods if not method.parameters]
        if doubled := {kind for kind in kinds if kinds.count(kind) > 1}:
            raise OsasisError("A method without parameters must not be there twice", found=sorted(doubled))
        if "source" in {target.name for target in self.targets}:
            raise OsasisError("A target must not be called source: that is the in-domain test")
        self._check_metrics(self.metrics)
        if not 0 <= self.tolerance < float("inf"):
            raise OsasisError("The tolerance must be a number of pixels of at least 0", found=self.tolerance)

    @staticmethod
    def _check_metrics(metrics: Sequence[str]) -> None:
        if unknown := [name for name in metrics if name not in METRICS]:
            raise OsasisError("Metrics must be known", found=unknown, remedy=f"Known: {', '.join(METRICS)}.")
        if not metrics or metrics[0] not in DECIDING or len(set(metrics)) < len(metrics):
            raise OsasisError(
                "The first metric decides the verdict: better when higher, in [0, 1], always defined",
                found=list(metrics),
                remedy=f"Begin with one of {', '.join(DECIDING)}; name each once.",
            )

    @property
    def baseline(self) -> str:
        """Name of the method that trains without any change."""
        return self.methods[0].name

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values that :func:`experiment_from_json` reads back."""
        values = _plain(asdict(self))
        for place, target in zip(values["targets"], self.targets, strict=True):
            place["camera"] = None if target.camera is None else target.camera.to_json()
        return _without_none(values)

    @property
    def sha256(self) -> str:
        """Of everything but the free-text note."""
        return sha256_of_json({key: value for key, value in self.to_json().items() if key != "note"})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _without_none(value: Any) -> Any:
    """What is not given is left out, but for a network's or a method's own arguments, where null is a value."""
    if isinstance(value, dict):
        own = ("arguments", "parameters")
        return {k: item if k in own else _without_none(item) for k, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


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


@dataclass(frozen=True)
class Kind:
    """What a kind of method is.

    Attributes:
        label: for people.
        role: ``baseline``, ``check`` (its answer is known beforehand), ``control`` (free) or ``stylizer``.
        reference: whether it sees the target's one reference image, and so exists once per target.
        parameters: names it takes besides its name.
    """

    label: str
    role: str
    reference: bool
    parameters: tuple[str, ...] = ()


LOSSES = ("osasis", "paper")

KINDS: dict[str, Kind] = {
    "none": Kind("no style transfer", "baseline", False),
    "identity": Kind("identity (must change nothing)", "check", False),
    "truth": Kind("true target rendering (upper bound)", "check", True),
    "histogram_matching": Kind("histogram matching", "control", True, ("strength",)),
    "reinhard": Kind("Reinhard per image", "control", True, ("strength",)),
    "pooled_reinhard": Kind("pooled Reinhard", "control", True, ("strength",)),
    "fda": Kind("FDA", "control", True, ("beta", "strength")),
    "gin": Kind("GIN", "control", False),
    "colour_jitter": Kind("colour jitter", "control", False),
    "histogram_shift": Kind("random histogram shift", "control", False),
    "da5": Kind("nnU-Net's DA5", "control", False),
    "osasis": Kind("OSASIS", "stylizer", True, ("losses", "readout", "strength")),
}


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """One method of an experiment: a unique ``name``, its ``kind``, and parameters such as ``strength``."""

    name: str
    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def role(self) -> str:
        """``baseline``, ``check``, ``control`` or ``stylizer``."""
        return KINDS[self.kind].role

    @property
    def needs_reference(self) -> bool:
        """Whether it is made anew for every target."""
        return KINDS[self.kind].reference

    @property
    def label(self) -> str:
        """For people: the kind's label, with the parameters where there are any."""
        shown = ", ".join(f"{key} {value}" for key, value in self.parameters.items())
        return f"{KINDS[self.kind].label} ({shown})" if shown else KINDS[self.kind].label

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> MethodSpec:
        """From ``{"name": ..., "kind": ..., parameters...}``; without ``kind`` the name is the kind.

        Raises ``OsasisError`` for an unknown kind or parameter.
        """
        if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
            raise OsasisError("A method needs a name", found=repr(values)[:80])
        given = dict(values)
        name = given.pop("name")
        kind = given.pop("kind", name)
        if not isinstance(kind, str) or kind not in KINDS:
            raise OsasisError("The kind of a method must be known", found=kind, remedy=f"Known: {', '.join(KINDS)}.")
        named = given.pop("parameters", {})
        if not isinstance(named, Mapping):
            raise OsasisError(f"The parameters of the method {name} must be a JSON object", found=repr(named)[:80])
        given = {**named, **given}
        if unknown := sorted(set(given) - set(KINDS[kind].parameters)):
            raise OsasisError(
                f"The method {name} has unknown parameters",
                found=", ".join(unknown),
                remedy=f"Known for {kind}: {', '.join(KINDS[kind].parameters) or 'none'}.",
            )
        for key, value in given.items():
            _check_parameter(name, key, value)
        return cls(name=name, kind=kind, parameters=given)


def _check_parameter(method: str, key: str, value: Any) -> None:
    if key in ("strength", "beta"):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= (1 if key == "strength" else 0.5):
            raise OsasisError(f"{key} of the method {method} must be a number in its range", found=repr(value))
        return
    from nnunet_osasis.stylizer.names import READOUTS

    known = READOUTS if key == "readout" else LOSSES
    if value not in known:
        raise OsasisError(f"{key} of the method {method} must be one of {', '.join(known)}", found=repr(value))
