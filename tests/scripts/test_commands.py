"""The commands as a user types them: what they make, and what they say when something is wrong."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from specimens import draw, tiny_preset

from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.runtime.locks import LOCK
from nnunet_osasis.scripts import info, pretrain_stylizer, stylize
from nnunet_osasis.stylizer.archive.record import MANIFEST
from nnunet_osasis.training import presets as preset_module

SHORT = [
    "--iterations",
    "2",
    "--batch-size",
    "2",
    "--adapt-iterations",
    "1",
    "--calibrator-iterations",
    "2",
    "--precision",
    "fp32",
    "-device",
    "cpu",
]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(preset_module.PRESETS, "tiny", tiny_preset())


def arguments(data: Path, output: Path, *more: str) -> list[str]:
    return [
        "--images",
        str(data / "images"),
        "--style",
        str(data / "style.png"),
        "--output",
        str(output),
        *SHORT,
        *more,
    ]


def test_pretrain_then_stylize_a_folder(image_folder: Path, tmp_path: Path) -> None:
    pretrain_stylizer.main(arguments(image_folder, tmp_path / "s"))
    assert (tmp_path / "s/training/grid_stylized.png").is_file()
    assert (tmp_path / "s/training/pretrain.jsonl").is_file()
    command = ["-i", str(image_folder / "images"), "-o", str(tmp_path / "out"), "--stylizer", str(tmp_path / "s")]
    stylize.main([*command, "--masks", str(image_folder / "masks"), "-device", "cpu", "--no-gate"])
    stylizer = OSASISStylizer.from_pretrained(tmp_path / "s")
    for path in (image_folder / "images").iterdir():
        source = np.moveaxis(np.array(Image.open(path)), -1, 0)
        found = np.moveaxis(np.array(Image.open(tmp_path / "out" / path.name)), -1, 0)
        expected = np.clip(np.rint(stylizer.stylize_array(source)), 0, 255).astype(np.uint8)
        assert np.array_equal(found, expected)
        assert (tmp_path / "out/masks" / path.name).read_bytes() == (image_folder / "masks" / path.name).read_bytes()


def test_a_second_run_makes_only_what_is_missing(stylizer_folder: Path, image_folder: Path, tmp_path: Path) -> None:
    from nnunet_osasis.stylizer.archive.run import stylize_folder

    stylizer = OSASISStylizer.from_pretrained(stylizer_folder)
    assert stylize_folder(stylizer, image_folder / "images", tmp_path) == 6
    assert stylize_folder(stylizer, image_folder / "images", tmp_path) == 0
    (tmp_path / "case 1.png").unlink()
    (tmp_path / "case 2.png").write_bytes(b"half")
    assert stylize_folder(stylizer, image_folder / "images", tmp_path) == 2
    with pytest.raises(OsasisError, match="other options"):
        stylize_folder(stylizer, image_folder / "images", tmp_path, strength=0.5)
    assert (tmp_path / MANIFEST).is_file()


def test_another_reference_reuses_the_pretrained_autoencoder(
    stylizer_folder: Path, image_folder: Path, tmp_path: Path
) -> None:
    pretrain_stylizer.main(arguments(image_folder, tmp_path / "s", "--from-stylizer", str(stylizer_folder)))
    name = "autoencoder/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "s" / name).read_bytes() == (stylizer_folder / name).read_bytes()
    assert not (tmp_path / "s/training/pretrain.jsonl").exists()


@pytest.mark.slow
def test_minutes_become_steps_and_are_remembered(image_folder: Path, tmp_path: Path) -> None:
    command = [a for a in arguments(image_folder, tmp_path / "s") if a not in ("--iterations",)]
    command.remove("2")
    pretrain_stylizer.main([*command, "--minutes", "2", "--tensorboard"])
    assert (tmp_path / "s/training/minutes.json").is_file()
    assert list((tmp_path / "s/training/tensorboard").rglob("events*"))


def test_info_prints_the_card(stylizer_folder: Path, capsys: pytest.CaptureFixture) -> None:
    info.main([str(stylizer_folder), "--json"])
    assert "reference_sha256" in capsys.readouterr().out
    info.main([])
    assert "nnunetv2" in capsys.readouterr().out


SLOW = [pytest.param(suffix, marks=pytest.mark.slow) for suffix in (".jpg", ".tif", ".mha")]


@pytest.mark.parametrize("suffix", [".nii.gz", *SLOW])
def test_every_format_makes_a_stylizer_and_comes_back(suffix: str, tmp_path: Path) -> None:
    import SimpleITK as sitk

    (tmp_path / "images").mkdir()
    for i in range(4):
        picture = np.moveaxis(draw(i), 0, -1)
        path = tmp_path / "images" / f"{i}{suffix}"
        if suffix in (".jpg", ".tif"):
            Image.fromarray(picture).save(path)
        else:
            image = sitk.GetImageFromArray(np.stack([picture, picture // 2 + 9]), isVector=True)
            image.SetSpacing((0.5, 0.5, 3.0))
            image.SetOrigin((10.0, -20.0, 5.0))
            sitk.WriteImage(image, str(path))
    shutil.copy(tmp_path / "images" / f"3{suffix}", tmp_path / f"style{suffix}")
    command = arguments(tmp_path, tmp_path / "s")
    command[3] = str(tmp_path / f"style{suffix}")
    pretrain_stylizer.main(command)
    stylize.main(["-i", str(tmp_path / "images"), "-o", str(tmp_path / "o"), "--stylizer", str(tmp_path / "s")])
    result = tmp_path / "o" / (f"0{suffix}" if suffix != ".jpg" else "0.png")
    assert result.is_file()
    if suffix in (".nii.gz", ".mha"):
        source, found = (sitk.ReadImage(str(p)) for p in (tmp_path / "images" / f"0{suffix}", result))
        assert found.GetSpacing() == source.GetSpacing() == pytest.approx((0.5, 0.5, 3.0))
        assert found.GetOrigin() == source.GetOrigin()
        assert found.GetDirection() == source.GetDirection()
        assert found.GetPixelIDTypeAsString() == source.GetPixelIDTypeAsString()


def broken(data: Path, tmp: Path, case: str) -> tuple[list[str], str]:
    """A command line with one thing wrong, and a word its message must hold."""
    copy = tmp / "data"
    shutil.copytree(data, copy)
    command, first = arguments(copy, tmp / "s"), copy / "images" / "case 0.png"
    colour = np.moveaxis(draw(0), 0, -1)
    if case == "missing folder":
        shutil.rmtree(copy / "images")
        return command, "must exist"
    if case == "empty folder":
        for path in (copy / "images").iterdir():
            path.unlink()
        return command, "must hold images"
    if case == "truncated image":
        first.write_bytes(first.read_bytes()[:60])
        return command, "readable"
    if case == "text as image":
        first.write_text("hello")
        return command, "readable"
    if case == "constant image":
        for path in (copy / "images").iterdir():
            Image.fromarray(np.full((40, 40, 3), 9, np.uint8)).save(path)
        return command, "contrast"
    if case == "nan image":
        import tifffile

        tifffile.imwrite(copy / "images" / "case 9.tif", np.full((40, 40), np.nan, np.float32))
        return command, "finite"
    if case == "grey among colour":
        Image.fromarray(colour[..., 0]).save(first)
        return command, "channel"
    if case == "grey reference":
        Image.fromarray(colour[..., 0]).save(copy / "style.png")
        return command, "--gray"
    if case == "colour reference for grey":
        for path in (copy / "images").iterdir():
            Image.open(path).convert("L").save(path)
        return command, "--gray"
    if case == "constant reference":
        Image.fromarray(np.full((40, 40, 3), 9, np.uint8)).save(copy / "style.png")
        return command, "contrast"
    if case == "16-bit reference":
        for path in (copy / "images").iterdir():
            Image.open(path).convert("L").save(path)
        Image.fromarray(draw(0)[0].astype(np.uint16) * 200).save(copy / "style.png")
        return command, "units"
    if case == "missing reference":
        (copy / "style.png").unlink()
        return command, "must exist"
    if case == "unknown preset":
        return [*command, "--preset", "huge"], "tiny, small, base"
    if case == "unknown recipe":
        return [*command, "--recipe", "secret"], "default, osasis"
    if case == "unknown losses":
        return [*command, "--losses", "secret"], "osasis, paper"
    if case == "unknown pair":
        return [*command, "--pair", "secret"], "prealigned_sdedit"
    if case == "unknown read-out":
        return [*command, "--readout", "secret"], "combined"
    if case == "no such device":
        return [*command, "-device", "abacus"], "-device"
    if case == "no clip there":
        return [*command, "--clip", str(tmp / "nothing")], "CLIP"
    if case == "clip not cached":
        return [*command, "--clip", "ViT-B-32-quickgelu:openai"], "nothing is downloaded"
    if case == "no data":
        return command[2:4], "--images and --output"
    if case == "no nnU-Net folders":
        return ["-d", "501", "--style", str(copy / "style.png")], "nnUNet_"
    if case == "range upside down":
        return [*command, "--intensity-range", "5", "1"], "low < high"
    raise AssertionError(case)


CASES = [
    "missing folder", "empty folder", "truncated image", "text as image", "constant image", "nan image",
    "grey among colour", "grey reference", "colour reference for grey", "constant reference", "16-bit reference",
    "missing reference", "unknown preset", "unknown recipe", "unknown losses", "unknown pair", "unknown read-out",
    "no such device", "no clip there", "clip not cached", "no data", "no nnU-Net folders", "range upside down",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_ends_in_one_clear_message(
    case: str, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)
    command, word = broken(image_folder, tmp_path, case)
    with pytest.raises(OsasisError) as caught:
        pretrain_stylizer.main(command)
    assert word in str(caught.value)
    assert not (tmp_path / "s/stylizer.json").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_output(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OsasisError, match="writable"):
        pretrain_stylizer.main(arguments(image_folder, tmp_path / "locked/s"))


def test_output_below_a_file(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OsasisError, match="writable"):
        pretrain_stylizer.main(arguments(image_folder, tmp_path / "file/s"))


def test_masks_of_another_size_or_missing_are_refused(
    stylizer_folder: Path, image_folder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(image_folder, data)
    command = ["-i", str(data / "images"), "-o", str(tmp_path / "o"), "--stylizer", str(stylizer_folder)]
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(data / "masks/case 5.png")
    with pytest.raises(OsasisError, match="same size"):
        stylize.main([*command, "--masks", str(data / "masks")])
    assert (tmp_path / "o/case 4.png").is_file()  # finished work is kept
    assert not (tmp_path / "o/case 5.png").exists()
    (data / "masks/case 5.png").unlink()
    with pytest.raises(OsasisError, match="needs a mask"):
        stylize.main([*command, "--masks", str(data / "masks")])


def test_a_full_disk_leaves_nothing_half_written(
    stylizer_folder: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    real, calls = os.replace, []

    def full(source: str, target: str) -> None:
        calls.append(target)
        if str(target).endswith("case 3.png"):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OsasisError, match="room on the disk"):
        stylize.main(["-i", str(image_folder / "images"), "-o", str(tmp_path), "--stylizer", str(stylizer_folder)])
    found = sorted(p.name for p in tmp_path.iterdir())
    assert found == [LOCK, "case 0.png", "case 1.png", "case 2.png", "osasis_audit", MANIFEST]


def test_exit_status_and_message_of_the_real_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nnunet_osasis.scripts.stylize", "-i", "nowhere", "-o", "o", "--stylizer", "no"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: ")  # libraries may warn before
    assert "Traceback" not in done.stderr
    assert "osasis-pretrain-stylizer" in done.stderr


@pytest.mark.slow
def test_ctrl_c_saves_and_resume_gives_the_uninterrupted_result(image_folder: Path, tmp_path: Path) -> None:
    """The full-size tiny preset, as a real process, stopped with SIGINT."""

    def command(output: str, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "nnunet_osasis.scripts.pretrain_stylizer",
            *arguments(image_folder, tmp_path / output, "--iterations", "12", "--checkpoint-every", "2", *more),
        ]  # fmt: skip

    subprocess.run(command("whole"), check=True, capture_output=True)
    process = subprocess.Popen(command("cut"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "cut/training/pretrain.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "--resume" in stderr
    assert not OSASISStylizer.from_pretrained(tmp_path / "cut").has_networks
    subprocess.run(command("cut", "--resume"), check=True, capture_output=True)
    for path in sorted((tmp_path / "whole").rglob("*.safetensors")):
        assert path.read_bytes() == (tmp_path / "cut" / path.relative_to(tmp_path / "whole")).read_bytes()
