"""The same numbers as MONAI's metrics, wherever both are defined."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_osasis.evaluation.metrics import choose_protocol, score_case

SHAPES = [((40, 52), (1.0, 1.0)), ((40, 52), (0.7, 2.0)), ((7, 24, 20), (3.0, 0.8, 0.8))]


def tensors(*masks: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in masks]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("shape", "spacing"), SHAPES)
@pytest.mark.parametrize("seed", [0, 1])
def test_overlap_and_surfaces_are_monais(blob, seed: int, shape: tuple, spacing: tuple) -> None:
    from monai import metrics as monai

    truth, prediction = blob(seed, shape, share=0.3, smooth=3), blob(seed + 10, shape, share=0.2, smooth=3)
    found = score_case(prediction, truth, spacing=spacing, protocol=choose_protocol(tolerance=1.5))
    pair = tensors(prediction, truth)
    assert found["dice"] == pytest.approx(float(monai.compute_dice(*pair)), abs=1e-6)
    assert found["iou"] == pytest.approx(float(monai.compute_iou(*pair)), abs=1e-6)
    distances = {"include_background": True, "spacing": spacing}
    hd95 = monai.compute_hausdorff_distance(*pair, percentile=95, **distances)
    assert found["hd95"] == pytest.approx(float(hd95), rel=1e-6)
    nsd = monai.compute_surface_dice(*(t.bool() for t in pair), class_thresholds=[1.5], **distances)
    assert found["nsd"] == pytest.approx(float(nsd), abs=1e-6)
    counts = monai.get_confusion_matrix(*(t.reshape(1, 1, -1) for t in pair))
    assert found["specificity"] == pytest.approx(
        float(monai.compute_confusion_matrix_metric("specificity", counts)), abs=1e-6
    )


def test_distances_are_in_the_spacings_units(blob) -> None:
    truth = blob(0)
    prediction = np.roll(truth, 3, axis=1)
    plain, wide = (score_case(prediction, truth, spacing=s, metrics=["hd95"])["hd95"] for s in (None, (2, 2)))
    assert wide == pytest.approx(2 * plain)
