"""A content image carried to the noise level where every style starts from it: half of the diffusion read-outs' cost.

The inversion depends on ``D_A`` and the grid alone, neither on the style nor on the strength. Stylizers made with
``--from-stylizer`` share ``D_A``, so that one inversion serves all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nnunet_osasis.diffusion.sampler import decode_images, encode_images, spn_injection
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.maps.field_of_view import DARK
from nnunet_osasis.runtime.storage import sha256_of_array, sha256_of_json

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

BATCH = 8
"""Images the networks see at once."""


@dataclass(frozen=True)
class Inversion:
    """Images ``(B, C, S, S)`` in [-1, 1] at the networks' size, encoded.

    Attributes:
        code: ``z_sem`` ``(B, z)``. noise: the images at level t0 ``(B, C, S, S)``.
        made_by: SHA-256 (hex) of the networks and the grid that made it.
    """

    images: torch.Tensor
    code: torch.Tensor
    noise: torch.Tensor
    made_by: str

    def require_fit(
        self, stylizer: OSASISStylizer, images: torch.Tensor, *, backwards: bool = False, joint: bool = False
    ) -> None:
        """Raise ``OsasisError`` when another network, another grid or other images made it, or images as a volume."""
        if self.made_by != inversion_identity(stylizer, backwards=backwards, joint=joint):
            raise OsasisError(
                "An inversion serves stylizers with the same autoencoder and grid, in its direction, joint or not",
                found="one that was made otherwise",
                remedy="Call invert() of this stylizer; stylizers share when made with --from-stylizer.",
            )
        if not torch.equal(self.images.to(images), images):
            raise OsasisError(
                "An inversion serves the images it was made of",
                found="other images",
                remedy="Call invert() with the images that are to be stylized.",
            )


def weights_digest(*networks: torch.nn.Module) -> str:
    """SHA-256 (hex) of all weights."""
    each = [sha256_of_array(v.cpu().numpy()) for m in networks for _, v in sorted(m.state_dict().items())]
    return sha256_of_json({"weights": each})


def inversion_identity(stylizer: OSASISStylizer, *, backwards: bool = False, joint: bool = False) -> str:
    """SHA-256 (hex) of all that decides an inversion: the encoding networks and the encoding half of the sampler."""
    sampler = stylizer.config.sampler
    return sha256_of_json(
        {
            "weights": stylizer.digests[0],
            "decoder": stylizer.digests[1] if backwards else None,
            "joint": joint,
            "grid": sampler.encode_grid(),
            "order": sampler.order,
            "precision": sampler.precision,
        }
    )


@torch.inference_mode()
def invert(
    stylizer: OSASISStylizer, images: torch.Tensor, *, backwards: bool = False, joint: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes ``(B, z)`` and noise ``(B, C, S, S)`` of images ``(B, C, S, S)`` in [-1, 1] (eqs. 4 and 5).

    ``backwards``: by ``D_B``. ``joint``: the images are one volume's slices and share the mean of their codes.
    """
    unit = images.to(stylizer.device, torch.float32)
    codes = torch.cat([stylizer.autoencoder.semantic_encoder(part) for part in unit.split(BATCH)])
    if joint:
        shown = (unit > DARK).flatten(1).any(dim=1)  # slices of nothing but air say nothing about the volume
        codes = codes[shown if shown.any() else slice(None)].mean(dim=0, keepdim=True).expand_as(codes)
    unet = stylizer.decoder if backwards else stylizer.autoencoder.unet
    parts = zip(unit.split(BATCH), codes.split(BATCH), strict=True)
    return codes, torch.cat([encode_images(unet, part, code, stylizer.config.sampler) for part, code in parts])


def decode_style(
    stylizer: OSASISStylizer,
    unit: torch.Tensor,
    *,
    backwards: bool = False,
    joint: bool = False,
    relative: bool = False,
    inversion: Inversion | None = None,
) -> torch.Tensor:
    """Encode ``(B, C, S, S)`` with one decoder and its codes, decode with the other, in [-1, 1].

    ``relative``: minus the first decoder's own round trip (no SPN, no other code): a difference in [-2, 2].
    ``inversion``: of these images, if there is one. Raises ``OsasisError`` when it does not fit.
    """
    unit = unit.to(stylizer.device, torch.float32)
    if inversion is None:
        code, noise = invert(stylizer, unit, backwards=backwards, joint=joint)
    else:
        inversion.require_fit(stylizer, unit, backwards=backwards, joint=joint)
        code, noise = inversion.code.to(unit), inversion.noise.to(unit)
    parts = zip(unit.split(BATCH), code.split(BATCH), noise.split(BATCH), strict=True)
    return torch.cat([_decoded(stylizer, *part, backwards, relative) for part in parts])


def _decoded(
    stylizer: OSASISStylizer,
    unit: torch.Tensor,
    code: torch.Tensor,
    noise: torch.Tensor,
    backwards: bool,
    relative: bool,
) -> torch.Tensor:
    sampler = stylizer.config.sampler
    first, second = stylizer.autoencoder.unet, stylizer.decoder
    if backwards:
        first, second = second, first
    fine = None
    if sampler.mix == "style" and not backwards:
        reference = stylizer.reference_unit().to(stylizer.device)
        fine = stylizer.autoencoder.semantic_encoder(reference).expand(len(unit), -1)
    inject = None if backwards else spn_injection(stylizer.spn, unit, sampler)
    picture = decode_images(second, noise, code, sampler, fine_code=fine, inject=inject).clamp(-1, 1)
    if relative:
        return picture - decode_images(first, noise, code, sampler).clamp(-1, 1)
    return picture
