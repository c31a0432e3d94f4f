"""The colour maps of ``estimates.PixelMap`` as torch modules: their numbers are buffers, which move to a device.

The maps themselves are plain numbers and make tensors of them on every call, which on a GPU is a copy from the host
each time, and which an exporter cannot follow. On a CPU most of the time goes to memory, so that what is a module's own
is worked on in place. The formulas here are those of ``parametric_map``, ``moment_map``, ``readout`` and
``color_space``; the tests hold the two forms together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.maps.base import ColorMap, MeanMap, PixelMap
from nnunet_osasis.maps.color import _TO_XYZ, _WHITE, GREY_SCALE
from nnunet_osasis.maps.moments import MomentMap
from nnunet_osasis.maps.parametric import KNOTS, ParametricMap


def map_module(one: PixelMap) -> nn.Module:
    """A module ``(B, C, H, W)`` to ``(B, C, H, W)`` in [-1, 1], not clipped, that computes ``one``.

    Raises ``OsasisError`` for a map of another kind.
    """
    for kind, module in _MODULES.items():
        if isinstance(one, kind):
            return module(one)
    raise OsasisError("A map must be of a known kind", found=type(one).__name__, remedy=f"Known: {list(_MODULES)}.")


class _Affine(nn.Module):
    """``ColorMap``: ``matrix x + offset``."""

    matrix: torch.Tensor
    offset: torch.Tensor

    def __init__(self, one: ColorMap) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.tensor(one.matrix, dtype=torch.float64).float())
        self.register_buffer("offset", torch.tensor(one.offset, dtype=torch.float64).float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return _mix(self.matrix, images).add_(self.offset[:, None, None])


class _Parametric(nn.Module):
    """``ParametricMap``: ``x + coefficients . features(x, place)``, summed term by term.

    A stack of all features would be several times the image; a term that depends on the place is one affine map.
    """

    low: torch.Tensor
    high: torch.Tensor
    knots: torch.Tensor
    matrix: torch.Tensor
    offset: torch.Tensor
    quadratic: torch.Tensor
    tone: torch.Tensor

    def __init__(self, one: ParametricMap) -> None:
        super().__init__()
        self.terms, channels = one.terms, len(one.low)
        table = torch.tensor(one.coefficients, dtype=torch.float64).float()
        self.register_buffer("low", torch.tensor(one.low)[:, None, None])
        self.register_buffer("high", torch.tensor(one.high)[:, None, None])
        self.register_buffer("knots", torch.linspace(-1, 1, KNOTS))
        columns = iter(table.split(1, dim=1))

        def take(count: int) -> torch.Tensor:
            return torch.cat([next(columns) for _ in range(count)], dim=1)

        self.register_buffer("matrix", take(channels))
        self.register_buffer("offset", take(1)[:, :, None])
        if "quadratic" in self.terms:
            self.register_buffer("quadratic", take(channels * (channels + 1) // 2))
        if "tone" in self.terms:
            self.register_buffer("tone", take(channels * KNOTS))
        for name in _place_names(self.terms):
            self.register_buffer(f"{name}_offset", take(1)[:, :, None])
            self.register_buffer(f"{name}_matrix", take(channels))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        known = torch.minimum(torch.maximum(images, self.low), self.high)
        change = _mix(self.matrix, known).add_(self.offset)
        channels = self.matrix.shape[0]
        if "quadratic" in self.terms:
            pairs = [(i, j) for i in range(channels) for j in range(i, channels)]
            for column, (i, j) in enumerate(pairs):
                product = known[:, i : i + 1] * known[:, j : j + 1]
                change.addcmul_(self.quadratic[:, column, None, None], product)
        if "tone" in self.terms:
            for i in range(channels):
                for k in range(KNOTS):
                    hat = (1 - (known[:, i : i + 1] - self.knots[k]).abs() * ((KNOTS - 1) / 2)).clamp(min=0)
                    change.addcmul_(self.tone[:, i * KNOTS + k, None, None], hat)
        if names := _place_names(self.terms):
            where = _places(known)
            for name in names:
                matrix, offset = self.get_buffer(f"{name}_matrix"), self.get_buffer(f"{name}_offset")
                change.addcmul_(where[name], _mix(matrix, known).add_(offset))
        return change.add_(images)


class _Moments(nn.Module):
    """``MomentMap``: means and deviations of CIELAB, or of the values of images that are not colour."""

    scale: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor
    to_xyz: torch.Tensor
    from_xyz: torch.Tensor

    def __init__(self, one: MomentMap) -> None:
        super().__init__()

        def column(values: tuple[float, ...]) -> torch.Tensor:
            return torch.tensor(values)[:, None, None]

        self.register_buffer("scale", column(one.target_std) / column(one.source_std))
        self.register_buffer("before", column(one.source_mean))
        self.register_buffer("after", column(one.target_mean))
        self.colour = len(one.source_mean) == 3
        matrix = torch.tensor(_TO_XYZ) / torch.tensor(_WHITE)[:, None]
        exact = torch.tensor(_TO_XYZ, dtype=torch.float64) / torch.tensor(_WHITE, dtype=torch.float64)[:, None]
        self.register_buffer("to_xyz", matrix)
        self.register_buffer("from_xyz", torch.linalg.inv(exact).float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.colour:
            moved = (images * GREY_SCALE).sub_(self.before).mul_(self.scale).add_(self.after)
            return moved.div_(GREY_SCALE).clamp_(-1, 1)
        return self._to_rgb(self._to_lab(images).sub_(self.before).mul_(self.scale).add_(self.after))

    def _to_lab(self, images: torch.Tensor) -> torch.Tensor:
        v = images.clamp(-1, 1).add_(1).div_(2)
        bent = v.clamp(min=0.04).add_(0.055).div_(1.055).pow_(2.4)
        light = torch.where(v <= 0.04045, v / 12.92, bent)
        xyz = _mix(self.to_xyz, light)
        f = torch.where(xyz > 0.008856, xyz.clamp(min=0.008).pow_(1 / 3), (7.787 * xyz).add_(16 / 116))
        x, y, z = f.split(1, dim=1)
        return torch.cat([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)

    def _to_rgb(self, lab: torch.Tensor) -> torch.Tensor:
        lightness, a, b = lab.split(1, dim=1)
        y = (lightness + 16) / 116
        f = torch.cat([y + a / 500, y, y - b / 200], dim=1)
        xyz = torch.where(f > 0.2068966, f.pow(3), (f - 16 / 116).div_(7.787))
        light = _mix(self.from_xyz, xyz).clamp_(0, 1)
        bent = light.clamp(min=1e-3).pow_(1 / 2.4).mul_(1.055).sub_(0.055)
        v = torch.where(light <= 0.0031308, light * 12.92, bent)
        return v.clamp_(0, 1).mul_(2).sub_(1)


class _Mean(nn.Module):
    """``MeanMap``: ``x + confidence * mean_k(f_k(x) - x)``."""

    def __init__(self, one: MeanMap) -> None:
        super().__init__()
        self.maps = nn.ModuleList(map_module(part) for part in one.maps)
        self.confidence = float(one.confidence)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(images)
        for one in self.maps:
            total.add_(one(images).clamp_(-1, 1).sub_(images))
        return total.mul_(self.confidence / len(self.maps)).add_(images)


_MODULES: dict[type, type[nn.Module]] = {
    ColorMap: _Affine,
    ParametricMap: _Parametric,
    MomentMap: _Moments,
    MeanMap: _Mean,
}


def _mix(matrix: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """``matrix`` ``(O, I)`` over the channels of ``(B, I, H, W)``; sums of products, which autocast leaves in fp32."""
    mixed = matrix[:, 0, None, None] * images[:, :1]
    for i in range(1, matrix.shape[1]):
        mixed.addcmul_(matrix[:, i, None, None], images[:, i : i + 1])
    return mixed


def _place_names(terms: tuple[str, ...]) -> list[str]:
    """The places that a map's terms multiply, in the order of its coefficients."""
    return (["radius"] if "radial" in terms else []) + (["column", "row"] if "field" in terms else [])


def _places(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """``parametric_map.places`` on the images' device: rows and columns from -1 to 1, squared radius 1 in corners."""

    def axis(size: int) -> torch.Tensor:
        step: Any = 2 / torch.sym_max(size - 1, 1)  # max as exporters understand it
        return torch.arange(size, device=images.device, dtype=images.dtype) * step - 1

    row, column = axis(images.shape[-2])[:, None], axis(images.shape[-1])[None, :]
    return {"radius": (row * row + column * column) / 2, "column": column, "row": row}
