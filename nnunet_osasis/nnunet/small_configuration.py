"""A small U-Net beside nnU-Net's own configuration, in nnU-Net's idiom: it inherits, and says only what differs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from nnunet_osasis.errors import OsasisError

LEAST_STAGES = 3


def small_configuration(full: dict[str, Any], features: Sequence[int], patch: int, batch: int) -> dict[str, Any]:
    """A configuration that inherits from ``2d`` with fewer ``features``, stages and pixels per patch.

    Args:
        full: the configuration ``2d`` of nnU-Net's plans. features: from the top; no more stages than ``full`` has.

    Raises ``OsasisError`` for fewer than three stages: nnU-Net's deep supervision leaves the lowest map out, and with
    two stages that is the only one, so that its loss becomes NaN.
    """
    architecture = copy.deepcopy(full["architecture"])
    network = architecture["arch_kwargs"]
    stages = min(len(features), network["n_stages"])
    if stages < LEAST_STAGES:
        raise OsasisError(
            "A network of nnU-Net's needs at least three stages",
            found=f"{len(features)} features, {network['n_stages']} stages planned",
            remedy="Give three features or more, and images of at least 32 pixels.",
        )
    network.update(
        n_stages=stages,
        features_per_stage=list(features[:stages]),
        kernel_sizes=network["kernel_sizes"][:stages],
        strides=network["strides"][:stages],
        n_conv_per_stage=network["n_conv_per_stage"][:stages],
        n_conv_per_stage_decoder=network["n_conv_per_stage_decoder"][: stages - 1],
    )
    return {
        "inherits_from": "2d",
        "batch_size": batch,
        "patch_size": [patch, patch],
        "architecture": architecture,
    }
