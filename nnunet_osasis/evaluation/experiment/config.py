"""One experiment as data: what is trained on what, with which methods, and how often.

:func:`load_experiment` reads it from one JSON file. Everything here is a frozen pydantic dataclass whose constructor
raises ``OsasisError``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PlainSerializer,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment.domains import check_rule
from nnunet_osasis.evaluation.metrics.protocol import METRICS
from nnunet_osasis.runtime.records import read_json
from nnunet_osasis.runtime.storage import sha256_of_json
from nnunet_osasis.runtime.validation import as_osasis_error, shown, validated
from nnunet_osasis.stylizer.names import READOUTS
from nnunet_osasis.synthetic.known_camera import KnownCamera, camera_from_json

DECIDING = ("dice", "iou", "dice_mean", "iou_mean", "s", "e_max", "e_mean", "e_adaptive", "nsd")
"""Metrics that may decide a verdict: they lie in [0, 1], are better when higher, and are defined for every case."""

IMAGENET = "imagenet"
"""Value of a network's ``weights`` that takes what this machine has of its encoder."""

MAX_PATTERN_LENGTH = 200
"""Largest number of characters of a group rule."""

MAX_PATTERN_REPEATS = 4
"""Largest number of repeats (``*``, ``+``, ``{}``) in a group rule."""

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def _settings(kind: type[T]) -> type[T]:
    """Make a class a frozen pydantic dataclass whose constructor raises ``OsasisError``, as reading a file does."""
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    made: Any = dataclass(kind, frozen=True, kw_only=True, config=config)
    construct = made.__init__

    def __init__(self: T, **values: Any) -> None:
        try:
            construct(self, **values)
        except ValidationError as error:
            raise as_osasis_error(error, made, what=kind.__name__) from error

    made.__init__ = __init__
    return made


def _check_groups(pattern: str | tuple[int, ...]) -> str | tuple[int, ...]:
    """Refuse a regular expression that is invalid, or that may take forever on some file name."""
    if isinstance(pattern, tuple):
        return pattern
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise OsasisError("groups must be a regular expression", found=f"{shown(pattern)}: {error}") from error
    repeats = len(re.findall(r"(?<!\\)[*+]|\{\d*,\d*\}", pattern))
    if len(pattern) > MAX_PATTERN_LENGTH or repeats > MAX_PATTERN_REPEATS or re.search(r"\)(?:[*+]|\{)", pattern):
        raise OsasisError(
            f"a group rule has at most {MAX_PATTERN_LENGTH} characters and {MAX_PATTERN_REPEATS} repeats, "
            "and repeats no group",
            found=f"{pattern[:80]!r}",
            remedy=r"Such as ^(patient\d+).",
        )
    return pattern


Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9]+([_-][A-Za-z0-9]+)*$",
        max_length=64,
        description="at most 64 letters and digits with single - or _ between them",
    ),
]
"""Names of networks, targets and methods: they become parts of file names, joined by ``@`` and double underscores."""

Count = Annotated[StrictInt, Field(ge=1, description="a whole number of at least 1")]

Share = Annotated[StrictFloat, Field(ge=0, le=1, description="a number in [0, 1]")]

SOME = Field(min_length=1, description="a list of at least one")


@_settings
class ImageSet:
    """Images and masks of one site.

    Attributes:
        images: folder, relative to the data folder.
        masks: folder, relative to the data folder; masks and images of one name without suffix belong together.
        include: names without suffix, numeric ranges (``"1-178"``) or shell patterns (``"*_test"``); empty takes all.
        every: take every n-th of them (videos).
        where: bounds on a color statistic of the background, see ``domains.py``: divides one folder into two domains.
        groups: what belongs together: a regular expression whose first group (or whole match) names a patient, or a
            list of the numbers at which sequences begin. Empty: every image for itself.
        gray: whether images of three channels are made one.

    >>> ImageSet(images="a/images", masks="a/masks", include=("1-40",)).every
    1
    """

    images: str
    masks: str
    include: Annotated[tuple[str, ...], Field(description="a list of texts")] = ()
    every: Count = 1
    where: Annotated[dict[str, Any], AfterValidator(check_rule)] = Field(default_factory=dict)
    groups: Annotated[
        str | tuple[StrictInt, ...],
        AfterValidator(_check_groups),
        Field(description="a regular expression or a list of whole numbers"),
    ] = ()
    gray: bool = False


def _camera(values: Any) -> KnownCamera | None:
    return values if values is None or isinstance(values, KnownCamera) else camera_from_json(values)


def _camera_json(camera: KnownCamera | None) -> dict[str, Any] | None:
    return None if camera is None else {key: value for key, value in camera.to_json().items() if value is not None}


@_settings
class Target:
    """A second site: either a set of its own, or a camera through which the source's images are seen (known truth).

    Attributes:
        name: unique among the targets.
        set: images and masks; only the reference is looked at before the scoring.
        camera: a camera model; the target's test images are then the source's test images through it, and its
            reference is one image of ``reference_pool`` through it.
        reference_pool: source-site images that are in neither split (camera targets only).
        reference: name of the reference image; None chooses it by the rule, without masks.
        twins: folder of the training cases as the scanner of ``set`` shows them, paired by file name (known truth).
    """

    name: Name
    set: ImageSet | None = None
    camera: Annotated[InstanceOf[KnownCamera] | None, BeforeValidator(_camera), PlainSerializer(_camera_json)] = None
    reference_pool: ImageSet | None = None
    reference: str | None = None
    twins: str | None = None

    @property
    def has_truth(self) -> bool:
        """Whether the training images are known as this site shows them."""
        return self.camera is not None or self.twins is not None

    @model_validator(mode="after")
    def _check(self) -> Target:
        if self.name == "source":
            raise OsasisError("a target must not be called source: that is the in-domain test")
        if (self.set is None) == (self.camera is None):
            raise OsasisError("a target is either a set or a camera", found=f"target {self.name}")
        if self.camera is not None and self.twins is not None:
            raise OsasisError("a camera target makes its own twins", found=self.twins, remedy="Leave twins out.")
        if self.camera is not None and self.reference_pool is None:
            raise OsasisError(
                "a camera target needs a reference_pool: source images in neither split, one of which is the reference",
                found=f"target {self.name}",
            )
        return self


@_settings
class NetworkSpec:
    """A network by name: ``unet`` (nnU-Net's), ``unetpp``, ``pranet``, any of MONAI, or a U-Net on an encoder of timm.

    Attributes:
        name: unique among the networks.
        monai: class name in ``monai.networks.nets``, for other names than those three.
        encoder: name of a timm model, which makes it a U-Net on that encoder; ``unet`` or a free name.
        weights: of the encoder: ``imagenet`` (what this machine has; nothing is downloaded), the path of a file, or
            None, which starts at random.
        arguments: constructor arguments that differ from the default.

    >>> NetworkSpec(name="unet", encoder="tf_efficientnet_lite0", weights="imagenet").weights
    'imagenet'
    """

    name: Name
    monai: str | None = None
    encoder: str | None = None
    weights: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> NetworkSpec:
        if self.encoder is None and self.weights is not None:
            raise OsasisError(
                "weights are those of a network's encoder",
                found=f"{self.weights} for {self.name} without one",
                remedy='Name it: {"name": "unet", "encoder": "tf_efficientnet_lite0", "weights": "imagenet"}.',
            )
        if self.encoder is not None and (self.monai is not None or self.name in ("unetpp", "pranet")):
            raise OsasisError(
                "encoder makes a U-Net: it excludes monai, and the names unetpp and pranet", found=self.name
            )
        return self


@_settings
class Budget:
    """How long every training is, the same for every method.

    Attributes:
        engine: ``light`` (one small loop for any network) or ``nnunet`` (``nnUNetv2_train`` itself).
        side: images are reduced so that the longer side is no more than this, in pixels.
        patch: side of a training patch, in pixels.
        iterations: steps of the light engine.
        batch_size: patches per step of the light engine.
        learning_rate: of the light engine (AdamW, polynomial decay).
        trainer_length: suffix of nnU-Net's trainers, such as ``5epochs``.
        features: widths of nnU-Net's U-Net, from the top.
        probability: probability with which a training image is drawn stylized or augmented.
        precision: ``fp32`` or ``bf16`` (autocast), of the light engine.

    >>> Budget(iterations=100).engine
    'light'
    """

    engine: Annotated[Literal["light", "nnunet"], Field(description="light or nnunet")] = "light"
    side: Count = 96
    patch: Count = 96
    iterations: Count = 400
    batch_size: Count = 8
    learning_rate: Annotated[StrictFloat, Field(gt=0, lt=1, description="a number between 0 and 1")] = 2e-3
    trainer_length: str = "5epochs"
    features: Annotated[tuple[Count, ...], Field(description="a list of whole numbers of at least 1")] = (
        16, 32, 64, 128,
    )  # fmt: skip
    probability: Share = 0.5
    precision: Annotated[Literal["fp32", "bf16"], Field(description="fp32 or bf16")] = "fp32"

    @model_validator(mode="after")
    def _check(self) -> Budget:
        least = 2 if self.engine == "light" else 3
        if len(self.features) < least and (self.engine == "light" or self.features):
            raise OsasisError(f"the budget's features must be {least} or more widths", found=self.features)
        idle = ("iterations", "learning_rate", "precision") if self.engine == "nnunet" else ("trainer_length",)
        defaults = {item.name: item.default for item in fields(self)}
        if unused := [name for name in idle if getattr(self, name) != defaults[name]]:
            raise OsasisError(
                f"the {self.engine} engine has no use for some options of the budget",
                found=", ".join(unused),
                remedy="Remove them.",
            )
        return self


@_settings
class StylizerSpec:
    """How stylizers are made when a method needs one: options of ``osasis-pretrain-stylizer``.

    Attributes:
        preset: name of the preset.
        iterations: steps of the pretraining; None takes the preset's.
        minutes: time for making a stylizer with networks, instead of ``iterations``.
        adapt_iterations: steps of the adaptation; None takes the preset's.
        calibrator_iterations: steps of the calibrator; None takes the preset's.
        seed: of the training.
    """

    preset: str = "tiny"
    iterations: StrictInt | None = None
    minutes: StrictFloat | None = None
    adapt_iterations: StrictInt | None = None
    calibrator_iterations: StrictInt | None = None
    seed: StrictInt = 0


@plain_dataclass(frozen=True)
class Kind:
    """What a kind of method is.

    Attributes:
        label: for people.
        role: ``baseline``, ``check`` (its answer is known beforehand), ``control`` (free) or ``stylizer``.
        reference: whether it sees the target's one reference image, and so exists once per target.
        parameters: names of its parameters.
    """

    label: str
    role: str
    reference: bool
    parameters: tuple[str, ...] = ()


LOSSES = ("osasis", "paper")
"""Values of the parameter ``losses`` of the stylizer."""

KINDS: dict[str, Kind] = {
    "none": Kind("no style transfer", "baseline", False),
    "identity": Kind("identity (must change nothing)", "check", False),
    "truth": Kind("true target rendering (upper bound)", "check", True),
    "histogram_matching": Kind("histogram matching", "control", True, ("strength",)),
    "reinhard": Kind("Reinhard per image", "control", True, ("strength",)),
    "pooled_reinhard": Kind("pooled Reinhard", "control", True, ("strength",)),
    "fda": Kind("FDA", "control", True, ("beta", "strength")),
    "gin": Kind("GIN", "control", False),
    "colour_jitter": Kind("color jitter", "control", False),
    "histogram_shift": Kind("random histogram shift", "control", False),
    "da5": Kind("nnU-Net's DA5", "control", False),
    "osasis": Kind("OSASIS", "stylizer", True, ("losses", "readout", "strength")),
}
"""The kinds of methods an experiment may compare, by their name in the file."""


@_settings
class MethodSpec:
    """One method of an experiment.

    Attributes:
        name: unique among the methods.
        kind: a name of :data:`KINDS`.
        parameters: such as ``strength``; the kind says which ones.

    >>> MethodSpec(name="weak", kind="fda", parameters={"strength": 0.5}).label
    'FDA (strength 0.5)'
    """

    name: Name
    kind: Annotated[str, Field(description=f"one of {', '.join(KINDS)}")]
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> MethodSpec:
        if self.kind not in KINDS:
            raise OsasisError(
                "the kind of a method must be known", found=shown(self.kind), remedy=f"Known: {', '.join(KINDS)}."
            )
        known = KINDS[self.kind].parameters
        if unknown := sorted(set(self.parameters) - set(known)):
            raise OsasisError(
                f"the method {self.name} has unknown parameters",
                found=", ".join(unknown),
                remedy=f"Known for {self.kind}: {', '.join(known) or 'none'}.",
            )
        for key, value in self.parameters.items():
            _check_parameter(self.name, key, value)
        return self

    @property
    def role(self) -> str:
        """``baseline``, ``check``, ``control`` or ``stylizer``."""
        return KINDS[self.kind].role

    @property
    def needs_reference(self) -> bool:
        """Whether it is made anew for every target."""
        return KINDS[self.kind].reference

    @property
    def parts(self) -> tuple[MethodSpec, ...]:
        """The method once for each of its read-outs: ``combined+raw`` are two, which share the images."""
        names = str(self.parameters.get("readout", "")).split("+")
        if len(names) < 2:
            return (self,)
        return tuple(replace(self, parameters={**self.parameters, "readout": name}) for name in names)

    @property
    def label(self) -> str:
        """The kind's label and the parameters, for people."""
        text = ", ".join(f"{key} {value}" for key, value in self.parameters.items())
        return f"{KINDS[self.kind].label} ({text})" if text else KINDS[self.kind].label

    @classmethod
    def from_json(cls, values: Any) -> MethodSpec:
        """Read ``"name"`` or ``{"name": ..., "kind": ..., parameters...}``; without ``kind`` the name is the kind.

        Raises:
            OsasisError: for an unknown kind or parameter.
        """
        return validated(cls, _method(values), what="The method")


def _method(values: Any) -> Any:
    """Gather the parameters that stand beside a method's name and kind."""
    if isinstance(values, MethodSpec):
        return values
    values = {"name": values} if isinstance(values, str) else values
    if not isinstance(values, Mapping) or "name" not in values:
        raise OsasisError("a method needs a name", found=shown(values))
    parameters = values.get("parameters", {})
    if not isinstance(parameters, Mapping):
        raise OsasisError("the parameters of a method must be an object", found=shown(parameters))
    beside = {key: value for key, value in values.items() if key not in ("name", "kind", "parameters")}
    return {
        "name": values["name"],
        "kind": values.get("kind", values["name"]),
        "parameters": {**parameters, **beside},
    }


def _check_parameter(method: str, key: str, value: Any) -> None:
    if key in ("strength", "beta"):
        highest = 1 if key == "strength" else 0.5
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= highest:
            raise OsasisError(f"{key} of the method {method} must be a number in [0, {highest}]", found=shown(value))
        return
    known = READOUTS if key == "readout" else LOSSES
    parts = str(value).split("+") if key == "readout" else [str(value)]
    if not isinstance(value, str) or not set(parts) <= set(known) or len(set(parts)) < len(parts):
        raise OsasisError(f"{key} of the method {method} must be one of {', '.join(known)}", found=shown(value))


def _network(values: Any) -> Any:
    return {"name": values} if isinstance(values, str) else values


@_settings
class Experiment:
    """Everything that decides the result; equal experiments on equal data give equal rows on a CPU.

    Attributes:
        name: for people.
        train: training images of the source site.
        test: in-domain test images of the source site.
        targets: sites to test on.
        networks: what is trained.
        methods: what is compared; the first one trains without any change.
        seeds: one training per seed.
        budget: how long every training is.
        stylizer: how stylizers are made.
        metrics: names of ``evaluation.metrics`` to score per case; the first one decides the verdict.
        tolerance: of the normalized surface distance, in pixels.
        note: free text.
    """

    name: str
    train: ImageSet
    test: ImageSet
    targets: Annotated[tuple[Target, ...], SOME]
    networks: Annotated[tuple[Annotated[NetworkSpec, BeforeValidator(_network)], ...], SOME]
    methods: Annotated[tuple[Annotated[MethodSpec, BeforeValidator(_method)], ...], SOME]
    seeds: Annotated[
        tuple[Annotated[StrictInt, Field(ge=0, lt=2**32)], ...],
        Field(min_length=1, description="whole numbers of at least 0 and below 2**32, in a list of at least one"),
    ] = (0, 1, 2)
    budget: Budget = Field(default_factory=Budget)
    stylizer: StylizerSpec = Field(default_factory=StylizerSpec)
    metrics: Annotated[tuple[str, ...], Field(description="a list of names of metrics")] = (
        "dice", "iou", "specificity", "wf", "s", "e_mean", "mae", "hd95", "nsd",
    )  # fmt: skip
    tolerance: Annotated[StrictFloat, Field(ge=0, description="a number of pixels of at least 0")] = 2.0
    note: str = ""

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        for what in ("targets", "networks", "methods", "seeds", "metrics"):
            names = [getattr(part, "name", part) for part in getattr(self, what)]
            if len(set(names)) < len(names):
                raise OsasisError(f"an experiment's {what} must differ", found=names, remedy="Name each once.")
        if self.methods[0].kind != "none":
            raise OsasisError(
                "the first method must be none: everything is compared with it", found=self.methods[0].name
            )
        kinds = [method.kind for method in self.methods if not method.parameters]
        if doubled := {kind for kind in kinds if kinds.count(kind) > 1}:
            raise OsasisError("a method without parameters must not be there twice", found=sorted(doubled))
        if unknown := [name for name in self.metrics if name not in METRICS]:
            raise OsasisError("metrics must be known", found=unknown, remedy=f"Known: {', '.join(METRICS)}.")
        if not self.metrics or self.metrics[0] not in DECIDING:
            raise OsasisError(
                "the first metric decides the verdict: better when higher, in [0, 1], always defined",
                found=list(self.metrics),
                remedy=f"Begin with one of {', '.join(DECIDING)}.",
            )
        return self

    @property
    def baseline(self) -> str:
        """Name of the method that trains without any change."""
        return self.methods[0].name

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values that :func:`experiment_from_json` reads back."""
        values: dict[str, Any] = TypeAdapter(Experiment).dump_python(self, mode="json", exclude_none=True)
        return values

    @property
    def sha256(self) -> str:
        """Hash of everything but the note."""
        return sha256_of_json({key: value for key, value in self.to_json().items() if key != "note"})


def load_experiment(path: str | Path) -> Experiment:
    """Read an experiment file.

    Raises:
        OsasisError: names the key that is missing, unknown or of a wrong value.
    """
    return experiment_from_json(read_json(path, what="The experiment file"))


def experiment_from_json(values: Any) -> Experiment:
    """Build an :class:`Experiment` from JSON values, see :func:`load_experiment`."""
    return validated(Experiment, values, what="The experiment")
