"""The parametric read-outs of a stylizer: fitted to what the networks say, and combined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from nnunet_osasis.images.slices import evenly_spaced
from nnunet_osasis.maps.agreement import Agreement, combine
from nnunet_osasis.maps.base import MeanMap, PixelMap
from nnunet_osasis.maps.field_of_view import field_of_view
from nnunet_osasis.maps.moments import MomentMap, Moments, moments
from nnunet_osasis.maps.parametric import fit_images
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.stylizer.calibrator import Calibrator
from nnunet_osasis.synthetic.acquisition import family_for
from nnunet_osasis.training.style_pair import StylePair

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

FIT_IMAGES = 24
"""Source images that decoded pictures are compared on, and that estimates are compared over."""

INVERSE = "_inverse"


def decoder_maps(stylizer: OSASISStylizer, sources: torch.Tensor, family: str = "auto") -> dict[str, PixelMap]:
    """Maps pooled over decoded source images: affine, and with the bends of an acquisition family."""
    chosen = sources[evenly_spaced(len(sources), FIT_IMAGES)]
    decoded = torch.cat([stylizer.decode_style(part).cpu() for part in chosen.split(8)])
    view, terms = field_of_view(chosen), family_for(family, chosen.shape[1]).terms
    found: dict[str, PixelMap] = {}
    for name, kinds in (("decoder", ()), ("decoder_bent", terms)):
        found[name] = fit_images(chosen, decoded, view, terms=kinds)
        found[name + INVERSE] = fit_images(decoded, chosen, view, terms=kinds)
    return found


def estimate_maps(
    pairs: Sequence[StylePair], sources: torch.Tensor, calibrator: Calibrator | None, *, hold_back: bool = False
) -> tuple[dict[str, PixelMap], Agreement]:
    """The maps of the references themselves: ``moments``, ``pair``, ``calibrator`` and ``combined``, each with its way
    back.

    ``combined`` is the mean of the independent estimates of all references: of moments and calibrator. The pair is made
    from a reference that was moved by its moments first, so it shares their errors; on known truth it added nothing to
    them (``benchmarks/transfer``).

    Args:
        pairs: one for each reference; their estimates count alike.
        sources: ``(N, C, S, S)``, over which the estimates are compared.
        calibrator: None leaves its estimates out.
        hold_back: weaken ``combined`` by the confidence that the estimates' agreement leaves. Off by default: on known
            truth it took more than it gave (``benchmarks/transfer``).
    """
    found: dict[str, PixelMap] = {}
    own = moments(sources)
    forth, back = zip(*(_of_reference(pair, own, calibrator) for pair in pairs), strict=True)
    for ending, estimates in (("", forth), (INVERSE, back)):
        for name in estimates[0]:
            found[name + ending] = _mean([estimate[name] for estimate in estimates])
    chosen = sources[evenly_spaced(len(sources), FIT_IMAGES)]
    view = field_of_view(chosen)
    given = any(pair.given for pair in pairs)
    there, agreed = combine(_independent(forth, given), chosen, view)
    again, _ = combine(_independent(back, given), there(chosen).clamp(-1, 1), view)
    for ending, one in (("", there), (INVERSE, again)):
        found["combined" + ending] = one if hold_back else MeanMap(one.maps)
    return found, agreed


def _of_reference(
    pair: StylePair, own: Moments, calibrator: Calibrator | None
) -> tuple[dict[str, PixelMap], dict[str, PixelMap]]:
    """All estimates of one reference, there and back."""
    moved = MomentMap(*own, *moments(pair.reference))
    answers: dict[str, tuple[PixelMap, PixelMap]] = {"moments": (moved, moved.inverse()), "pair": pair.maps()}
    if calibrator is not None:
        side = calibrator.config.sample_size
        answers["calibrator"] = calibrator.maps(resize(pair.reference.cpu(), (side, side)).clamp(-1, 1))
    return {name: both[0] for name, both in answers.items()}, {name: both[1] for name, both in answers.items()}


def _mean(maps: Sequence[PixelMap]) -> PixelMap:
    return maps[0] if len(maps) == 1 else MeanMap(maps)


def _independent(estimates: Sequence[dict[str, PixelMap]], given: bool) -> list[PixelMap]:
    names = ("pair",) if given else ("moments", "calibrator")
    return [one[name] for name in names for one in estimates if name in one]
