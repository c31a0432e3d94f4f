"""A student in a stylizer's folder, pickle and card; what is damaged or missing is refused with a message."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from specimens import unit_images

from nnunet_osasis import OsasisError
from nnunet_osasis.runtime.records import read_sealed_json, write_sealed_json
from nnunet_osasis.runtime.storage import sha256_of_file
from nnunet_osasis.stylizer.gating import own_gate
from nnunet_osasis.stylizer.names import STUDENT
from nnunet_osasis.stylizer.one_pass import one_pass_facts
from nnunet_osasis.stylizer.student import Student
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.training.build import BuildConfig, check_possible, one_pass_card
from nnunet_osasis.training.distil import DistilConfig
from nnunet_osasis.training.presets import get_preset

WEIGHTS = "student/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copy(stylizer_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(stylizer_folder, tmp_path / "copy")


def test_the_folder_holds_the_student_and_gives_it_back(stylizer: OSASISStylizer, tmp_path: Path) -> None:
    again = OSASISStylizer.from_pretrained(stylizer.save_pretrained(tmp_path / "s"))
    images = unit_images(2)
    for direction in ("source_to_target", "target_to_source"):
        options = {"readout": STUDENT, "direction": direction}
        assert torch.equal(again.stylize(images, **options), stylizer.stylize(images, **options))
    assert again.fingerprint == stylizer.fingerprint
    assert (tmp_path / "s" / WEIGHTS).stat().st_size < 20_000_000
    assert "one-pass student of `local_affine`" in (tmp_path / "s/README.md").read_text()


def test_a_stylizer_without_student_replaces_one_with_and_keeps_its_fingerprint(
    stylizer: OSASISStylizer, tmp_path: Path
) -> None:
    with_student = stylizer.fingerprint
    folder = stylizer.save_pretrained(tmp_path / "s")
    stylizer = stylizer.configured()
    stylizer.student = None
    assert stylizer.fingerprint == with_student  # a map does not run it
    again = OSASISStylizer.from_pretrained(stylizer.save_pretrained(folder))
    assert again.student is None
    assert not (folder / "student").exists()
    assert again.fingerprint == stylizer.fingerprint
    assert "needs no student" in (folder / "README.md").read_text()


def test_a_student_counts_in_the_fingerprint_of_its_read_out_alone(stylizer: OSASISStylizer) -> None:
    before = {name: stylizer.configured(readout=name).fingerprint for name in (STUDENT, "combined", "raw")}
    with torch.no_grad():
        next(stylizer.student.parameters()).add_(1)
    after = {name: stylizer.configured(readout=name).fingerprint for name in before}
    assert [name for name in before if after[name] != before[name]] == [STUDENT]


def test_pickling_keeps_the_student(stylizer: OSASISStylizer) -> None:
    stylizer = stylizer.configured(readout=STUDENT)
    data = pickle.dumps(stylizer)
    again = pickle.loads(data)  # noqa: S301 (our own bytes)
    assert torch.equal(again.stylize(unit_images(1)), stylizer.stylize(unit_images(1)))
    assert pickle.dumps(again) == data
    stylizer.student = None
    assert pickle.loads(pickle.dumps(stylizer)).student is None  # noqa: S301 (our own bytes)


@pytest.mark.parametrize("name", [WEIGHTS, "student/config.json"])
def test_a_damaged_student_is_refused(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[-20] ^= 1
    (copy / name).write_bytes(bytes(data))
    with pytest.raises(OsasisError, match="another checksum"):
        OSASISStylizer.from_pretrained(copy).stylize(unit_images(1), readout=STUDENT)


@pytest.mark.parametrize("name", [WEIGHTS, "student/config.json"])
def test_a_missing_part_of_a_student_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(OsasisError, match="must be complete"):
        OSASISStylizer.from_pretrained(copy).stylize(unit_images(1), readout=STUDENT)


@pytest.mark.parametrize(
    ("key", "value"), [("channels", 4), ("teacher", "combined"), ("width", 1e9), ("sample_size", -1), ("evil", 1)]
)
def test_a_student_of_other_images_or_of_no_teacher_is_refused(copy: Path, key: str, value: object) -> None:
    """Also where its checksum was changed with it."""
    config = json.loads((copy / "student/config.json").read_text()) | {key: value}
    (copy / "student/config.json").write_text(json.dumps(config))
    index = read_sealed_json(copy / "stylizer.json", what="the index")
    index["sha256"]["student/config.json"] = sha256_of_file(copy / "student/config.json")
    write_sealed_json(copy / "stylizer.json", index)
    with pytest.raises(OsasisError):
        OSASISStylizer.from_pretrained(copy).stylize(unit_images(1), readout=STUDENT)


def test_the_read_out_student_without_a_student_is_refused(stylizer: OSASISStylizer) -> None:
    stylizer.student = None
    for use in (lambda: stylizer.stylize(unit_images(1), readout=STUDENT), lambda: stylizer.one_pass(readout=STUDENT)):
        with pytest.raises(OsasisError, match=r"--distil local_affine, or use the read-out combined"):
            use()
    with pytest.raises(OsasisError, match=r"--distil frequency\."):
        stylizer.configured(readout="frequency").one_pass()


def test_a_student_stands_for_its_own_teacher_alone(stylizer: OSASISStylizer) -> None:
    module = stylizer.one_pass(readout="local_affine").double()
    weights, own = module.change.state_dict(), stylizer.student.forth.state_dict()
    assert all(torch.equal(weights[name].float(), value) for name, value in own.items())
    assert {value.dtype for value in own.values()} == {torch.float32}  # a copy: casting it leaves the stylizer's alone
    back = stylizer.one_pass("target_to_source", "local_affine").change.state_dict()
    assert all(torch.equal(back[name], value) for name, value in stylizer.student.back.state_dict().items())
    with pytest.raises(OsasisError, match="a student of local_affine, not of raw"):
        stylizer.one_pass(readout="raw")


def test_the_gate_judges_a_student_like_a_map(stylizer: OSASISStylizer) -> None:
    """It repaints nothing, so that no allowance for the networks' round trip is due."""
    assert not stylizer.gate.round_trip
    assert own_gate(stylizer, readout=STUDENT) is not None
    assert own_gate(stylizer, readout="local_affine") is None


def test_what_is_one_pass_is_told(stylizer: OSASISStylizer) -> None:
    facts = one_pass_facts(stylizer)
    weights = sum(p.numel() for p in stylizer.student.parameters())
    assert facts == {"readouts": ["combined", "student"], "teacher": "local_affine", "weights": weights}
    stylizer.student = None
    assert one_pass_facts(stylizer.configured(readout="raw")) == {"readouts": [], "teacher": None, "weights": 0}


def test_the_card_says_why_nothing_was_trained() -> None:
    def card(readout: str, **changes: object) -> object:
        return one_pass_card(BuildConfig("tiny", get_preset("tiny"), readout=readout, distil=DistilConfig(**changes)))

    assert card("combined") == "none needed: combined is a map, one pass by itself, exactly"
    assert card("local_affine", iterations=0) == "none: distilling was left out"
    assert card("local_affine")["iterations"] == DistilConfig().iterations


def test_the_read_out_student_needs_something_to_imitate() -> None:
    config = BuildConfig("tiny", get_preset("tiny"), readout=STUDENT)
    with pytest.raises(OsasisError, match="--distil local_affine"):
        check_possible(config, references=1)
    check_possible(BuildConfig("tiny", get_preset("tiny"), readout=STUDENT, distil=DistilConfig("raw")), references=1)


def test_a_student_moves_with_the_stylizer(stylizer: OSASISStylizer) -> None:
    assert isinstance(stylizer.student, Student)
    assert {p.device for p in stylizer.to("meta").student.parameters()} == {torch.device("meta")}
