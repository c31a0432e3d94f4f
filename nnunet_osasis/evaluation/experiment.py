"""One experiment as data: what is trained on what, with which methods, how often; read from one JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.cameras import KnownCamera, camera_from_json
from nnunet_osasis.evaluation.method_list import MethodSpec
from nnunet_osasis.storage import read_json, sha256_of_json


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


@dataclass(frozen=True, kw_only=True)
class StylizerSpec:
    """How stylizers are made when a method needs one: options of ``osasis-pretrain-stylizer``."""

    preset: str = "tiny"
    iterations: int | None = None
    adapt_iterations: int | None = None


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
            ("seeds", list(self.seeds)),
        ):
            if not names or len(set(names)) < len(names):
                raise OsasisError(f"An experiment's {what} must be named, each once", found=names)
        if self.methods[0].kind != "none":
            raise OsasisError(
                "The first method must be none: everything is compared with it", found=self.methods[0].name
            )
        if "source" in {target.name for target in self.targets}:
            raise OsasisError("A target must not be called source: that is the in-domain test")

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


def load_experiment(path: str | Path) -> Experiment:
    """Read an experiment file. Raises ``OsasisError`` naming the key that is missing, unknown or of a wrong type."""
    return experiment_from_json(read_json(path, what="The experiment file"))


def experiment_from_json(values: Mapping[str, Any]) -> Experiment:
    """Build an :class:`Experiment` from JSON values."""
    values = dict(values)
    for key in ("train", "test"):
        if isinstance(values.get(key), Mapping):
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
    return _build(Experiment, values, "the experiment")


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
    """``kind(**values)`` with lists as tuples, unknown keys and wrong basic types refused."""
    values = _mapping(values, where)
    known = {item.name: item for item in fields(kind)}
    if unknown := sorted(set(values) - set(known)):
        raise OsasisError(f"{where}: unknown keys", found=", ".join(unknown), remedy=f"Known: {', '.join(known)}.")
    wanting = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in values]
    if wanting:
        raise OsasisError(f"{where}: every required key must be there", found=f"no {', '.join(wanting)}")
    for name, value in values.items():
        default = known[name].default
        if isinstance(default, bool | int | float | str) and value is not None:
            number = isinstance(default, float) and isinstance(value, int | float)
            if not (number or type(value) is type(default)):
                raise OsasisError(
                    f"{where}: {name} must be of type {type(default).__name__}", found=repr(value), remedy="Correct it."
                )
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value
