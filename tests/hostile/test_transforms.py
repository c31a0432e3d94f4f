"""MONAI transforms and controls, given what they should not be given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from specimens import draw

from monai_transforms import (
    OSASISStylize,
    OSASISStylized,
    RandOSASISStylize,
    RandOSASISStylized,
    RandStyleTransform,
    RandStyleTransformd,
    StyleTransform,
    StyleTransformd,
)
from nnunet_osasis import OSASISStylizer
from nnunet_osasis.controls import CONTROLS, GIN, WITH_REFERENCE, ColourJitter, FourierDomainAdaptation, HistogramShift

from nnunet_osasis.controls import Identity, PooledReinhard, RandomControl  # isort: skip

from .harness import Bad, bad

NAN, INF = float("nan"), float("inf")
IMAGE = draw(0)
ODD: tuple[Any, ...] = ("x", None, [1], {}, True, NAN, INF, -1, 2, 10**400)


def images() -> dict[str, Any]:
    """What is no image of three channels."""
    with_nan = IMAGE.astype(np.float32)
    with_nan[1, 3, 4] = NAN
    spaced = MetaTensor(torch.ones(3, 8, 8, 4), affine=torch.diag(torch.tensor([1.0, 1.0, NAN, 1.0])))
    return {
        "None": None, "a text": "picture", "bytes": b"picture", "a number": 3, "a list": [[[1.0]]],
        "a dictionary": {"a": 1},
        "a path": Path("a.png"), "a set": {1}, "a generator": (i for i in range(3)), "no axes": np.float32(3),
        "one axis": np.ones(3), "two axes": np.ones((8, 8)), "five axes": np.ones((3, 2, 2, 2, 2)),
        "no channels": np.ones((0, 8, 8)), "one channel": IMAGE[:1], "two channels": IMAGE[:2],
        "four channels": np.concatenate([IMAGE, IMAGE[:1]]), "channels last": np.ascontiguousarray(np.moveaxis(IMAGE,
        0, -1)),
        "no rows": np.ones((3, 0, 8)), "no columns": np.ones((3, 8, 0)), "no slices": np.ones((3, 8, 8, 0)),
        "one NaN": with_nan, "NaN": np.full((3, 8, 8), NAN), "infinity": np.full((3, 8, 8), INF),
        "a tensor of NaN": torch.full((3, 8, 8), NAN), "bfloat16 of NaN": torch.full((3, 8, 8), NAN,
        dtype=torch.bfloat16),
        "a volume of infinity": np.full((3, 8, 8, 2), -INF), "booleans": np.ones((3, 8, 8), bool),
        "a tensor of booleans": torch.ones((3, 8, 8), dtype=torch.bool), "complex numbers": np.ones((3, 8, 8), complex),
        "a complex tensor": torch.ones((3, 8, 8), dtype=torch.complex64), "objects": np.full((3, 8, 8), "x",
        dtype=object),
        "texts": np.full((3, 8, 8), "x"), "dates": np.zeros((3, 8, 8), "datetime64[s]"), "records": np.zeros((3, 8,
        8), "i4,f4"),
        "beyond 32 bits": IMAGE.astype(np.float64) * 1e300, "a MetaTensor without spacing": spaced,
        "a sparse tensor": torch.ones(3, 8, 8).to_sparse(), "a meta tensor": torch.ones(3, 8, 8, device="meta"),
    }  # fmt: skip


class Made:
    """One small stylizer and the transforms over it, made when first asked for."""

    stylizer: OSASISStylizer | None = None

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, image: Any) -> Any:
        stylizer = Made.stylizer
        assert stylizer is not None
        transforms: dict[str, Callable[[], Any]] = {
            "OSASISStylize": lambda: OSASISStylize(stylizer)(image),
            "OSASISStylized": lambda: OSASISStylized("image", stylizer)({"image": image}),
            "RandOSASISStylize": lambda: RandOSASISStylize(stylizer, prob=1, strength=1)(image),
            "RandOSASISStylized": lambda: RandOSASISStylized("image", stylizer, prob=1)({"image": image}),
            "StyleTransform": lambda: StyleTransform(GIN(3))(image),
            "StyleTransformd": lambda: StyleTransformd("image", ColourJitter(3))({"image": image}),
            "RandStyleTransform": lambda: RandStyleTransform(HistogramShift(3), prob=1)(image),
            "RandStyleTransformd": lambda: RandStyleTransformd("image", GIN(3), prob=1)({"image": image}),
        }
        return transforms[self.kind]()


KINDS = (
    "OSASISStylize", "OSASISStylized", "RandOSASISStylize", "RandOSASISStylized", "StyleTransform", "StyleTransformd",
    "RandStyleTransform", "RandStyleTransformd",
)  # fmt: skip


def image_cases() -> list[Bad]:
    """Every transform meets every image."""

    def shown(kind: str, name: str) -> Callable[[Path], Callable[[], Any]]:
        return lambda folder: lambda: Made(kind)(images()[name])

    def fine(found: Any) -> None:
        assert found is not None

    cases = []
    for kind in KINDS:
        for name in images():
            # a control knows no units, so that a huge one stays one; spacing may be missing
            may = name in ("beyond 32 bits", "a MetaTensor without spacing")
            cases.append(Bad(f"{kind} of {name}", shown(kind, name), fine if may else None, refusable=may))
    return cases


def option_cases() -> list[Bad]:
    """Wrong options of the transforms."""
    wrong: dict[str, tuple[Any, ...]] = {
        "strength": ("x", [1], {}, True, NAN, INF, -0.1, 1.1, 10**400),
        "direction": ("sideways", None, 3, []), "readout": ("magic", 3, [], ["pair"]),
        "slice_axis": ("x", None, 3, -4, True, 1.0, [0]), "axes": ("zyx", None, 3, []), "batched": ("x", None, 3),
        "device": ("abacus", "cuda:99", "cpu:7", 3, "", "cuda:-1"),
    }  # fmt: skip

    def stylize(**options: Any) -> Callable[[Path], Callable[[], Any]]:
        def use() -> Any:
            assert Made.stylizer is not None
            return OSASISStylize(Made.stylizer, **options)(IMAGE)

        return lambda folder: use

    def rand(**options: Any) -> Callable[[Path], Callable[[], Any]]:
        return lambda folder: lambda: RandStyleTransform(GIN(3), **options)(IMAGE)

    cases = [Bad(f"OSASISStylize, {k} = {v!r:.30}", stylize(**{k: v})) for k, values in wrong.items() for v in values]
    cases += [Bad(f"RandStyleTransform, prob = {v!r:.30}", rand(prob=v)) for v in ODD if v is not True]
    cases += [
        Bad(f"RandStyleTransform, strength = {v!r:.40}", rand(strength=v, prob=1))
        for v in ("x", None, [], (1,), (1, 0), (0, 2), (0, 1, 1), (NAN, 1), ("a", "b"), (0, None), {}, 10**400)
    ]
    cases += [
        Bad(f"StyleTransform of {name}", lambda folder, v=v: lambda: StyleTransform(v)(IMAGE))
        for name, v in (("text", "x"), ("None", None), ("3", 3), ("a class", GIN), ("an object", object()))
    ]
    for v in ("", "nowhere", "a\0b", "x" * 300, None, 3, b"s", Path("nowhere"), []):
        cases.append(Bad(f"OSASISStylize of the folder {v!r:.30}", lambda folder, v=v: lambda: OSASISStylize(v)(IMAGE)))
    cases += [
        Bad(f"seeds and strengths: {o}", lambda folder, o=o: lambda: StyleTransform(GIN(3))(IMAGE, **o))
        for o in ({"strength": [1, 1]}, {"strength": "x"}, {"strength": NAN}, {"seeds": [1, 2]}, {"seeds": [-1]},
            {"seeds": ["a"]})
    ]  # fmt: skip
    return cases


def control_cases() -> list[Bad]:
    """The controls themselves."""

    def make(kind: type, **options: Any) -> Callable[[Path], Callable[[], Any]]:
        return lambda folder: lambda: kind(3, **options).stylize_array(IMAGE)

    wrong: dict[type, dict[str, tuple[Any, ...]]] = {
        GIN: {"layers": (0, -1, "x", None, 1.5, NAN), "width": (0, "x", 2.5), "alpha": ((-1, 1), (0, 2), (1, 0), "x",
            None, (NAN, 1), (0,)),
              "seed": (-1, "x", None, 1.5)},
        ColourJitter: {"brightness": (-0.1, 1.1, NAN, "x", None), "contrast": (2, None), "saturation": (-1,),
            "hue": (0.6, NAN, "x"),
                       "gamma": ((0, 1), (-1, 1), (2, 1), "x", (NAN, 1), None)},
        HistogramShift: {"control_points": (2, 0, -1, "x", None, NAN, 2.5)},
    }  # fmt: skip
    cases = [
        Bad(f"{kind.__name__}, {key} = {value!r:.30}", make(kind, **{key: value}))
        for kind, fields in wrong.items()
        for key, values in fields.items()
        for value in values
    ]
    for kind in (Identity, GIN, ColourJitter, HistogramShift):
        for channels in (0, -1, "x", None, 2.5, True):
            cases.append(
                Bad(
                    f"{kind.__name__} of {channels!r} channels",
                    lambda f, k=kind, c=channels: lambda: k(c).stylize_array(IMAGE),
                )
            )
    for kind in (GIN, ColourJitter, *WITH_REFERENCE):
        if kind is PooledReinhard:
            continue
        for limits in ((1, 0), ("a", "b"), (NAN, 1), (0,), "x", 3, (0, INF)):
            first = 3 if issubclass(kind, RandomControl) else IMAGE
            cases.append(
                Bad(
                    f"{kind.__name__} in the range {limits}",
                    lambda f, k=kind, a=first, r=limits: lambda: k(a, value_range=r).stylize_array(IMAGE),
                )
            )
    for beta in (-0.1, 0.6, NAN, "x", None, INF):
        cases.append(
            Bad(
                f"FDA, beta = {beta}",
                lambda f, b=beta: lambda: FourierDomainAdaptation(IMAGE, beta=b).stylize_array(IMAGE),
            )
        )
    for kind in WITH_REFERENCE:
        for name in (
            "None",
            "a text",
            "a list",
            "two axes",
            "five axes",
            "no channels",
            "no rows",
            "NaN",
            "infinity",
            "objects",
        ):
            fit = PooledReinhard.fit if kind is PooledReinhard else None

            def use(k: Any = kind, n: str = name, fit: Any = fit) -> Any:
                reference = images()[n]
                return (fit([IMAGE], reference) if fit else k(reference)).stylize_array(IMAGE)

            cases.append(Bad(f"{kind.__name__} with a reference of {name}", lambda f, u=use: u))
    for name in (
        "None",
        "a text",
        "a list",
        "a number",
        "two axes",
        "one channel",
        "NaN",
        "no rows",
        "objects",
        "complex numbers",
    ):
        for kind in CONTROLS:

            def meet(k: Any = kind, n: str = name) -> Any:
                control = PooledReinhard.fit([IMAGE], IMAGE) if k is PooledReinhard else None
                control = control or k(IMAGE if k in WITH_REFERENCE else 3)
                return control.stylize_array(images()[n])

            cases.append(Bad(f"{kind.__name__} meets {name}", lambda f, m=meet: m))
    return cases


IMAGES, CHOICES, OWN = image_cases(), option_cases(), control_cases()
CASES = [*IMAGES, *CHOICES, *OWN]


@pytest.fixture(autouse=True)
def _one_stylizer(stylizer_folder: Path) -> None:
    if Made.stylizer is None:
        Made.stylizer = OSASISStylizer.from_pretrained(stylizer_folder)


@bad(IMAGES)
def test_a_transform_takes_images_only(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("transforms", case)


@bad(CHOICES)
def test_a_transform_refuses_wrong_options(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("transforms", case)


@bad(OWN)
def test_a_control_refuses_wrong_options_and_images(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("controls", case)
