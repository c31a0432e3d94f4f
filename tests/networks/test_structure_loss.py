"""The structure loss against the papers' formula written pixel by pixel, and nnU-Net's kinds of targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.networks import StructureLoss


def by_hand(logit, truth, valid, *, window=31, gain=5.0):
    """One binary plane ``(H, W)``, loops only."""
    height, width = truth.shape
    half = window // 2
    truth = truth * valid
    entropies = weights = inter = union = 0.0
    for y in range(height):
        for x in range(width):
            near = truth[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1].sum() / window**2
            w = (1 + gain * abs(near - truth[y, x])) * valid[y, x]
            p, g = 1 / (1 + np.exp(-logit[y, x])), truth[y, x]
            entropies -= w * (g * np.log(p) + (1 - g) * np.log(1 - p))
            weights += w
            inter += w * p * g
            union += w * (p + g - p * g)
    return entropies / weights + 1 - (inter + 1) / (union + 1)


@pytest.fixture
def example():
    """Logits ``(2, 1, 20, 23)``, a blob ``(2, 1, 20, 23)``, and a patch to ignore."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:20, :23]
    truth = np.stack([(y - 9) ** 2 + (x - 11) ** 2 < 30, x > 15])[:, None].astype(float)
    valid = np.ones_like(truth)
    valid[:, :, 3:12, 6:9] = 0
    return rng.normal(0, 2, truth.shape), truth, valid


@pytest.mark.parametrize("window", [31, 5])
@pytest.mark.parametrize("ignore_label", [None, 2])
def test_one_channel_is_the_papers_formula(example, window, ignore_label):
    logits, truth, valid = example
    valid = valid if ignore_label else np.ones_like(valid)
    expected = np.mean([by_hand(*(a[i, 0] for a in (logits, truth, valid)), window=window) for i in range(2)])
    target = torch.from_numpy(np.where(valid, truth, 2)).to(torch.int16)
    loss = StructureLoss(window=window, ignore_label=ignore_label)(torch.from_numpy(logits), target)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("ignore_label", [None, 2])
def test_two_classes_are_one_channel_of_their_difference(example, ignore_label):
    logits, truth, valid = example
    pair = torch.from_numpy(np.concatenate([logits[::-1], logits], 1).copy()).float()
    target = torch.from_numpy(np.where(valid, truth, 2) if ignore_label else truth).long()
    loss = StructureLoss(ignore_label=ignore_label)
    torch.testing.assert_close(loss(pair, target), loss(pair[:, 1:] - pair[:, :1], target))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
@pytest.mark.parametrize("ignore_label", [None, 7])
def test_regions_are_averaged_binary_problems(example, dtype, ignore_label):
    logits, truth, valid = example
    valid = valid if ignore_label else np.ones_like(valid)
    planes, scores = np.concatenate([truth, truth[::-1]], 1), np.concatenate([logits, logits * 0.5], 1)
    expected = np.mean([by_hand(scores[i, k], planes[i, k], valid[i, 0]) for i in range(2) for k in range(2)])
    target = torch.from_numpy(planes if ignore_label is None else np.concatenate([planes, 1 - valid], 1)).to(dtype)
    loss = StructureLoss(regions=True, ignore_label=ignore_label)(torch.from_numpy(scores), target)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_ignored_pixels_change_nothing(example):
    truth, valid = (torch.from_numpy(a) for a in example[1:])
    target = torch.where(valid.bool(), truth, 3)
    scores = torch.randn(2, 3, 20, 23)
    other = torch.where(valid.bool(), scores, torch.randn_like(scores))
    loss = StructureLoss(ignore_label=3)
    torch.testing.assert_close(loss(other, target), loss(scores, target))
    scores.requires_grad_()
    loss(scores, target).backward()
    assert (scores.grad * (1 - valid)).abs().max() == 0
    assert (scores.grad.abs().sum(1, keepdim=True) > 0).sum() == valid.sum()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_ignored_altogether_costs_nothing(channels):
    logits = torch.randn(1, channels, 8, 8, requires_grad=True)
    loss = StructureLoss(ignore_label=9)(logits, torch.full((1, 1, 8, 8), 9))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_an_error_at_the_boundary_costs_more_than_one_far_from_it(channels):
    target = torch.zeros(1, 1, 96, 96, dtype=torch.long)
    target[..., :48] = 1
    right = torch.zeros(1, channels, 96, 96)
    right[:, -1 if channels == 1 else 1] = torch.where(target[:, 0] == 1, 4.0, -4.0)

    def cost(column, **options):
        wrong, loss = right.clone(), StructureLoss(**options)
        wrong[:, :, 40:50, column] *= -1
        return (loss(wrong, target) - loss(right, target)).item()

    assert cost(47) > 1.5 * cost(24)
    assert cost(47, gain=0.0) == pytest.approx(cost(24, gain=0.0), rel=1e-4)


def test_it_falls_when_followed():
    torch.manual_seed(0)
    logits = torch.zeros(2, 3, 24, 24, requires_grad=True)
    target = torch.randint(0, 3, (2, 1, 24, 24))
    optimizer = torch.optim.Adam([logits], 0.5)
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        values.append(StructureLoss()(logits, target))
        values[-1].backward()
        optimizer.step()
    assert values[-1] < 0.1 * values[0]


def test_several_maps_add_up_and_nnunets_wrapper_takes_it(example):
    logits, truth, _ = (torch.from_numpy(a) for a in example)
    loss = StructureLoss()
    one, two = loss(logits, truth), loss(-logits, truth)
    torch.testing.assert_close(loss([logits, -logits], truth), one + two)
    wrapped = DeepSupervisionWrapper(loss, (0.5, 0.5))([logits, -logits], [truth, truth])
    torch.testing.assert_close(wrapped, (one + two) / 2)


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.randn(1, 2, 300, 300)
    target = torch.randint(0, 2, (1, 1, 300, 300))
    exact = StructureLoss()(logits.half().float(), target)
    torch.testing.assert_close(StructureLoss()(logits.half(), target), exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(StructureLoss()(logits.half(), target), exact)


@pytest.mark.parametrize(
    ("options", "logits", "target"),
    [
        ({}, (2, 2, 8, 8), (2, 2, 8, 8)),
        ({}, (2, 2, 8, 8), (2, 8, 8)),
        ({}, (1, 2, 8, 8, 8), (1, 1, 8, 8, 8)),
        ({"regions": True, "ignore_label": 3}, (2, 2, 8, 8), (2, 2, 8, 8)),
    ],
)
def test_targets_of_another_shape_are_refused(options, logits, target):
    with pytest.raises(OsasisError, match="target must be"):
        StructureLoss(**options)(torch.zeros(logits), torch.zeros(target))


def test_an_even_window_is_refused():
    with pytest.raises(OsasisError, match="got 30"):
        StructureLoss(window=30)


def test_soft_masks_count_as_they_are_and_foreign_values_are_refused():
    logits = torch.randn(1, 1, 12, 12)
    soft, hard = torch.full((1, 1, 12, 12), 0.7), torch.ones(1, 1, 12, 12)
    losses = [StructureLoss()(logits, target).item() for target in (soft, hard, 0 * hard)]
    assert len({round(loss, 4) for loss in losses}) == 3
    assert StructureLoss()(logits, hard.bool()).item() == pytest.approx(losses[1])
    for target in (255 * hard, -hard):
        with pytest.raises(OsasisError, match="between 0 and 1"):
            StructureLoss()(logits, target)
    with pytest.raises(OsasisError, match="between 0 and 2"):
        StructureLoss()(torch.randn(1, 3, 12, 12), 3 * hard)
    assert StructureLoss(ignore_label=3)(torch.randn(1, 3, 12, 12), 3 * hard).item() == 0
