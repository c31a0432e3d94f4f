"""What a trainer does differently that changes appearance at random while it trains, as a mixin that goes before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from nnunet_osasis.controls.gin import GINParameters, draw_gin, gin
from nnunet_osasis.nnunet.options import OsasisOptions, options_of

_SPATIAL = (SpatialTransform, Convert2DTo3DTransform)


class GINTransform(ImageOnlyTransform):
    """:func:`nnunet_osasis.controls.gin.gin` of a patch ``(C, [D,] H, W)``, a new network at every call.

    It works in any units, hence after normalization too. Only an image's own channels may be there: nnU-Net appends the
    one-hot maps of a previous stage later.

    Args:
        strength: the highest share of the random network in the blend, in [0, 1].
    """

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        self.strength = strength

    def get_parameters(self, **data_dict: Any) -> dict[str, GINParameters]:
        """Drawn from numpy's global state, which nnU-Net seeds anew in every worker (torch's is the parent's copy)."""
        rng = np.random.default_rng(np.random.randint(2**32, size=4, dtype=np.uint32))
        return {"parameters": draw_gin(rng, len(data_dict["image"]), alpha=(0.0, self.strength))}

    def _apply_to_image(self, img: torch.Tensor, **params: GINParameters) -> torch.Tensor:
        return gin(img, params["parameters"])


class GINTraining:
    """Mixin for nnU-Net trainers: a training patch goes through GIN with probability p, a validation patch never does.

    Options: ``"osasis": {"probability": 0.5}`` and ``"strength"``, the highest share of the random network in the
    blend (1 by default).
    """

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> BasicTransform:
        """nnU-Net's hook: its own transforms, with GIN between the spatial ones and those of intensity.

        Later ones blank what lies outside a mask and append the maps of a previous stage, so GIN sees neither.
        """
        transforms = super().get_training_transforms(*args, **kwargs)  # type: ignore[misc]
        options = self.options
        added = GINTransform(1.0 if options.strength is None else options.strength)
        return with_transform(transforms, RandomTransform(added, options.probability))

    @property
    def options(self) -> OsasisOptions:
        """What the plans say to this trainer."""
        return options_of(self)


def with_transform(transforms: ComposeTransforms, added: BasicTransform) -> ComposeTransforms:
    """nnU-Net's training transforms with ``added`` after the last spatial one (before mirroring)."""
    places = [i for i, transform in enumerate(transforms.transforms) if isinstance(transform, _SPATIAL)]
    transforms.transforms.insert(places[-1] + 1 if places else 0, added)
    return transforms
