"""Distilling: the teacher runs once, a killed run goes on to the same bytes, and what was learned is on record."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from specimens import tiny_distillation, unit_images

from nnunet_osasis import OsasisError
from nnunet_osasis.maps.local_affine import fit_local_affine
from nnunet_osasis.maps.resize import line_weights, resample
from nnunet_osasis.runtime.records import read_jsonl
from nnunet_osasis.stylizer.student import FieldNetwork, Student, apply_field
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.training import distil
from nnunet_osasis.training.distil import DistilConfig, compare, fidelity, style_distance, teacher_pairs, train_student

WORKS = {"teacher": "local_affine"}


def train(work: Path, config: DistilConfig, *, resume: bool = False) -> Student:
    before = unit_images(6)
    return train_student(before, (0.6 * before + 0.2).clamp(-1, 1), config, work=work, resume=resume, **WORKS)


def equal(one: Student, other: Student) -> bool:
    others = other.state_dict()
    return all(torch.equal(value, others[name]) for name, value in one.state_dict().items())


def test_a_student_learns_its_teachers_change_both_ways(tmp_path: Path) -> None:
    student = train(tmp_path, tiny_distillation(iterations=40, batch_size=2, learning_rate=1e-2))
    images = unit_images(8)[6:]
    truths = 0.6 * images + 0.2
    found = fidelity(student, images, truths)
    for way, change in (("source_to_target", (images, truths)), ("target_to_source", (truths, images))):
        unchanged = compare(change[0], change[0], change[1])
        assert found[way]["psnr"] > unchanged["psnr"] + 3
        assert found[way]["style_distance"] < unchanged["style_distance"] / 2


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole", tiny_distillation(iterations=4))
    steps = []

    def stop(*args: object) -> torch.Tensor:
        steps.append(1)
        if len(steps) > 5:  # two losses a step: in the third
            raise RuntimeError("killed")
        return imitation_loss(*args)

    imitation_loss = distil.imitation_loss
    monkeypatch.setattr(distil, "imitation_loss", stop)
    with pytest.raises(RuntimeError, match="killed"):
        train(tmp_path / "parts", tiny_distillation(iterations=4))
    monkeypatch.undo()
    assert equal(train(tmp_path / "parts", tiny_distillation(iterations=4), resume=True), whole)
    assert equal(train(tmp_path / "parts", tiny_distillation(iterations=4), resume=True), whole)  # finished: read
    assert [row["iteration"] for row in read_jsonl(tmp_path / "parts/student.jsonl")] == [4]


def test_a_training_goes_on_only_with_its_own_settings(tmp_path: Path) -> None:
    train(tmp_path, tiny_distillation(iterations=2))
    with pytest.raises(OsasisError, match="same images and settings"):
        train(tmp_path, tiny_distillation(iterations=2, learning_rate=1e-4), resume=True)


def test_the_teacher_restyles_every_image_once(
    stylizer: OSASISStylizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distil, "BATCH", 2)
    monkeypatch.setattr(distil, "SAVE_EVERY", 1)
    sources, seen, stylize = unit_images(5), [], OSASISStylizer.stylize

    def count(self: OSASISStylizer, images: torch.Tensor, **options: object) -> torch.Tensor:
        if len(seen) == 2:
            seen.append(0)
            raise RuntimeError("killed")
        seen.append(len(images))
        return stylize(self, images, **options)

    monkeypatch.setattr(OSASISStylizer, "stylize", count)
    with pytest.raises(RuntimeError, match="killed"):
        teacher_pairs(stylizer, sources, "local_affine", work=tmp_path)
    found = teacher_pairs(stylizer, sources, "local_affine", work=tmp_path, resume=True)
    assert seen == [2, 2, 0, 1]
    assert torch.equal(teacher_pairs(stylizer, sources, "local_affine", work=tmp_path, resume=True), found)
    assert seen == [2, 2, 0, 1]
    wanted = torch.cat([stylize(stylizer, part, readout="local_affine", strength=1.0) for part in sources.split(2)])
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_by_default_only_a_read_out_that_runs_the_networks_is_distilled() -> None:
    assert DistilConfig().teacher("combined") is None
    assert DistilConfig().teacher("frequency") == "frequency"
    assert DistilConfig("local_affine").teacher("combined") == "local_affine"
    assert DistilConfig("local_affine", iterations=0).teacher("combined") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"readout": "combined"}, "has a student"),
        ({"readout": "student"}, "has a student"),
        ({"iterations": -1}, "at least 1"),
        ({"images": 0}, "at least 1"),
        ({"width": 12}, "width"),
        ({"crop": 1.0}, "crop"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(OsasisError, match=message):
        DistilConfig(**changes)


def test_one_image_is_too_few(stylizer: OSASISStylizer, tmp_path: Path) -> None:
    with pytest.raises(OsasisError, match="at least 2 source images"):
        distil.distil(stylizer, unit_images(1), tiny_distillation(), work=tmp_path)


def test_fidelity_is_measured_on_images_that_were_held_out(
    stylizer: OSASISStylizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, measured = [], []
    train_it, measure = distil.train_student, fidelity

    def remember(sources: torch.Tensor, *args: object, **options: object) -> Student:
        trained.append(sources)
        return train_it(sources, *args, **options)

    def judge(student: Student, sources: torch.Tensor, truths: torch.Tensor) -> dict:
        measured.append(sources)
        return measure(student, sources, truths)

    monkeypatch.setattr(distil, "train_student", remember)
    monkeypatch.setattr("nnunet_osasis.training.distil.fidelity", judge)
    sources = unit_images(16)
    distil.distil(stylizer, sources, tiny_distillation(), work=tmp_path)
    assert torch.equal(torch.cat(trained + measured), sources)
    assert len(measured[0]) == 2
    assert stylizer.diagnostics["student"]["source_to_target"]["images"] == 2


def test_equal_pictures_have_no_style_distance_and_others_have() -> None:
    images = unit_images(2)
    view = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    assert style_distance(images, images, view) == [0, 0]
    assert min(style_distance(images, images * 0.5, view)) > 2


# --- the network ------------------------------------------------------------------------------------------------------


def test_an_untrained_student_changes_nothing() -> None:
    images = torch.rand(2, 3, 41, 30) * 2 - 1
    assert torch.equal(Student(width=8).restyle(images), images)


def test_a_student_is_small_and_any_channels_and_sizes_will_do() -> None:
    student = Student(width=DistilConfig().width)
    assert sum(p.numel() for p in student.parameters()) < 5_000_000
    for channels in (1, 4):
        images = torch.rand(1, channels, 17, 90)
        assert Student(channels, 32, 8).restyle(images).shape == images.shape


@pytest.mark.parametrize("sizes", [(40, 16), (17, 64), (30, 30), (1, 5), (5, 1)])
def test_resampling_is_torchs_own(sizes: tuple[int, int]) -> None:
    images = torch.rand(1, 2, sizes[0], sizes[0])
    wanted = torch.nn.functional.interpolate(
        images, size=(sizes[1], sizes[1]), mode="bilinear", antialias=True, align_corners=False
    )
    torch.testing.assert_close(resample(images, sizes[1], sizes[1]), wanted, atol=2e-6, rtol=0)
    torch.testing.assert_close(line_weights(*sizes, images).sum(dim=1), torch.ones(sizes[1]))


def test_a_field_of_the_teachers_own_maps_gives_the_teachers_change() -> None:
    before = unit_images(2)
    after = (0.7 * before + 0.1).clamp(-1, 1)
    slope, offset = fit_local_affine(before, after)
    slope = slope - torch.eye(3)[None, :, :, None, None]
    found = apply_field(torch.cat([slope.flatten(1, 2), offset], dim=1), before)
    torch.testing.assert_close(found, after, atol=0.02, rtol=0)


def test_a_student_moves_no_edge() -> None:
    """Where the field is even, what a flat region was it stays: every edge of the result is one of the original."""
    torch.manual_seed(0)
    student = Student(width=8)
    for network in (student.forth, student.back):
        assert isinstance(network.field, FieldNetwork)
        torch.nn.init.normal_(network.field.last.bias, 0, 0.1)
    images = torch.zeros(1, 3, 64, 64)
    images[..., 20:] = 0.5
    edges = [(one[..., 1:] - one[..., :-1]).abs() > 1e-5 for one in (images, student.restyle(images))]
    assert torch.equal(edges[0], edges[1])
