"""Stage 2: the style pair ``(y, y_A)``, the reference and how the source domain would have shown it.

Plain SDEdit from ``y`` keeps the colour cast below t0 = 500 and loses the structure above, so the default moves ``y``
by the inverse pooled colour transfer first and then lets ``D_A`` correct it at low noise, several times.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.ddim import add_noise, decode, linear_alpha_bar, time_grid
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.maps.field_of_view import field_of_view
from nnunet_osasis.maps.moments import MomentMap
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.runtime.compute import generator_for
from nnunet_osasis.stylizer.calibrator import Calibrator

PAIR_MAKERS = ("prealigned_sdedit", "calibrator", "sdedit", "nearest", "file")


@dataclass(frozen=True)
class StylePairConfig:
    """How ``y_A`` is made.

    Attributes:
        maker: ``prealigned_sdedit``: inverse pooled colour transfer, then SDEdit (default). ``calibrator``: the
            calibrator's way back instead, then SDEdit. ``sdedit``: SDEdit straight from ``y`` (the reference code's
            way, there with t0 = 500). ``nearest``: the real source images nearest in z to ``y`` after inverse pooled
            colour transfer; they show other scenes, so only their statistics are compared. ``file``: an image the
            caller gives.
        t0: noise level of SDEdit. ``steps`` on a grid of ``grid_power``. ``samples``: how many are drawn
            (``nearest``: how many images are taken).
    """

    maker: str = "prealigned_sdedit"
    t0: int = 300
    steps: int = 15
    grid_power: float = 2.0
    samples: int = 6

    def __post_init__(self) -> None:
        if self.maker not in PAIR_MAKERS:
            raise OsasisError("The pair maker must be known", found=self.maker, remedy=f"Use one of {PAIR_MAKERS}.")
        if not 0 < self.t0 < 1000 or self.samples < 1:
            raise OsasisError("A style pair needs 0 < t0 < 1000 and samples >= 1", found=f"{self.t0}, {self.samples}")


@torch.no_grad()
def sdedit(
    model: DiffusionAutoencoder, start: torch.Tensor, code: torch.Tensor, config: StylePairConfig, seed: int
) -> torch.Tensor:
    """``config.samples`` ancestral samples of ``D_A`` from ``start`` ``(1, C, S, S)`` noised to t0; in [-1, 1]."""
    device = start.device
    alpha_bar = linear_alpha_bar().to(device)
    generator = generator_for(seed, 0, stream=1)
    many = start.expand(config.samples, -1, -1, -1)
    noise = torch.randn(many.shape, generator=generator).to(device)
    z = code.expand(config.samples, -1)
    x_t = add_noise(many, noise, alpha_bar[config.t0])
    grid = time_grid(config.t0, config.steps, config.grid_power)
    return decode(lambda x, t: model.unet(x, t, z), x_t, alpha_bar, grid, eta=1.0, generator=generator).clamp(-1, 1)


@torch.no_grad()
def make_style_pair(
    model: DiffusionAutoencoder,
    reference: torch.Tensor,
    sources: torch.Tensor,
    config: StylePairConfig,
    *,
    seed: int = 0,
    counterpart: torch.Tensor | None = None,
    calibrator: Calibrator | None = None,
) -> torch.Tensor:
    """Versions of the reference as the source domain would show it: ``(K, C, S, S)`` in [-1, 1].

    Args:
        model: ``D_A``. reference: ``y`` ``(1, C, S, S)``. sources: real source images ``(N, C, S, S)``.
        counterpart: ``y_A`` for ``maker="file"``. calibrator: for ``maker="calibrator"``.

    Raises ``OsasisError`` when what the maker needs is missing.
    """
    if config.maker == "file":
        if counterpart is None or counterpart.shape[1:] != reference.shape[1:]:
            raise OsasisError(
                "The style pair from a file needs an image like the reference",
                found="none" if counterpart is None else f"shape {tuple(counterpart.shape)}",
                remedy="Give it with --style-source-image.",
            )
        return counterpart.to(reference)
    encoder = model.semantic_encoder
    start = reference
    if config.maker in ("prealigned_sdedit", "nearest"):
        moved = MomentMap.between(sources, reference).inverse()(reference)
        start = torch.where(field_of_view(reference), moved, reference)
    if config.maker == "nearest":
        codes = torch.cat([encoder(part) for part in sources.split(64)])
        similarity = F.cosine_similarity(codes, encoder(start), dim=1)
        return sources[similarity.topk(min(config.samples, len(sources))).indices]
    if config.maker == "calibrator":
        start = _as_source(reference, calibrator)
    return sdedit(model, start, encoder(start), config, seed)


def _as_source(reference: torch.Tensor, calibrator: Calibrator | None) -> torch.Tensor:
    """The reference through the calibrator's way back, its frame left as it is."""
    if calibrator is None:
        raise OsasisError(
            "The pair maker calibrator needs a calibrator",
            found="none",
            remedy="Leave --calibrator-iterations above 0, or choose another --pair.",
        )
    side = calibrator.config.sample_size
    back = calibrator.maps(resize(reference.cpu(), (side, side)).clamp(-1, 1))[1]
    return torch.where(field_of_view(reference), back(reference).clamp(-1, 1), reference)
