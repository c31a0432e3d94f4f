"""The calibrator: what it learns, that it learns the same again, and how its answers and the pairs are judged."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from specimens import randomise, tiny_calibration, unit_images

from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.gate.structure import structure_agreement
from nnunet_osasis.maps.color import difference
from nnunet_osasis.maps.field_of_view import find_frame, own_view
from nnunet_osasis.maps.parametric import TERMS, feature_count
from nnunet_osasis.stylizer.calibrator import Calibrator, CalibratorConfig, describe
from nnunet_osasis.synthetic.acquisition import FAMILIES, Parameters, register, uniform
from nnunet_osasis.training import calibrate
from nnunet_osasis.training.calibrate import (
    Simulation,
    random_crop,
    simulate,
    split_scenes,
    train_calibrator,
    try_calibrator,
    warn_if_outlying,
)
from nnunet_osasis.training.loop import one_cycle
from nnunet_osasis.training.style_pair import PairQuality, pair_quality

SOURCES = unit_images(16)


class Dimmer:
    """One strong gain for every channel, and nothing else: seen at a glance."""

    terms = ()

    def sample(self, count: int, channels: int, generator: torch.Generator, strength: float = 1.0) -> Parameters:
        return {"gain": uniform(count, 0.3, 1.0, generator, channels, 1)}

    def show(self, values: torch.Tensor, where: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        return (values + 1) * parameters["gain"] - 1

    def degrade(self, images: torch.Tensor, parameters: Parameters, generator: torch.Generator) -> torch.Tensor:
        return images


class Broken(Dimmer):
    """Shows nothing but NaN."""

    def show(self, values: torch.Tensor, where: torch.Tensor, parameters: Parameters) -> torch.Tensor:
        return values * float("nan")


@pytest.fixture(scope="module", autouse=True)
def _families() -> Iterator[None]:
    added = {"test_calibrator.dimmer": Dimmer, "test_calibrator.broken": Broken}
    for name, family in added.items():
        register(name)(family)
    yield
    for name in added:
        del FAMILIES[name]


DIMMED = tiny_calibration(
    family="test_calibrator.dimmer", iterations=60, batch_size=8, pixels=60, learning_rate=3e-3, simulations=8,
    checkpoint_every=1000,
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Calibrator:
    """A calibrator that knows dimmers, after a second."""
    return train_calibrator(SOURCES, DIMMED, work=tmp_path_factory.mktemp("trained"))


def weights(net: Calibrator) -> list[torch.Tensor]:
    return [value.clone() for value in net.state_dict().values()]


def equal(a: Calibrator, b: Calibrator) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


# --- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", [(), ("quadratic", "radial"), TERMS])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_untrained_calibrator_changes_nothing(channels: int, terms: tuple[str, ...]) -> None:
    net = Calibrator(channels, terms, 32, low=(-1.0,) * channels, high=(1.0,) * channels)
    images = unit_images(2, channels=channels)
    assert net(images).shape == (2, 2, channels, feature_count(channels, terms))
    for one in net.maps(images[:1]):
        assert torch.equal(one(images), images)


def test_maps_hold_the_coefficients_and_the_sources_range() -> None:
    net = randomise(Calibrator(3, low=(-0.9, -0.8, -0.7), high=(0.7, 0.8, 0.9))).eval()
    forth, back = net.maps(SOURCES[:1])
    expected = net(SOURCES[:1])[0]
    torch.testing.assert_close(forth.coefficients, expected[0])
    torch.testing.assert_close(back.coefficients, expected[1])
    assert [forth.to_json()[name] for name in ("low", "high")] == [[-0.9, -0.8, -0.7], [0.7, 0.8, 0.9]]
    assert [back.to_json()[name] for name in ("low", "high")] == [[-1.0] * 3, [1.0] * 3]  # of an unknown target


def test_a_calibrator_comes_back_from_its_folder(tmp_path: Path) -> None:
    net = randomise(Calibrator(2, TERMS, 32, low=(-0.9, -0.8), high=(0.8, 0.9))).eval()
    net.normalize_by(unit_images(4, channels=2))
    net.save_pretrained(tmp_path)
    again = Calibrator.from_pretrained(tmp_path, local_files_only=True).eval()
    assert equal(again, net)
    for found, expected in zip(
        again.maps(unit_images(1, channels=2, first=30)), net.maps(unit_images(1, channels=2, first=30)), strict=True
    ):
        assert found.terms == expected.terms
        for name, buffer in found.named_buffers():
            torch.testing.assert_close(buffer, expected.get_buffer(name))


def framed(value: float, channels: int, *, part: slice) -> torch.Tensor:
    """Black but for a square."""
    image = torch.full((1, channels, 32, 32), -1.0)
    image[..., part, part] = value
    return image


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize(
    ("value", "part"),
    [(-1.0, slice(None)), (0.3, slice(None)), (1.0, slice(None)), (0.5, slice(15, 16)), (0.5, slice(14, 20))],
    ids=["black", "one colour", "white", "one pixel in a frame", "six by six in a frame"],
)
def test_every_picture_can_be_described(channels: int, value: float, part: slice) -> None:
    image = framed(value, channels, part=part)
    known = describe(image)
    assert known.shape == describe(unit_images(1, channels=channels)).shape
    assert torch.isfinite(known).all()
    net = randomise(Calibrator(channels, (), 32, low=(-1.0,) * channels, high=(1.0,) * channels)).eval()
    net.normalize_by(unit_images(4, channels=channels))
    assert torch.isfinite(net(image)).all()


def test_the_description_leaves_the_frame_out_and_tells_one_image_from_another() -> None:
    bright = unit_images(2).clamp(min=-0.7)
    framed_ones = torch.nn.functional.pad(bright, (8, 8, 8, 8), value=-1.0)
    torch.testing.assert_close(describe(framed_ones), describe(bright), atol=1e-5, rtol=1e-5)
    together = describe(bright)
    torch.testing.assert_close(together[:1], describe(bright[:1]))
    assert not torch.allclose(together[0], together[1], atol=1e-2)
    torch.testing.assert_close(together[:, :3], bright.mean(dim=(2, 3)))  # the means come first


# --- training ---------------------------------------------------------------------------------------------------------


def distance_to_truth(net: Calibrator, *, swapped: int = 0) -> tuple[float, float]:
    """Mean distance to what six unseen dimmers show, with the calibrator and without transfer.

    ``swapped``: each map is taken from the reference of another dimmer.
    """
    scenes, family = unit_images(4, first=80), Dimmer()
    references, parameters = simulate(
        unit_images(6, first=50), family, DIMMED, torch.Generator().manual_seed(9), 6
    )  # fmt: skip
    mapped, plain = [], []
    for i in range(6):
        truth = family.show(scenes.flatten(2), torch.zeros(1, 3, 1), {"gain": parameters["gain"][i : i + 1]})
        other = (i + swapped) % 6
        one = net.maps(references[other : other + 1])[0]
        mapped.append(difference(one(scenes).clamp(-1, 1).flatten(2), truth).mean())
        plain.append(difference(scenes.flatten(2), truth).mean())
    return float(torch.stack(mapped).mean()), float(torch.stack(plain).mean())


def test_it_reads_the_acquisition_from_references_it_has_not_seen(trained: Calibrator) -> None:
    """Far nearer to the truth than no transfer, and than the map of another reference: it looks, it does not guess."""
    right, plain = distance_to_truth(trained)
    wrong, _ = distance_to_truth(trained, swapped=1)
    assert right < 0.4 * plain
    assert right < 0.4 * wrong
    assert not trained.training
    assert not any(parameter.requires_grad for parameter in trained.parameters())


def test_it_reads_the_way_back_too(trained: Calibrator) -> None:
    reference = Dimmer().show(SOURCES[:1].flatten(2), torch.zeros(1, 3, 1), {"gain": torch.full((1, 3, 1), 0.5)})
    forth, back = trained.maps(reference.view(1, 3, 32, 32))
    scenes = unit_images(4, first=80)
    again = back(forth(scenes))
    assert (again - scenes).abs().mean() < 0.4 * (forth(scenes) - scenes).abs().mean()


def test_the_log_tells_the_loss(tmp_path: Path) -> None:
    train_calibrator(SOURCES, replace(DIMMED, iterations=25), work=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "calibrator.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [10, 20, 25]
    assert all(math.isfinite(row[name]) for row in rows for name in ("loss", "forward", "inverse", "grad_norm"))
    assert rows[-1]["forward"] < rows[0]["forward"]


def saved(net: Calibrator, folder: Path) -> bytes:
    net.save_pretrained(folder)
    return (folder / "diffusion_pytorch_model.safetensors").read_bytes()


@pytest.mark.parametrize("channels", [1, 3])
def test_one_seed_gives_one_calibrator_byte_for_byte(channels: int, tmp_path: Path) -> None:
    def build(name: str, seed: int) -> bytes:
        torch.manual_seed(len(name))  # what was drawn before has no say
        config = tiny_calibration(seed=seed)
        net = train_calibrator(unit_images(6, channels=channels), config, work=tmp_path / name / "work")
        return saved(net, tmp_path / name)

    assert build("a", 0) == build("another", 0)
    assert build("b", 1) != build("c", 2)


class Stop(Exception):
    """Stands for a power cut."""


def fail_at(patch: pytest.MonkeyPatch, iteration: int, *, ctrl_c: bool) -> None:
    """At that iteration's draw, the power fails or someone presses Ctrl-C."""
    calls = []

    def cut(*args: object) -> tuple:
        calls.append(1)
        if len(calls) == iteration:
            if not ctrl_c:
                raise Stop
            os.kill(os.getpid(), signal.SIGINT)
        return simulate(*args)  # type: ignore[arg-type]

    patch.setattr(calibrate, "simulate", cut)


@pytest.mark.parametrize("ctrl_c", [False, True], ids=["power cut", "Ctrl-C"])
@pytest.mark.parametrize("iteration", [1, 4, 7])
def test_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, iteration: int, ctrl_c: bool
) -> None:
    config = tiny_calibration(iterations=8, checkpoint_every=3)
    whole = train_calibrator(SOURCES, config, work=tmp_path / "whole")
    with monkeypatch.context() as patch:
        fail_at(patch, iteration, ctrl_c=ctrl_c)
        with pytest.raises(KeyboardInterrupt if ctrl_c else Stop):
            train_calibrator(SOURCES, config, work=tmp_path / "cut")
    assert (tmp_path / "cut/calibrator.safetensors").exists() == (ctrl_c or iteration > 3)
    resumed = train_calibrator(SOURCES, config, work=tmp_path / "cut", resume=True)
    assert equal(whole, resumed)
    logs = [
        [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in (tmp_path / d).open()]
        for d in ("whole/calibrator.jsonl", "cut/calibrator.jsonl")
    ]
    assert logs[0] == logs[1]


def test_a_finished_training_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train_calibrator(SOURCES, tiny_calibration(), work=tmp_path)
    fail_at(monkeypatch, 1, ctrl_c=False)
    assert equal(train_calibrator(SOURCES, tiny_calibration(checkpoint_every=7), work=tmp_path, resume=True), first)


def test_a_resume_with_other_images_or_settings_is_refused(tmp_path: Path) -> None:
    train_calibrator(SOURCES, tiny_calibration(), work=tmp_path)
    for images, config in [
        (SOURCES[1:], tiny_calibration()),
        (SOURCES, tiny_calibration(iterations=5)),
        (SOURCES, tiny_calibration(seed=1)),
        (SOURCES, tiny_calibration(strength=0.5)),
    ]:
        with pytest.raises(OsasisError, match="same images and settings"):
            train_calibrator(images, config, work=tmp_path, resume=True)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_are_refused(tmp_path: Path, count: int) -> None:
    with pytest.raises(OsasisError, match="at least 2"):
        train_calibrator(SOURCES[:count], tiny_calibration(), work=tmp_path)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_few_images_are_enough(tmp_path: Path, count: int) -> None:
    net = train_calibrator(SOURCES[:count], tiny_calibration(), work=tmp_path)
    assert all(torch.isfinite(value).all() for value in weights(net))


def test_images_larger_than_the_calibrators_side_are_looked_at_small(tmp_path: Path) -> None:
    large = torch.nn.functional.interpolate(unit_images(4), size=(96, 96), mode="bilinear")
    assert train_calibrator(large, tiny_calibration(iterations=1), work=tmp_path).config.sample_size == 64


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    with pytest.raises(OsasisError, match=r"finite.*iteration 1"):
        train_calibrator(SOURCES, replace(DIMMED, family="test_calibrator.broken"), work=tmp_path)
    assert not (tmp_path / "calibrator.safetensors").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterations": -1}, {"batch_size": 0}, {"pixels": 0}, {"simulations": 0}, {"checkpoint_every": 0},
        {"crop": 1.0}, {"crop": -0.1}, {"crop": float("nan")}, {"strength": 0.0}, {"strength": -1.0},
        {"strength": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(OsasisError, match="calibrator"):
        CalibratorConfig(**wrong)  # type: ignore[arg-type]


def test_the_learning_rate_rises_then_falls() -> None:
    rates = [one_cycle(i, 100) for i in range(100)]
    peak = rates.index(max(rates))
    assert 25 <= peak <= 35
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[0] < 0.06
    assert rates[-1] == pytest.approx(1e-4)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert all(0 < one_cycle(0, short) <= 1 for short in (1, 2, 3))


# --- scenes and simulated references ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "kept"), [(16, 14), (17, 15), (8, 7), (4, 3)])
def test_the_last_eighth_of_the_scenes_is_held_out(count: int, kept: int) -> None:
    images = torch.arange(count)
    scenes, held = split_scenes(images)
    assert scenes.tolist() == list(range(kept))
    assert held.tolist() == list(range(kept, count))


@pytest.mark.parametrize("count", [2, 3])
def test_of_very_few_scenes_none_is_held_out(count: int) -> None:
    scenes, held = split_scenes(torch.arange(count))
    assert scenes.tolist() == held.tolist() == list(range(count))


def test_held_out_scenes_have_no_say_in_the_training(tmp_path: Path) -> None:
    changed = SOURCES.clone()
    changed[-2:] = -changed[-2:]
    first, second = (
        train_calibrator(images, tiny_calibration(), work=tmp_path / str(i))
        for i, images in enumerate((SOURCES, changed))
    )
    assert equal(first, second)


def test_crops_keep_size_and_values_and_without_cropping_only_flips_are_left() -> None:
    generator = torch.Generator().manual_seed(0)
    found = random_crop(SOURCES, 0.6, generator)
    assert found.shape == SOURCES.shape
    assert found.min() >= SOURCES.min() and found.max() <= SOURCES.max()
    assert not torch.equal(found, SOURCES)
    for image, flipped in zip(SOURCES, random_crop(SOURCES, 0.0, generator), strict=True):
        ways = [image, image.flip(-1), image.flip(-2), image.flip(-1, -2)]
        assert any(torch.allclose(flipped, way, atol=1e-6) for way in ways)


def test_simulated_references_have_a_frame_that_the_processor_drew() -> None:
    scenes = torch.nn.functional.pad(unit_images(4).clamp(min=-0.7), (8, 8, 8, 8), value=-1.0)
    family = FAMILIES["camera"]()
    config = CalibratorConfig(crop=0.0)
    found, parameters = simulate(scenes, family, config, torch.Generator().manual_seed(0), 5, find_frame(scenes))
    assert found.shape == (5, 3, 48, 48)
    assert {len(value) for value in parameters.values()} == {5}
    frame = torch.ones(48, 48, dtype=torch.bool)
    frame[8:-8, 8:-8] = False
    levels = found[..., frame].flatten(1)
    assert torch.equal(levels, levels[:, :1].expand_as(levels))
    assert levels.min() >= -1
    assert levels.max() <= -0.8
    assert len(levels[:, 0].unique()) == 5
    assert found.abs().max() <= 1


def test_the_calibrators_worth_on_simulated_references_is_finite_and_repeats(trained: Calibrator) -> None:
    found, again = (try_calibrator(trained, SOURCES, DIMMED) for _ in range(2))
    assert found == again
    assert found.references == DIMMED.simulations
    assert all(math.isfinite(value) for value in found.to_json().values())
    assert found.calibrator < 0.5 * found.no_transfer
    assert found.moments < found.no_transfer
    assert found.mean < max(found.moments, found.calibrator) + 1e-6
    assert found.disagreement > 0
    assert try_calibrator(trained, SOURCES, replace(DIMMED, seed=5)) != found
    assert json.loads(json.dumps(found.to_json()))["references"] == DIMMED.simulations


@pytest.mark.parametrize("channels", [1, 2])
def test_an_untrained_calibrator_is_worth_no_transfer(channels: int) -> None:
    net = Calibrator(channels, (), 32, low=(-1.0,) * channels, high=(1.0,) * channels)
    found = try_calibrator(net, unit_images(8, channels=channels), tiny_calibration())
    assert found.calibrator == pytest.approx(found.no_transfer)
    assert all(math.isfinite(value) for value in found.to_json().values())


def test_an_outlying_reference_is_told(caplog: pytest.LogCaptureFixture) -> None:
    simulation = Simulation(8, 20.0, 9.0, 5.0, 4.0, 11.0)
    assert not warn_if_outlying(10.9, simulation, "The reference")
    assert not warn_if_outlying(11.0, simulation, "The reference")
    assert not caplog.records
    assert warn_if_outlying(23.4, simulation, "The reference")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "The reference" in caplog.text
    assert "23.4" in caplog.text and "11.0" in caplog.text
    assert "--style" in caplog.text


# --- how good a pair is -----------------------------------------------------------------------------------------------


def blurred(images: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)


def test_structure_is_1_for_the_same_picture_and_less_for_a_moved_or_blurred_one() -> None:
    images = unit_images(4)
    torch.testing.assert_close(structure_agreement(images, images), torch.ones(4))
    torch.testing.assert_close(
        structure_agreement(0.5 * images + 0.1, images), torch.ones(4)
    )  # colour is not structure
    for other in (images.roll(3, dims=-1), blurred(images), images.flip(-2)):
        assert (structure_agreement(other, images) < 0.9).all()
    assert torch.equal(structure_agreement(torch.zeros_like(images), images), torch.zeros(4))


def test_a_pair_of_equal_pictures_has_structure_and_no_spread(stylizer: OSASISStylizer) -> None:
    model, y = stylizer.autoencoder, SOURCES[:1]
    same = pair_quality(model, y, y, SOURCES)
    assert same.structure == pytest.approx(1)
    assert same.sample_spread == 0  # of one
    thrice = pair_quality(model, y, y.expand(3, -1, -1, -1), SOURCES)
    assert thrice.sample_spread == pytest.approx(0, abs=1e-4)
    assert thrice.source_likelihood == same.source_likelihood
    for other in (y.roll(3, dims=-1), blurred(y)):
        assert pair_quality(model, y, other, SOURCES).structure < 0.9


def test_samples_that_differ_have_a_spread_inside_the_view(stylizer: OSASISStylizer) -> None:
    y = SOURCES[:1].clamp(min=-0.7)
    y[..., :8] = -1
    assert not own_view(y)[..., :8].any()
    outside = y.repeat(2, 1, 1, 1)
    outside[1, :, :, :8] = 0.5
    assert pair_quality(stylizer.autoencoder, y, outside, SOURCES).sample_spread == pytest.approx(0, abs=1e-4)
    inside = y.repeat(2, 1, 1, 1)
    inside[1] *= 0.5
    assert pair_quality(stylizer.autoencoder, y, inside, SOURCES).sample_spread > 1


@pytest.mark.parametrize("count", [1, 5, 16])
def test_likelihood_is_a_share_of_the_sources(stylizer: OSASISStylizer, count: int) -> None:
    noisy = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for counterparts in (SOURCES[3:4], noisy, torch.zeros(1, 3, 32, 32)):
        found = pair_quality(stylizer.autoencoder, SOURCES[:1], counterparts, SOURCES[:count])
        assert 0 <= found.source_likelihood <= 1
        assert found.source_likelihood * count == pytest.approx(round(found.source_likelihood * count))
        assert found == pair_quality(stylizer.autoencoder, SOURCES[:1], counterparts, SOURCES[:count])


def test_scores_are_written_short() -> None:
    assert PairQuality(0.123456, 0.5, 2.0).to_json() == {
        "structure": 0.1235,
        "source_likelihood": 0.5,
        "sample_spread": 2.0,
    }
