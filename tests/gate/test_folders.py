"""The gate at work in osasis-stylize, and what is left of it to show."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunet_osasis.gate.audit import path_in, read_audit
from nnunet_osasis.scripts import info
from nnunet_osasis.scripts import stylize as command
from nnunet_osasis.stylizer.archive.run import stylize_folder
from nnunet_osasis.stylizer.stylizer import OSASISStylizer


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


@pytest.fixture
def harmful(stylizer: OSASISStylizer, monkeypatch: pytest.MonkeyPatch) -> OSASISStylizer:
    """A stylizer that repaints images with an even corner so badly that a quarter of it is still too much."""
    whole = OSASISStylizer.stylize_array

    def stylize_array(self: OSASISStylizer, array: np.ndarray, **options: object) -> np.ndarray:
        done = whole(self, array, **options)  # type: ignore[arg-type]
        return 255 - 3 * np.roll(done, 20, axis=-1) if array.flat[0] % 2 == 0 else done

    monkeypatch.setattr(OSASISStylizer, "stylize_array", stylize_array)
    return stylizer


def test_a_stylizer_is_made_with_thresholds_and_keeps_them(stylizer_folder: Path) -> None:
    stylizer = OSASISStylizer.from_pretrained(stylizer_folder)
    assert stylizer.gate is not None
    assert {"structure_kept", "structure_not_invented", "boundaries", "lesion_edges"} <= set(stylizer.gate.scores)
    assert json.loads((stylizer_folder / "stylizer.json").read_text())["gate"] == stylizer.gate.to_json()


def test_damaged_results_are_never_written(harmful: OSASISStylizer, image_folder: Path, tmp_path: Path) -> None:
    source = image_folder / "images"
    assert stylize_folder(harmful, source, tmp_path, masks=image_folder / "masks") == 6
    rows = read_audit(path_in(tmp_path))
    assert {row["decision"] for row in rows} == {"full", "original"}
    for row in rows:
        same = np.array_equal(pixels(tmp_path / row["case"]), pixels(source / row["case"]))
        assert same == (row["decision"] == "original")
        assert bool(row["failures"]) == (row["decision"] == "original")
    assert (tmp_path / "osasis_audit" / "worst.png").stat().st_size > 1000


def test_without_the_gate_everything_is_written_and_nothing_audited(
    harmful: OSASISStylizer, image_folder: Path, tmp_path: Path
) -> None:
    stylize_folder(harmful, image_folder / "images", tmp_path, gated=False)
    assert not (tmp_path / "osasis_audit").exists()
    moved = [not np.array_equal(pixels(tmp_path / p.name), pixels(p)) for p in (image_folder / "images").iterdir()]
    assert all(moved)


def test_a_second_run_audits_only_what_it_makes(stylizer: OSASISStylizer, image_folder: Path, tmp_path: Path) -> None:
    stylize_folder(stylizer, image_folder / "images", tmp_path)
    (tmp_path / "case 1.png").unlink()
    assert stylize_folder(stylizer, image_folder / "images", tmp_path) == 1
    assert len(path_in(tmp_path).read_text().splitlines()) == 7
    assert len(read_audit(path_in(tmp_path))) == 6


def test_a_result_without_its_line_in_the_audit_is_made_again(
    stylizer: OSASISStylizer, image_folder: Path, tmp_path: Path
) -> None:
    stylize_folder(stylizer, image_folder / "images", tmp_path)
    lines = path_in(tmp_path).read_text().splitlines(keepends=True)
    path_in(tmp_path).write_text("".join(lines[1:]))
    assert stylize_folder(stylizer, image_folder / "images", tmp_path) == 1
    path_in(tmp_path).unlink()
    assert stylize_folder(stylizer, image_folder / "images", tmp_path) == 6


def test_a_stylizer_without_thresholds_measures_them_on_the_images_once(
    stylizer: OSASISStylizer, image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stylizer.gate = None
    stylize_folder(stylizer, image_folder / "images", tmp_path)
    assert "measured on these images" in caplog.text
    caplog.clear()
    assert stylize_folder(stylizer, image_folder / "images", tmp_path) == 0
    assert "measured" not in caplog.text


def test_read_outs_that_run_networks_have_thresholds_that_know_their_round_trip(
    stylizer: OSASISStylizer, image_folder: Path, tmp_path: Path
) -> None:
    stylize_folder(stylizer.configured(readout="raw"), image_folder / "images", tmp_path)
    kept = json.loads((tmp_path / "osasis_audit" / "gate.json").read_text())
    assert kept["thresholds"]["round_trip"] is True


def test_the_commands_say_what_was_decided(
    stylizer_folder: Path, image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["-i", str(image_folder / "images"), "-o", str(tmp_path), "--stylizer", str(stylizer_folder)]
    command.main([*arguments, "-device", "cpu"])
    assert "6 as wanted" in capsys.readouterr().out
    info.main(["--audit", str(tmp_path)])
    assert json.loads(capsys.readouterr().out)["decisions"] == {"full": 6, "weaker": 0, "original": 0}
    with pytest.raises(SystemExit):
        command.main([*arguments, "--no-gate", "--segmenter", "model"])
    info.main([str(stylizer_folder), "--json"])
    assert "detection" in json.loads(capsys.readouterr().out)["gate"]


def test_harmonising_goes_through_the_same_gate(harmful: OSASISStylizer, image_folder: Path, tmp_path: Path) -> None:
    stylize_folder(harmful, image_folder / "images", tmp_path, direction="target_to_source")
    rows = read_audit(path_in(tmp_path))
    assert {row["direction"] for row in rows} == {"target_to_source"}
    assert "original" in {row["decision"] for row in rows}
