"""Estimate the maps behind a stylizer's read-outs, and combine them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from nnunet_osasis.images.slices import evenly_spaced
from nnunet_osasis.maps.agreement import Agreement, combine
from nnunet_osasis.maps.base import MeanMap, PixelMap
from nnunet_osasis.maps.field_of_view import field_of_view, find_frame
from nnunet_osasis.maps.moments import MomentMap, moments
from nnunet_osasis.maps.parametric import fit_images
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.stylizer.calibrator import Calibrator
from nnunet_osasis.synthetic.acquisition import family_for
from nnunet_osasis.training.style_pair import StylePair

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

FIT_IMAGES = 24
"""Number of source images that maps are fitted to, and that estimates are compared over."""

INVERSE = "_inverse"
"""Ending of the name of a map's way back."""


def decoder_maps(stylizer: OSASISStylizer, sources: torch.Tensor, family: str = "auto") -> dict[str, PixelMap]:
    """Fit maps pooled over decoded source images: affine, and with the bends of an acquisition family.

    Args:
        stylizer: with networks.
        sources: source images ``(N, C, S, S)`` in [-1, 1].
        family: of acquisitions (``nnunet_osasis.synthetic.acquisition``).

    Returns:
        ``decoder``, ``decoder_bent`` and their inverses.
    """
    chosen = sources[evenly_spaced(len(sources), FIT_IMAGES)]
    decoded = torch.cat([stylizer.decode_style(part).cpu() for part in chosen.split(8)])
    view, terms = field_of_view(chosen, stylizer.frame), family_for(family, chosen.shape[1]).terms
    maps: dict[str, PixelMap] = {}
    for name, kinds in (("decoder", ()), ("decoder_bent", terms)):
        maps[name] = fit_images(chosen, decoded, view, terms=kinds)
        maps[name + INVERSE] = fit_images(decoded, chosen, view, terms=kinds)
    return maps


def pair_maps(pairs: Sequence[StylePair]) -> dict[str, PixelMap]:
    """Return ``pair`` and its inverse: the mean of the affine maps of all style pairs."""
    forward, inverse = zip(*(pair.maps() for pair in pairs), strict=True)
    return {"pair": _mean(forward), "pair" + INVERSE: _mean(inverse)}


def estimate_maps(
    references: Sequence[torch.Tensor],
    sources: torch.Tensor,
    calibrator: Calibrator | None,
    *,
    given: Sequence[StylePair] = (),
    hold_back: bool = False,
) -> tuple[dict[str, PixelMap], Agreement]:
    """Estimate the maps that need no diffusion network: ``moments``, ``calibrator``, ``combined`` and their inverses.

    ``combined`` is the mean of the independent estimates of all references: moments and calibrator. A style pair that
    the networks make starts from a reference moved by its moments, so it shares their errors; on known truth it added
    nothing (``benchmarks/transfer``). A pair that is a photograph of the reference's scene is the truth itself, and
    stands alone.

    Args:
        references: images of the target domain, each ``(1, C, S, S)`` in [-1, 1]; they count alike.
        sources: source images ``(N, C, S, S)`` in [-1, 1], over which the estimates are compared.
        calibrator: None leaves its estimates out.
        given: style pairs that are photographs; they add ``pair`` and become ``combined``.
        hold_back: weaken ``combined`` by the confidence that the estimates' agreement leaves. On known truth it took
            more than it gave (``benchmarks/transfer``).

    Returns:
        The maps by name, and the agreement of the estimates that ``combined`` is made of.
    """
    source_moments = moments(sources)
    estimates: dict[str, list[tuple[PixelMap, PixelMap]]] = {"moments": []}
    for reference in references:
        change = MomentMap(*source_moments, *moments(reference))
        estimates["moments"].append((change, change.inverse()))
    if calibrator is not None:
        side = (calibrator.config.sample_size,) * 2
        estimates["calibrator"] = [calibrator.maps(resize(y.cpu(), side).clamp(-1, 1)) for y in references]
    maps: dict[str, PixelMap] = {}
    for name, both in estimates.items():
        maps[name], maps[name + INVERSE] = _mean([m for m, _ in both]), _mean([m for _, m in both])
    independent = [both for name in estimates for both in estimates[name]]
    if given:
        maps |= pair_maps(given)
        independent = [pair.maps() for pair in given]
    chosen = sources[evenly_spaced(len(sources), FIT_IMAGES)]
    view = field_of_view(chosen, find_frame(sources))
    forward, agreement = combine([m for m, _ in independent], chosen, view)
    inverse, _ = combine([m for _, m in independent], forward(chosen).clamp(-1, 1), view)
    if not hold_back:
        forward, inverse = MeanMap(forward.maps), MeanMap(inverse.maps)
    maps |= {"combined": forward, "combined" + INVERSE: inverse}
    return maps, agreement


def _mean(maps: Sequence[PixelMap]) -> PixelMap:
    return maps[0] if len(maps) == 1 else MeanMap(maps)
