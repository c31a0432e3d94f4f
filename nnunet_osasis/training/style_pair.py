"""The style pair ``(y, y_A)``: the reference, and how the source domain would have shown it.

Plain SDEdit from ``y`` keeps the color cast below t0 = 500 and loses the structure above, so the default moves ``y``
by the inverse pooled color transfer first and then lets ``D_A`` correct it at low noise, several times.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch.nn import functional as F

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.ddim import add_noise, decode, linear_alpha_bar, time_grid
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.structure import structure_agreement
from nnunet_osasis.maps.base import PixelMap
from nnunet_osasis.maps.color import difference
from nnunet_osasis.maps.field_of_view import own_view
from nnunet_osasis.maps.moments import ANCHOR, MomentMap
from nnunet_osasis.maps.parametric import fit_images
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.runtime.compute import generator_for
from nnunet_osasis.stylizer.calibrator import Calibrator

PAIR_MAKERS = ("prealigned_sdedit", "calibrator", "sdedit", "nearest", "file")


@dataclass(frozen=True)
class StylePairConfig:
    """How ``y_A`` is made.

    Attributes:
        maker: ``prealigned_sdedit``: inverse pooled color transfer, then SDEdit (default). ``calibrator``: the
            calibrator's way back, then SDEdit. ``sdedit``: SDEdit straight from ``y`` (the reference code's way, there
            with t0 = 500). ``nearest``: the real source images nearest in z to ``y`` after inverse pooled color
            transfer; they show other scenes, so only their statistics are compared. ``file``: an image of the caller.
        t0: noise level of SDEdit.
        steps: number of SDEdit's steps.
        grid_power: spacing of the steps.
        samples: number of samples, or of images for ``nearest``.
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


RIDGE = 1e-2
"""Ridge of the pair's map: one reference shows little variation in some directions of color."""


@dataclass(frozen=True)
class StylePair:
    """One reference and its versions in the source's style.

    Attributes:
        reference: ``y`` ``(1, C, S, S)`` in [-1, 1].
        counterparts: ``y_A`` ``(K, C, S, S)`` in [-1, 1].
        aligned: whether ``y_A`` shows the scene of ``y``, pixel by pixel (not so for real source images).
    """

    reference: torch.Tensor
    counterparts: torch.Tensor
    aligned: bool = True

    @classmethod
    def from_file(cls, reference: torch.Tensor, counterpart: torch.Tensor | None) -> StylePair:
        """Pair a reference with a photograph ``(1, C, S, S)`` of its scene by the source's camera.

        Raises ``OsasisError`` when there is none, or when it has another shape.
        """
        if counterpart is None or counterpart.shape[1:] != reference.shape[1:]:
            raise OsasisError(
                "The style pair from a file needs an image like the reference",
                found="none" if counterpart is None else f"shape {tuple(counterpart.shape)}",
                remedy="Give it with --style-source-image.",
            )
        return cls(reference, counterpart.to(reference))

    def images(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return ``y_A`` (mean of the samples), ``y`` and the field of view, on the CPU.

        The samples are averaged first: a map regressed on single, noisy samples has its contrast attenuated (errors in
        the regressor).
        """
        y = self.reference.cpu()
        return self.counterparts.cpu().mean(dim=0, keepdim=True), y, own_view(y)

    def maps(self) -> tuple[PixelMap, PixelMap]:
        """Return the affine maps ``y_A`` to ``y`` and back (moment matching where the scenes differ).

        Raises ``OsasisError`` when almost nothing is in view.
        """
        if not self.aligned:
            moved = MomentMap.between(self.counterparts.cpu(), self.reference.cpu())
            return moved, moved.inverse()
        before, after, view = self.images()
        forth, back = (fit_images(*two, view, ridge=RIDGE, anchor=ANCHOR) for two in ((before, after), (after, before)))
        return forth, back


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
) -> StylePair:
    """Make versions of the reference as the source domain would show it.

    Args:
        model: ``D_A``.
        reference: ``y`` ``(1, C, S, S)`` in [-1, 1].
        sources: real source images ``(N, C, S, S)`` in [-1, 1].
        config: the maker and its settings.
        seed: seed of the samples.
        counterpart: ``y_A`` ``(1, C, S, S)``, for the maker ``file``.
        calibrator: for the maker ``calibrator``.

    Raises:
        OsasisError: what the maker needs is missing.
    """
    if config.maker == "file":
        return StylePair.from_file(reference, counterpart)
    encoder = model.semantic_encoder
    start = reference
    if config.maker in ("prealigned_sdedit", "nearest"):
        moved = MomentMap.between(sources, reference).inverse()(reference)
        start = torch.where(own_view(reference), moved, reference)
    if config.maker == "nearest":
        codes = torch.cat([encoder(part) for part in sources.split(64)])
        similarity = F.cosine_similarity(codes, encoder(start), dim=1)
        nearest = similarity.topk(min(config.samples, len(sources))).indices
        return StylePair(reference, sources[nearest], aligned=False)
    if config.maker == "calibrator":
        start = _as_source(reference, calibrator)
    return StylePair(reference, sdedit(model, start, encoder(start), config, seed))


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
    return torch.where(own_view(reference), back(reference).clamp(-1, 1), reference)


NOISE_LEVELS = (50, 150, 300)
"""Noise levels of the likelihood: there ``D_A`` judges colors and textures, not layouts."""

MAX_KNOWN = 32
"""Largest number of source images that a pair is compared with."""

TIE = 1e-4
"""Relative difference below which two errors are equal: their last bits depend on how images are batched."""


@dataclass(frozen=True)
class PairQuality:
    """Truth-free scores of ``y_A``.

    Attributes:
        structure: correlation of gradient magnitudes between ``y_A`` and ``y``; 1 is the same structure.
        source_likelihood: share of source images that ``D_A`` predicts worse than ``y_A`` (0: stranger than all).
        sample_spread: mean color difference between the samples of ``y_A`` and their mean; 0 for one sample.
    """

    structure: float
    source_likelihood: float
    sample_spread: float

    def to_json(self) -> dict[str, float]:
        """For the stylizer's index."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


@torch.no_grad()
def noise_error(model: DiffusionAutoencoder, images: torch.Tensor) -> torch.Tensor:
    """``D_A``'s error of the predicted noise, mean over ``NOISE_LEVELS``, the same noise for every image: ``(B,)``."""
    alpha_bar = linear_alpha_bar().to(images.device)
    noise = torch.randn(images[:1].shape, generator=generator_for(0, 0, stream=6)).to(images.device)
    total = torch.zeros(len(images), device=images.device)
    for level in NOISE_LEVELS:
        t = torch.full((len(images),), level, device=images.device)
        many = noise.expand_as(images)
        seen = model(add_noise(images, many, alpha_bar[level]), t, images)
        total += (seen.float() - many).square().mean(dim=(1, 2, 3))
    return total / len(NOISE_LEVELS)


@torch.no_grad()
def pair_quality(
    model: DiffusionAutoencoder, reference: torch.Tensor, counterparts: torch.Tensor, sources: torch.Tensor
) -> PairQuality:
    """Score ``y_A`` ``(K, C, S, S)`` of a reference ``(1, C, S, S)`` against source images ``(N, C, S, S)``."""
    mean = counterparts.mean(dim=0, keepdim=True)
    chosen = sources[:: max(1, len(sources) // MAX_KNOWN)].to(mean.device)
    known = torch.cat([noise_error(model, part) for part in chosen.split(8)])
    own = noise_error(model, counterparts).mean()
    view = own_view(reference)[:, 0].flatten(1).expand(len(counterparts), -1)
    apart = difference(counterparts.flatten(2), mean.flatten(2).expand(len(counterparts), -1, -1))
    return PairQuality(
        structure=float(structure_agreement(mean, reference, own_view(reference))),
        source_likelihood=float((known > own * (1 + TIE)).float().mean()),
        sample_spread=float(apart[view].mean()) if len(counterparts) > 1 else 0.0,
    )
