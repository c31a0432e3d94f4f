"""The names of the read-outs, apart from the code: the commands' help lists them and must not wait for torch.

The read-outs that run the networks on every image: how their picture's change gets onto the image's own grid.
"""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torchvision.transforms.functional import gaussian_blur

from nnunet_osasis.diffusion.transfer import Inversion
from nnunet_osasis.maps.field_of_view import field_of_view
from nnunet_osasis.maps.local_affine import carry_change
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.runtime.storage import sha256_of_array

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

READOUTS = (
    "raw", "local_affine", "difference", "frequency",
    "decoder", "decoder_bent", "moments", "pair", "calibrator", "combined", "student",
)  # fmt: skip
"""``raw``: the decoder's picture, its change carried to other sizes. ``local_affine``: the same, always through
the guided filter. ``difference``: what ``D_B``'s picture has beyond ``D_A``'s own round trip, added to the image, so
that the error both share cancels. ``frequency``: the low frequencies alone of the decoder's change. ``decoder``:
one affine map pooled over decoded source images; ``decoder_bent``: with bends, and a vignette or shading. ``moments``:
pooled moment matching to the reference. ``pair``: an affine map fitted to the style pair. ``calibrator``: what the
calibrator reads from the reference. ``combined``: the mean of moments and calibrator, which err independently; the
pair's map alone where the pair was given (``--pair file``). ``student``: a small network that imitates one of the
read-outs that run the networks, in one pass (``osasis-pretrain-stylizer --distil``)."""

STUDENT = "student"

DECODED = ("raw", "local_affine", "difference", "frequency")
"""Those that run the diffusion networks on every image; the others are one colour map, but for the student."""

NEIGHBOURS = 2
"""Slices to either side that a local map of a volume is fitted over."""

REMEMBERED = 2**26
"""Values of a result that is remembered, at most: 256 MiB."""

SIGMA = 1 / 16
"""Of ``frequency``'s Gaussian, in sides of the networks' grid."""


def at_network_size(stylizer: OSASISStylizer, images: torch.Tensor) -> torch.Tensor:
    """Images ``(B, C, H, W)`` as the networks see them: ``(B, C, S, S)`` in [-1, 1]."""
    return resize(images, (stylizer.size, stylizer.size)).clamp(-1, 1)


def low_frequencies(change: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
    """Blur ``(B, C, S, S)`` with a Gaussian of ``S / 16`` pixels, normalised over ``view``, bool ``(B, 1, S, S)``.

    The kernel reaches three standard deviations to either side. Nothing outside the view counts, and a constant
    inside it stays that constant up to its border.
    """
    sigma = SIGMA * change.shape[-1]
    kernel = 2 * math.ceil(3 * sigma) + 1
    inside = view.to(change)
    weight = gaussian_blur(inside, kernel, sigma)
    return gaussian_blur(change * inside, kernel, sigma) / weight.clamp(min=1e-6)


def apply_decoded(
    stylizer: OSASISStylizer,
    images: torch.Tensor,
    readout: str,
    *,
    backwards: bool,
    joint: bool,
    inversion: Inversion | None = None,
) -> torch.Tensor:
    """One of the read-outs in ``DECODED`` on ``(B, C, H, W)`` in [-1, 1] of any size; the result is not clipped
    where it was carried to another size."""
    small = at_network_size(stylizer, images)
    relative = readout == "difference"
    found = stylizer.decode_style(small, backwards=backwards, joint=joint, relative=relative, inversion=inversion).to(
        images
    )
    if readout == "frequency":
        change = low_frequencies(found - small, field_of_view(small, joint=joint))
        size = (images.shape[-2], images.shape[-1])
        return images + resize(change, size)  # smooth, so that plain interpolation moves no edge
    after = small + found if relative else found
    if readout in ("raw", "difference") and small.shape == images.shape:
        return after.clamp(-1, 1)
    return carry_change(small, after, images, slices=NEIGHBOURS if joint else 0)


class LastResult:
    """``apply_decoded`` that remembers its last result: the gate asks for the same image at several strengths, which
    are blends of one result. Threads may share it; at worst one of them computes anew."""

    def __init__(self, stylizer: OSASISStylizer) -> None:
        self.stylizer: Any = weakref.proxy(stylizer)  # it holds this one, and is to be freed with its last user
        self.known: tuple[tuple, torch.Tensor] | None = None

    def __call__(
        self, images: torch.Tensor, readout: str, *, backwards: bool, joint: bool, inversion: Inversion | None = None
    ) -> torch.Tensor:
        """``apply_decoded`` of ``(B, C, H, W)``."""
        made_by = None if inversion is None else inversion.made_by
        key = (sha256_of_array(images.cpu().numpy()), str(images.device), readout, backwards, joint, made_by)
        known = self.known  # read once: another thread may be at work
        if known is not None and known[0] == key:
            return known[1]
        result = apply_decoded(self.stylizer, images, readout, backwards=backwards, joint=joint, inversion=inversion)
        self.known = (key, result) if result.numel() <= REMEMBERED else None
        return result
