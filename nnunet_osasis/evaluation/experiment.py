"""One experiment as data: what is trained on what, with which methods, how often; one JSON file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.domains import check_rule
from nnunet_osasis.evaluation.method_list import MethodSpec
from nnunet_osasis.metrics.definitions import METRICS
from nnunet_osasis.runtime.storage import sha256_of_json
from nnunet_osasis.synthetic.known_camera import KnownCamera

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
        metrics: what is scored per case, names of ``nnunet_osasis.metrics``; the first one decides the verdict.
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
