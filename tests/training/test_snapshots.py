"""The adaptation keeps the weights that score best, and the score needs no truth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from specimens import SIZE, tiny_adaptation, tiny_preset, unit_images

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.training.adaptation import adapt as adaptation
from nnunet_osasis.training.adaptation import selection as snapshots
from nnunet_osasis.training.adaptation.adapt import adapt
from nnunet_osasis.training.adaptation.embedders import make_embedder
from nnunet_osasis.training.adaptation.recipes import AdaptConfig, get_recipe
from nnunet_osasis.training.adaptation.selection import Score, Selection, score_pictures
from nnunet_osasis.training.adaptation.steps import SELECTED
from nnunet_osasis.training.checkpoint import EMA

STYLE_A = unit_images(1, first=20) * 0.6
STYLE_B = STYLE_A * 0.7 + 0.2


def networks() -> tuple[DiffusionAutoencoder, StructurePreservingNetwork]:
    """Fresh tiny networks, the same every time."""
    torch.manual_seed(0)
    preset = tiny_preset()
    model = DiffusionAutoencoder(in_channels=3, **preset.model).eval().requires_grad_(False)
    return model, StructurePreservingNetwork(in_channels=3, **preset.spn)


def run(work: Path, *, resume: bool = False, **changes: object) -> list[torch.Tensor]:
    """Adapt for a few iterations; returns all the weights that come out."""
    config = tiny_adaptation(**{"iterations": 6, "checkpoint_every": 3, "select_every": 2, **changes})
    model, spn = networks()
    embed = make_embedder(None, model.semantic_encoder, unit_images(4))
    made = adapt(model, spn, embed, unit_images(6), STYLE_A, STYLE_B, config, work=work, resume=resume)
    return [value.clone() for module in made for value in module.state_dict().values()]


def equal(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def rows(work: Path) -> list[dict]:
    """The log without its times."""
    lines = (work / "adapt.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def script_scores(patch: pytest.MonkeyPatch, structures: list[float]) -> None:
    left: Iterator[float] = iter(structures)
    patch.setattr(snapshots, "score_pictures", lambda *_: Score(next(left), 0.25))


class Stop(Exception):
    """Stands for a power cut."""


def stop_at(patch: pytest.MonkeyPatch, iteration: int) -> None:
    real = adaptation.Adaptation.iterate

    def cut(self: adaptation.Adaptation, content: torch.Tensor, number: int) -> dict:
        if number == iteration:
            raise Stop
        return real(self, content, number)

    patch.setattr(adaptation.Adaptation, "iterate", cut)


# --- the score ------------------------------------------------------------------------------------------------------


def everything(images: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(images[:, :1], dtype=torch.bool)


def test_the_unchanged_source_has_all_structure_and_all_of_the_gap() -> None:
    images = unit_images(3)
    found = score_pictures(images, images, images * 0.7 + 0.2, everything(images))
    assert found.structure == pytest.approx(1, abs=1e-6)
    assert found.style_gap == pytest.approx(1, abs=1e-6)
    assert found.total == pytest.approx(0, abs=1e-6)


def test_the_expected_picture_has_no_gap() -> None:
    images = unit_images(3)
    expected = images * 0.7 + 0.2
    found = score_pictures(expected, images, expected, everything(images))
    assert found.style_gap == 0
    assert found.structure == pytest.approx(1, abs=1e-5)  # one gain for all channels keeps the edges' proportions


def test_noise_in_the_right_colours_scores_less_than_the_expected_picture() -> None:
    images = unit_images(3)
    expected = images * 0.7 + 0.2
    noisy = expected + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    view = everything(images)
    assert score_pictures(noisy, images, expected, view).total < score_pictures(expected, images, expected, view).total


def test_what_happens_in_the_frame_does_not_count() -> None:
    images = unit_images(2)
    view = everything(images)
    view[..., :6] = False
    painted = torch.where(view, images, torch.rand(images.shape, generator=torch.Generator().manual_seed(0)))
    expected = images * 0.7 + 0.2
    assert score_pictures(painted, images, expected, view) == score_pictures(images, images, expected, view)


def test_degenerate_pictures_get_a_finite_score() -> None:
    images = unit_images(2)
    same = score_pictures(images, images, images, everything(images))  # a pair without any change of colour
    assert same.style_gap == 0
    flat = score_pictures(torch.zeros_like(images), torch.zeros_like(images), images, everything(images))
    assert flat.structure == 0
    nothing = score_pictures(images, images, images, ~everything(images))
    assert nothing == Score(0.0, 0.0)


def test_expectation_is_the_pairs_affine_map_on_at_most_four_sources() -> None:
    model, spn = networks()
    averages = {"decoder": EMA(model.unet, 0.9), "spn": EMA(spn, 0.9)}
    for count, used in ((9, 4), (3, 3)):
        sources = unit_images(count) * 0.5
        selection = Selection(model, sources, STYLE_A, STYLE_B, tiny_adaptation().sampler, averages)
        assert selection.images.shape == (used, 3, SIZE, SIZE)
        assert torch.equal(selection.images[-1], sources[-1])
        torch.testing.assert_close(selection.expected, selection.images * 0.7 + 0.2, atol=0.02, rtol=0)


def test_scoring_leaves_the_training_as_it_was() -> None:
    model, spn = networks()
    averages = {"decoder": EMA(model.unet, 0.9), "spn": EMA(spn, 0.9)}
    selection = Selection(model, unit_images(4), STYLE_A, STYLE_B, tiny_adaptation().sampler, averages)
    with torch.no_grad():
        next(iter(model.unet.parameters())).add_(1)
    before = [value.clone() for value in model.unet.state_dict().values()]
    selection.consider(1, model.unet, spn)
    assert equal(before, list(model.unet.state_dict().values()))


# --- what is kept ---------------------------------------------------------------------------------------------------


def test_scores_are_logged_and_the_chosen_iteration_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="nnunet_osasis.training.adaptation.adapt"):
        run(tmp_path, iterations=5)
    log = rows(tmp_path)
    scored = [row for row in log if "score" in row]
    assert [row["iteration"] for row in log] == [1, 2, 3, 4, 5]
    assert [row["iteration"] for row in scored] == [2, 4, 5]  # and the last one
    for row in scored:
        assert row["score"] == pytest.approx(row["structure"] - row["style_gap"], abs=1e-5)
    told = json.loads((tmp_path / SELECTED).read_text())
    best = max(scored, key=lambda row: row["score"])
    assert told["iteration"] == best["iteration"]
    assert told["score"] == pytest.approx(best["score"], rel=1e-5)
    assert f"iteration {told['iteration']} of 5" in caplog.text


@pytest.mark.slow
def test_a_better_early_snapshot_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script_scores(monkeypatch, [0.8, 0.9, 0.1])
    found = run(tmp_path / "scored", decay=False)
    assert json.loads((tmp_path / "scored" / SELECTED).read_text())["iteration"] == 4
    assert equal(found, run(tmp_path / "shorter", decay=False, iterations=4, select_every=0))
    assert not equal(found, run(tmp_path / "last", decay=False, select_every=0))


@pytest.mark.slow
def test_a_wrecked_end_is_not_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation, "cosine", lambda iteration, _: 1.0 if iteration < 2 else 1000.0)
    found = run(tmp_path / "whole")
    assert json.loads((tmp_path / "whole" / SELECTED).read_text())["iteration"] == 2
    assert equal(found, run(tmp_path / "sound", iterations=2))


@pytest.mark.parametrize(
    "structures",
    [
        None,
        [0.1, 0.9, 0.2],
        pytest.param([0.9, 0.1, 0.2], marks=pytest.mark.slow),
        pytest.param([0.1, 0.2, 0.9], marks=pytest.mark.slow),
    ],
)
def test_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, structures: list[float] | None
) -> None:
    """Cut after the checkpoint of iteration 3 and the second score, which therefore is made again."""

    def scored(patch: pytest.MonkeyPatch, part: slice) -> None:
        if structures is not None:
            script_scores(patch, structures[part])

    with monkeypatch.context() as patch:
        scored(patch, slice(None))
        whole = run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        scored(patch, slice(2))
        stop_at(patch, 4)
        with pytest.raises(Stop):
            run(tmp_path / "cut")
    with monkeypatch.context() as patch:
        scored(patch, slice(1, None))
        weights = run(tmp_path / "cut", resume=True)
    assert equal(whole, weights)
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")
    assert (tmp_path / "whole" / SELECTED).read_bytes() == (tmp_path / "cut" / SELECTED).read_bytes()
    assert equal(whole, run(tmp_path / "cut", resume=True))  # finished: the checkpoint holds the choice


def test_without_selection_the_last_averages_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script_scores(monkeypatch, [])  # nothing may be scored
    kept: dict[str, EMA] = {}
    real = adaptation.Adaptation.finish

    def spy(self: adaptation.Adaptation, work: Path) -> None:
        kept.update(self.averages)
        real(self, work)

    monkeypatch.setattr(adaptation.Adaptation, "finish", spy)
    found = run(tmp_path, select_every=0)
    assert equal(found, [v for name in ("decoder", "spn") for v in kept[name].weights.values()])
    assert not (tmp_path / SELECTED).exists()
    assert all("score" not in row for row in rows(tmp_path))


@pytest.mark.slow
def test_selection_does_not_change_the_training(tmp_path: Path) -> None:
    run(tmp_path / "with")
    run(tmp_path / "without", select_every=0)
    told = [[row["loss"] for row in rows(tmp_path / name)] for name in ("with", "without")]
    assert told[0] == told[1]


def test_pictures_that_are_never_finite_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script_scores(monkeypatch, [float("nan")] * 3)
    with pytest.raises(OsasisError, match="finite"):
        run(tmp_path)


def test_the_setting_and_its_limits() -> None:
    assert AdaptConfig().select_every == 5
    assert get_recipe("osasis").select_every == 0  # the published configuration keeps the last
    with pytest.raises(OsasisError, match="select_every"):
        AdaptConfig(select_every=-1)
