"""The one-pass student: a small network that predicts, from a small copy of an image, where which color changes how.

It sees the image at the teacher's size, whatever size the image has, and predicts a field of affine color maps (a slope
and an offset for every neighborhood), the form in which ``local_affine`` carries the teacher's own change.
The field is interpolated and applied to the image's pixels, so that every edge of the result is an edge of the
original. Of the forms that were tried, this one came nearest to the teacher (``benchmarks/speed/student_designs.py``).
"""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F

from nnunet_osasis.maps.resize import resample

LARGEST = 128
"""Largest side in pixels that a student sees: the time of a pass is for the image's own pixels."""

NEIGHBORS = 2
"""Number of slices to either side that a volume's field is averaged over, as the teacher fits its maps."""

PART = 8
"""Number of images whose fields are laid out at full size at once."""


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x)


class FieldNetwork(nn.Module):
    """A small U-Net from ``(B, C, S, S)`` in [-1, 1] to ``(B, outputs, S / 2, S / 2)``; zero before training.

    The mean of its deepest features is added everywhere: style is a matter of the whole picture.
    """

    def __init__(self, channels: int, outputs: int, width: int) -> None:
        super().__init__()
        a, b, c = width, 2 * width, 4 * width
        self.first = nn.Conv2d(channels, a, 3, padding=1)
        self.at_half = nn.Sequential(nn.SiLU(), nn.Conv2d(a, b, 3, stride=2, padding=1), _Residual(b))
        self.at_quarter = nn.Sequential(nn.SiLU(), nn.Conv2d(b, c, 3, stride=2, padding=1), _Residual(c))
        self.at_eighth = nn.Sequential(nn.SiLU(), nn.Conv2d(c, c, 3, stride=2, padding=1), _Residual(c))
        self.whole = nn.Sequential(nn.Linear(c, c), nn.SiLU(), nn.Linear(c, c))
        self.deep = _Residual(c)
        self.to_quarter = nn.Sequential(nn.Conv2d(2 * c, c, 1), _Residual(c))
        self.to_half = nn.Sequential(nn.Conv2d(c + b, b, 1), _Residual(b))
        self.last = nn.Conv2d(b, outputs, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, small: torch.Tensor) -> torch.Tensor:
        half = self.at_half(self.first(small))
        quarter = self.at_quarter(half)
        deep = self.at_eighth(quarter)
        deep = self.deep(deep + self.whole(deep.mean(dim=(2, 3)))[:, :, None, None])
        up = self.to_quarter(torch.cat([resample(deep, quarter.shape[-2], quarter.shape[-1]), quarter], dim=1))
        return self.last(F.silu(self.to_half(torch.cat([resample(up, half.shape[-2], half.shape[-1]), half], dim=1))))


class LocalAffineStudent(nn.Module):
    """The student of one direction: ``(B, C, H, W)`` in [-1, 1] of any size to the changed image, not clipped."""

    def __init__(self, channels: int, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        self.field = FieldNetwork(channels, channels * (channels + 1), width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return apply_field(self.field(resample(images, self.size, self.size)), images)

    def stack(self, images: torch.Tensor) -> torch.Tensor:
        """Restyle the slices of a volume ``(D, C, H, W)``, in order: a field is the mean over neighboring slices."""
        field = torch.cat([self.field(resample(part, self.size, self.size)) for part in images.split(PART)])
        rows = field.flatten(1).T[:, None]
        mean = F.avg_pool1d(rows, 2 * NEIGHBORS + 1, stride=1, padding=NEIGHBORS, count_include_pad=False)
        field = mean[:, 0].T.reshape(field.shape)
        parts = zip(field.split(PART), images.split(PART), strict=True)
        return torch.cat([apply_field(*part) for part in parts])


def apply_field(field: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Add ``A images + b`` to ``images`` ``(B, C, H, W)``, ``A`` and ``b`` from a field ``(B, C * C + C, h, w)``."""
    channels = images.shape[1]
    field = resample(field, images.shape[-2], images.shape[-1])
    rows = []
    for o in range(channels):  # sums of products: no stack of C x C images is made
        row = images[:, o : o + 1] + field[:, channels * channels + o, None]
        for i in range(channels):
            row.addcmul_(field[:, o * channels + i, None], images[:, i : i + 1])
        rows.append(row)
    return torch.cat(rows, dim=1)


class Student(ModelMixin, ConfigMixin):
    """Both directions, each a network of its own; full strength.

    Args:
        channels: number of image channels.
        sample_size: side in pixels of the copy it sees.
        width: number of channels of its first layer.
        teacher: the read-out it was trained to imitate.
    """

    @register_to_config
    def __init__(
        self, channels: int = 3, sample_size: int = 64, width: int = 24, teacher: str = "local_affine"
    ) -> None:
        super().__init__()
        self.forth = LocalAffineStudent(channels, sample_size, width)
        self.back = LocalAffineStudent(channels, sample_size, width)

    def direction(self, *, backwards: bool) -> LocalAffineStudent:
        """Return the network of one direction."""
        return self.back if backwards else self.forth

    def restyle(self, images: torch.Tensor, *, backwards: bool = False, joint: bool = False) -> torch.Tensor:
        """Restyle a batch, not clipped.

        Args:
            images: ``(B, C, H, W)`` in [-1, 1] of any size, on any device.
            backwards: from the target's style to the source's.
            joint: the batch is the slices of one volume, in order.
        """
        network, parts = self.direction(backwards=backwards), images.to(self.device)
        restyled = network.stack(parts) if joint else torch.cat([network(part) for part in parts.split(PART)])
        return restyled.to(images)
