"""The structure loss of PraNet, first in F3Net (Wei et al., AAAI 2020): weighted cross entropy and weighted IoU.

With g the truth, p the probability and ``w = 1 + gain * |mean of g around a pixel - g|``, per image:
``sum(w * CE) / sum(w) + 1 - (sum(w p g) + 1) / (sum(w p) + sum(w g) - sum(w p g) + 1)``.

The authors' published code asks torch for ``reduce='none'``, which torch takes for the mean, so that its cross entropy
is not weighted; here it is, as the papers write it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from nnunet_osasis.errors import OsasisError


class StructureLoss(nn.Module):
    """Weighted cross entropy plus weighted IoU: errors near boundaries cost more. Targets are nnU-Net's.

    Classes (``regions=False``): targets ``(B, 1, H, W)``. One channel of logits is the foreground's sigmoid, its target
    the foreground's share of a pixel in [0, 1], which may be soft. K channels are a softmax, targets the classes 0 to
    K - 1: the cross entropy is weighted by the class with the nearest boundary, the IoU averaged over the classes but
    background. Two channels give what one channel ``l_1 - l_0`` gives.

    Regions: targets ``(B, R, H, W)`` of 0 and 1; every region is a binary problem, and the mean over them is taken.

    Args:
        regions: whether targets are regions.
        ignore_label: pixels with this label count nowhere, neither in the loss nor in a neighbor's weight. With
            regions the last of ``(B, R + 1, H, W)`` target channels marks them, whatever the label is.
        window: side of the neighborhood in pixels, odd.
        gain: weight of the boundary.

    Raises:
        OsasisError: an even window, or targets whose shape or values do not fit the logits.
    """

    def __init__(
        self, *, regions: bool = False, ignore_label: int | None = None, window: int = 31, gain: float = 5.0
    ) -> None:
        super().__init__()
        if window < 1 or window % 2 == 0:
            raise OsasisError(
                "The window must be odd, for a pixel to be its middle", found=window, remedy="The papers use 31."
            )
        self.regions, self.ignore_label, self.window, self.gain = regions, ignore_label, window, gain

    def forward(self, logits: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """Return a scalar in float32.

        Args:
            logits: ``(B, K, H, W)``, or several such maps, whose losses are added up.
            target: see the class.
        """
        if not isinstance(logits, torch.Tensor):
            return torch.stack([self(scale, target) for scale in logits]).sum()
        self._require_fit(logits, target)
        logits = logits.float()  # sums over pixels overflow in half precision
        truth, valid = self._truth(logits.shape[1], target)
        weight = self._weight(truth) * valid
        if self.regions or logits.shape[1] == 1:
            entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
            return self._per_image(entropy, weight, logits.sigmoid(), truth, weight)
        labels = torch.where(valid.bool(), target, 0).long()
        entropy = -logits.log_softmax(dim=1).gather(1, labels)
        pixel_weight = weight.amax(dim=1, keepdim=True)
        return self._per_image(entropy, pixel_weight, logits.softmax(dim=1)[:, 1:], truth, pixel_weight)

    def _truth(self, channels: int, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return foreground planes ``(B, F, H, W)`` and where they count ``(B, 1, H, W)``, both 0 or 1 in float32."""
        if self.regions:
            planes, ignored = target, torch.zeros_like(target[:, :1])
            if self.ignore_label is not None:
                planes, ignored = target[:, :-1], target[:, -1:]
            valid = 1 - ignored.float()
            return planes.float() * valid, valid
        valid = torch.ones_like(target, dtype=torch.float32)
        if self.ignore_label is not None:
            valid = (target != self.ignore_label).float()
        highest = max(channels - 1, 1)
        low, high = torch.stack(torch.aminmax(target * valid)).tolist()  # one wait for the device, not two
        if not 0 <= low <= high <= highest:
            raise OsasisError(
                f"For {channels} channel(s) of logits targets lie between 0 and {highest}",
                found=f"values from {low:g} to {high:g}",
                remedy="Divide 8-bit masks by 255; name the ignore label.",
            )
        if channels == 1:
            return target.float() * valid, valid
        # Foreground only: a background plane would see a boundary at the image's edge, where the window is half empty.
        classes = torch.arange(1, channels, device=target.device).view(1, -1, 1, 1)
        return (target == classes).float() * valid, valid

    def _weight(self, truth: torch.Tensor) -> torch.Tensor:
        """Return ``w`` of every plane, ``(B, F, H, W)`` in [1, 1 + gain]; means are along rows, then columns."""
        side, half = self.window, self.window // 2
        mean = F.avg_pool2d(truth, (1, side), stride=1, padding=(0, half), count_include_pad=True)
        mean = F.avg_pool2d(mean, (side, 1), stride=1, padding=(half, 0), count_include_pad=True)
        return 1 + self.gain * (mean - truth).abs()

    @staticmethod
    def _per_image(
        entropy: torch.Tensor, entropy_weight: torch.Tensor, p: torch.Tensor, g: torch.Tensor, w: torch.Tensor
    ) -> torch.Tensor:
        """Return the sum of both terms, averaged over images and planes; 0 without a single valid pixel."""
        space = (2, 3)
        total = entropy_weight.sum(space).clamp_min(torch.finfo(torch.float32).tiny)
        weighted_entropy = (entropy_weight * entropy).sum(space) / total
        both, either = (w * p * g).sum(space), (w * (p + g)).sum(space)
        weighted_iou = 1 - (both + 1) / (either - both + 1)
        return weighted_entropy.mean() + weighted_iou.mean()

    def _require_fit(self, logits: torch.Tensor, target: torch.Tensor) -> None:
        planes = 1 if not self.regions else logits.shape[1] + (self.ignore_label is not None)
        expected = (logits.shape[0], planes, *logits.shape[2:])
        if logits.ndim != 4 or tuple(target.shape) != expected:
            raise OsasisError(
                f"For logits {tuple(logits.shape)} the target must be (B, {planes}, H, W)", found=tuple(target.shape)
            )
