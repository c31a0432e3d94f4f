"""Style in the training step: the pixels nnU-Net would have made of stylized raw images, for every normalization."""

import json
import pickle
import shutil

import blosc2
import numpy as np
import pytest
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import StructureGate
from nnunet_osasis.gate.audit import read_audit
from nnunet_osasis.gate.thresholds import CALIBRATED
from nnunet_osasis.gate.thresholds import GateThresholds
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.nnunet.cache import StylizedCache
from nnunet_osasis.nnunet.cases import open_cases
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.on_the_fly.batches import BatchStyle, Draws
from nnunet_osasis.nnunet.on_the_fly.measurements import Measurements
from nnunet_osasis.nnunet.on_the_fly.renormalize import ChannelRules
from nnunet_osasis.nnunet.on_the_fly.transfer import OnePassTransfer

from ..contracts.golden import golden_stylizer
from .conftest import RGB, VOLUME, tiny_stylizer

KEYS = ["case_0", "case_1"]
RGB01, CT, ZSCORE, NONE = ("RGBTo01", "CT", "ZScore", "No")
CPU = torch.device("cpu")


def stylizer_for(dataset):
    if dataset == RGB:
        return tiny_stylizer()
    return tiny_stylizer(channels=2).configured(intensity=IntensityRange("channel_percentile", 0.5, 99.5))


def style_of(setup, transfer, keys=KEYS, **options):
    measurements = Measurements(setup, transfer, 1.0, None)
    cases, _ = measurements.build(keys)
    settings = {"probability": 1.0, "seed": (0, 0), "device": CPU} | options
    return BatchStyle([transfer], [cases], measurements.rules, **settings)


def stored(setup, key, folder=None):
    """A preprocessed case: ``(C, H, W)`` for 2D images, ``(C, D, H, W)`` for volumes."""
    folder = setup.preprocessed_folder / setup.manager.data_identifier if folder is None else folder
    image = torch.from_numpy(blosc2.open(str(folder / f"{key}.b2nd"))[:])
    return image[:, 0] if len(setup.manager.patch_size) == 2 else image


def widen_windows(path, plans, window):
    """CT windows that most of these images lie in: nnU-Net's are the lesions' own percentiles."""
    for known in plans["foreground_intensity_properties_per_channel"].values():
        known.update(percentile_00_5=window[0], percentile_99_5=window[1])
    path.write_text(json.dumps(plans))


@pytest.mark.parametrize(
    ("dataset", "configuration", "schemes", "masked"),
    [
        (RGB, "2d", (RGB01,) * 3, False),
        (RGB, "2d", (CT,) * 3, False),
        pytest.param(RGB, "2d", (ZSCORE,) * 3, False, marks=pytest.mark.slow),
        pytest.param(RGB, "2d", (NONE,) * 3, False, marks=pytest.mark.slow),
        (VOLUME, "3d_fullres", (ZSCORE, CT), True),
        (VOLUME, "3d_fullres", (ZSCORE, ZSCORE), False),
    ],
)
def test_a_sample_is_what_the_cache_holds(home, dataset, configuration, schemes, masked):
    """Without augmentation and resampling, whole cases as patches; strengths below 1 have statistics of their own."""
    names = [f"{scheme}Normalization" for scheme in schemes]
    use_mask = [masked and scheme == ZSCORE for scheme in schemes]
    plans = home.edit_plans(dataset, configuration, normalization_schemes=names, use_mask_for_norm=use_mask)
    widen_windows(home.preprocessed(dataset) / "nnUNetPlans.json", plans, (20, 230) if dataset == RGB else (-60, 240))
    shutil.rmtree(home.preprocessed(dataset) / f"nnUNetPlans_{configuration}")
    preprocess([int(dataset[7:10])], configurations=[configuration], num_processes=[1], verbose=False)
    setup = NnunetConfiguration.load(dataset, configuration)
    transfer = OnePassTransfer(stylizer_for(dataset))
    style = style_of(setup, transfer)
    for strength in (1.0, 0.3):
        cache = StylizedCache(setup, transfer, strength)
        cache.build(KEYS)
        for row, key in enumerate(KEYS):
            before, expected = stored(setup, key), stored(setup, key, cache.folder)
            assert (expected - before).abs().mean() > 0.02 * strength
            found = style.restyle(before[None], [row], [0], np.array([strength]), 0)[0]
            clipped = torch.zeros_like(before[0], dtype=torch.bool)
            for channel in [i for i, scheme in enumerate(schemes) if scheme == CT]:
                clipped |= (before[channel] == before[channel].min()) | (before[channel] == before[channel].max())
            assert clipped.float().mean() < 0.05
            for channel in range(len(schemes)):
                was, now, wanted = before[channel], found[channel], expected[channel]
                known = ~clipped | (wanted == was)  # of what nnU-Net clipped it is only known that it lay beyond
                np.testing.assert_allclose(now[known], wanted[known], atol=1e-4)
                if use_mask[channel]:
                    assert (was == 0).any()
                    assert (now[was == 0] == 0).all()


def test_one_pass_of_a_case_is_what_the_stylizer_makes_of_it(home):
    setup = NnunetConfiguration.load(RGB, "2d")
    image, _ = open_cases(setup).native("case_3")
    stylizer = tiny_stylizer()
    for strength in (0.0, 0.4, 1.0):
        found = OnePassTransfer(stylizer).stylize_array(image, strength=strength)
        np.testing.assert_allclose(found, stylizer.stylize_array(image, strength=strength), atol=1e-3)


def test_what_is_no_image_stays(home):
    """The maps of a previous stage behind the image's channels, and the zeros that nnU-Net pads with."""
    setup = NnunetConfiguration.load(VOLUME, "3d_fullres")
    style = style_of(setup, OnePassTransfer(stylizer_for(VOLUME)))
    data = torch.cat([stored(setup, "case_0"), torch.ones(1, *stored(setup, "case_0").shape[1:])])[None]
    data[:, :, :3] = 0
    kept = data.clone()
    found = style(data, ["case_0"], epoch=0, step=0)
    assert torch.equal(found[:, 2], kept[:, 2])
    assert torch.equal(found[:, :, :3], kept[:, :, :3])
    assert not torch.equal(found[:, :2], kept[:, :2])
    assert torch.equal(data, kept)


def test_draws_are_fresh_at_every_step_and_repeat():
    def draw(*seed):
        return Draws.draw(seed, 1000, probability=0.3, styles=3)

    first, again = draw(7, 0, 4, 2), draw(7, 0, 4, 2)
    for name in ("drawn", "share", "style"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        for other in ((8, 0, 4, 2), (7, 1, 4, 2), (7, 0, 5, 2), (7, 0, 4, 3)):  # seed, rank, epoch, step
            assert not np.array_equal(getattr(first, name), getattr(draw(*other), name))
    assert abs(first.drawn.mean() - 0.3) < 0.06
    assert abs(first.share.mean() - 0.5) < 0.05
    assert set(first.style) == {0, 1, 2}


def test_only_drawn_samples_change_each_by_its_own_strength(home):
    setup = NnunetConfiguration.load(RGB, "2d")
    style = style_of(setup, OnePassTransfer(tiny_stylizer()), probability=0.5)
    data = torch.stack([stored(setup, "case_0")] * 16)
    found = style(data, ["case_0"] * 16, epoch=0, step=0)
    drawn = style.draws(16, epoch=0, step=0).drawn
    changed = (found - data).abs().flatten(1).mean(1)
    np.testing.assert_array_equal(changed.numpy() > 0, drawn)
    assert len(set(changed[torch.from_numpy(drawn)].tolist())) == drawn.sum() > 3
    never = style_of(setup, OnePassTransfer(tiny_stylizer()), probability=0.0)
    assert never(data, ["case_0"] * 16, epoch=0, step=0) is data


def test_the_gate_limits_a_cases_strength_beforehand(home):
    """Nothing passes impossible thresholds: such cases stay, and the audit says so."""
    setup = NnunetConfiguration.load(RGB, "2d")
    transfer = OnePassTransfer(tiny_stylizer())
    gate = StructureGate(GateThresholds(dict.fromkeys(CALIBRATED, 1.0)), transfer.stylizer.config.intensity)
    strict = Measurements(setup, transfer, 1.0, gate)
    cases, made = strict.build(KEYS)
    assert made == KEYS
    assert {case.strength for case in cases.values()} == {0.0}
    assert {row["decision"] for row in read_audit(strict.audit)} == {"original"}
    style = BatchStyle([transfer], [cases], strict.rules, probability=1.0, seed=(0, 0), device=CPU)
    data = stored(setup, "case_0")[None]
    assert style(data, ["case_0"], epoch=0, step=0) is data


def test_cases_are_measured_once_and_again_when_they_change(home):
    setup = NnunetConfiguration.load(RGB, "2d")

    def measured(keys):
        return Measurements(setup, OnePassTransfer(tiny_stylizer()), 1.0, None).build(keys)

    first, made = measured(KEYS)
    assert made == KEYS
    again, made = measured([*KEYS, "case_2"])
    assert made == ["case_2"]
    assert again["case_0"].numbers == first["case_0"].numbers
    files = sorted(home.preprocessed(RGB).glob("*_on_the_fly/cases/case_0.json"))
    files[0].write_text(files[0].read_text().replace("1.0", "0.5"))
    assert measured(KEYS)[1] == ["case_0"]


def test_a_normalization_that_cannot_be_done_again_for_a_patch_is_refused(home):
    home.edit_plans(RGB, "2d", normalization_schemes=["RescaleTo01Normalization"] * 3)
    with pytest.raises(OsasisError, match="RescaleTo01") as caught:
        ChannelRules.of(NnunetConfiguration.load(RGB, "2d"))
    assert 'Leave "on_the_fly" out' in str(caught.value)


def test_a_worker_gets_the_student_and_no_diffusion_network():
    """A transfer travels to workers as a pickle; its read-out runs networks, but the student does the work."""
    stylizer = golden_stylizer(readout="local_affine")
    transfer = OnePassTransfer(stylizer)
    copied = pickle.loads(pickle.dumps(transfer))  # noqa: S301 (our own bytes)
    assert list(copied.stylizer.networks) == ["student"]
    assert copied.fingerprint == transfer.fingerprint
    images, strengths = torch.rand(2, 3, 20, 24) * 2 - 1, torch.tensor([0.4, 1.0])
    assert torch.equal(copied.restyle(images, strengths), transfer.restyle(images, strengths))
    torch.testing.assert_close(copied.restyle(images, strengths), stylizer.as_module()(images, strengths))
