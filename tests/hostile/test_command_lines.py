"""Every command, with options and folders that are wrong: status 1 or 2, one message, no traceback."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from specimens import tiny_preset

from nnunet_osasis import __version__
from nnunet_osasis.scripts import demo, evaluate, info, prepare, pretrain_stylizer, report, stylize
from nnunet_osasis.training.presets import PRESETS

from .harness import command

Line = list[object]
MAINS = {
    "stylize": stylize.main, "pretrain": pretrain_stylizer.main, "info": info.main, "evaluate": evaluate.main,
    "prepare": prepare.main, "report": report.main, "demo": demo.main,
}  # fmt: skip


def right(name: str, data: Path, output: Path, stylizer: Path) -> Line:
    """A line that would do its work; the cases append what spoils it (the last of two equal options counts)."""
    lines: dict[str, Line] = {
        "stylize": ["-i", data / "images", "-o", output, "--stylizer", stylizer, "-device", "cpu"],
        "pretrain": [
            "--images",
            data / "images",
            "--style",
            data / "style.png",
            "--output",
            output,
            "-device",
            "cpu",
            "--iterations",
            2,
            "--batch-size",
            2,
            "--adapt-iterations",
            1,
            "--calibrator-iterations",
            0,
            "--precision",
            "fp32",
        ],
        "info": [],
        "evaluate": ["-p", data / "masks", "-r", data / "masks", "-o", output, "-np", 1],
        "prepare": ["--images", data / "images", "--masks", data / "masks", "-d", 501, "-name", "Odd", "-o", output],
        "report": ["--source", data, "--target", data, "-o", output, "-device", "cpu"],
        "demo": ["--source", data, "--target", data, "--output", output, "-device", "cpu", "--quick"],
    }
    return lines[name]


NUMBERS = ("x", "", "nan", "-1", "1e400", "1,5")
COUNTS = (*NUMBERS, "0", "1.5", "inf")
SEEDS = (*NUMBERS, "1.5", "inf", str(2**32))
PLACES = ("nowhere", "x" * 300, "/dev/zero")
WRONG: dict[str, dict[str, tuple[str, ...]]] = {
    "stylize": {"--strength": (*NUMBERS, "1.1", "inf"), "--readout": ("magic", ""), "--direction": ("up",),
    "-i": PLACES,
                "--stylizer": PLACES, "--masks": PLACES, "-device": ("abacus", "cuda:99", "", "cpu:1", "cuda:x"),
                "--magic": ("1",)},
    "pretrain": {"--iterations": COUNTS, "--batch-size": COUNTS, "--learning-rate": (*NUMBERS, "0", "inf", "50"),
                 "--minutes": (*NUMBERS, "0", "inf"), "--seed": SEEDS, "--max-images": COUNTS,
                 "--adapt-iterations": COUNTS,
                 "--calibrator-iterations": ("x", "-1", "nan"), "--preset": ("huge", ""), "--recipe": ("magic",),
                 "--losses": ("magic",), "--pair": ("magic", "file"), "--readout": ("magic",), "--precision": ("fp8",),
                 "--images": PLACES, "--style": PLACES, "--from-stylizer": PLACES, "--clip": ("nowhere", "a:b"),
                 "-d": ("501", "x"),
                 "-device": ("abacus",), "--checkpoint-every": ("0", "x"), "--grid-every": ("0",)},
    "info": {},
    "evaluate": {"--threshold": (*NUMBERS, "0", "2", "inf"), "--tolerance": ("x", "nan", "-1", "inf"),
    "--classes": ("x", "0", "-1", "1.5"),
                 "--lesion-overlap": ("x", "-1", "2", "nan"), "--metrics": ("magic", "dice_"),
                 "--protocol": ("magic",), "-np": COUNTS,
                 "--scale": ("3", "x"), "-p": PLACES, "-r": PLACES, "--images": PLACES},
    "prepare": {"-d": ("0", "1000", "x", "-1", "1.5", ""), "-name": ("a b", "../x", "", "1a", "a/b"), "--folds": COUNTS,
                "--seed": SEEDS, "--images": PLACES, "--masks": PLACES, "--layout": ("magic", "drive"),
                "--train": ("nothing", "9-1"),
                "--test": ("*",), "--val": ("*",), "--test-groups": ("nothing",), "--groups": PLACES,
                "--group-pattern": ("(", "x", "[", "(z)"),
                "--labels": ("a=1", "background=0", "x"), "--channel-names": ("one",), "--threshold": ("x",),
                "--mask-suffix": ("_x",),
                "--outside-field": ("ignore", "magic")},
    "report": {"--source": PLACES, "--target": PLACES, "--source-test": PLACES, "--groups": ("(", "["),
    "-np": COUNTS, "--iterations": COUNTS,
               "--side": COUNTS, "--from-stylizer": PLACES, "-device": ("abacus", "cpu,abacus", ",", "")},
    "demo": {"--source": PLACES, "--target": PLACES, "--source-test": PLACES, "--minutes-pretrain": (*NUMBERS, "0"),
    "--seed": SEEDS,
             "--repeats": COUNTS, "--epochs-trainer-suffix": ("9epochs", "x; true", "../x"), "-device": ("abacus",),
             "--from-stylizer": PLACES},
}  # fmt: skip
ALONE: list[tuple[str, Line]] = [
    *((name, []) for name in MAINS if name not in ("info", "demo")),
    *(("info", [place]) for place in PLACES if place),
    *((name, ["--magic"]) for name in MAINS),
    ("report", ["nowhere.json", "-o", "out"]), ("report", ["e.json", "--source", "a", "-o", "out"]),
    ("report", ["x" * 300, "-o", "out"]),
    ("pretrain", ["--images", "a", "-d", "3", "--style", "b"]), ("pretrain", ["--style", "b"]), ("demo", ["--source",
    "a"]),
    ("demo", ["--source-test", "a"]), ("prepare", ["-d", "5", "-name", "A", "-o", "o"]), ("evaluate", ["-p", "a=b",
    "-p", "a=c"]),
]  # fmt: skip
OPTIONS = [(name, flag, value) for name, flags in WRONG.items() for flag, values in flags.items() for value in values]
NAN_IS_A_NUMBER = {("prepare", "--threshold", "nan")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine small colour pictures with masks, and a reference."""
    from specimens import draw

    root = tmp_path_factory.mktemp("hostile data")
    for part in ("images", "masks"):
        (root / part).mkdir()
    for number in range(9):
        picture = draw(number)
        Image.fromarray(np.moveaxis(picture, 0, -1)).save(root / f"images/case {number}.png")
        Image.fromarray(((picture[0] > 150) * 255).astype(np.uint8)).save(root / f"masks/case {number}.png")
    shutil.copy(root / "images/case 3.png", root / "style.png")
    return root


@pytest.fixture
def typed(
    capsys: pytest.CaptureFixture, record_property: Callable[[str, object], None], tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, Line], str]:  # fmt: skip
    """Types a line in an empty folder, without nnU-Net's variables, and records how it ended."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "tiny", tiny_preset())
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)

    def end(name: str, line: Line) -> str:
        message = command(MAINS[name], line, capsys)
        record_property("hostile", f"osasis-{name}:{'refused' if message else 'result'}")
        return message

    return end


@pytest.mark.parametrize(("name", "flag", "value"), OPTIONS, ids=[f"{n} {f} {v!r:.24}" for n, f, v in OPTIONS])
def test_a_wrong_option_is_one_message(
    name: str, flag: str, value: str, data: Path, stylizer_folder: Path, tmp_path: Path, typed: Callable[[str, Line],
        str]
) -> None:  # fmt: skip
    assert typed(
        name,
        [
            *right(name, data, tmp_path / "out", stylizer_folder),
            f"{flag}={value}" if flag[:2] == "--" else flag,
            *([] if flag[:2] == "--" else [value]),
        ],
    )
    assert not (tmp_path / "out/stylizer.json").exists()


@pytest.mark.parametrize(("name", "line"), ALONE, ids=[f"{n} {' '.join(map(str, x))!r:.40}" for n, x in ALONE])
def test_a_line_without_what_it_needs_is_one_message(name: str, line: Line, typed: Callable[[str, Line], str]) -> None:
    assert typed(name, line)


OUTPUTS = ("/dev/null", "/proc/x", "file", "file/x", "loop", "loop/x", "x" * 300)


@pytest.mark.parametrize("place", OUTPUTS, ids=[repr(place)[:20] for place in OUTPUTS])
@pytest.mark.parametrize("name", ["stylize", "evaluate", "prepare", "pretrain"])
def test_an_output_that_cannot_be_is_one_message(
    name: str, place: str, data: Path, stylizer_folder: Path, tmp_path: Path, typed: Callable[[str, Line], str]
) -> None:  # fmt: skip
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "loop").symlink_to("loop")
    assert typed(name, right(name, data, Path(place), stylizer_folder))
    assert (tmp_path / "file").read_text() == "in the way"


NAMES = (
    "with space", "ünïcödé 图像", "$(touch owned)", "; rm -rf x", "-o", "a'b\"c", "a\nb", "\x1b[31mred", "%s%n{0}",
    "l" * 240, ".dot", "a.b.c",
    "ends with dot.", "CON", "\u202eevil", "~", "*",
)  # fmt: skip


@pytest.mark.parametrize("stem", NAMES, ids=[repr(stem)[:24] for stem in NAMES])
def test_odd_names_are_names(
    stem: str, data: Path, stylizer_folder: Path, tmp_path: Path, typed: Callable[[str, Line], str]
) -> None:  # fmt: skip
    folder = tmp_path / stem
    (folder / "images").mkdir(parents=True)
    shutil.copy(data / "images/case 1.png", folder / f"images/{stem}.png")
    line: Line = ["-i", f"{folder}/images", "-o", f"{tmp_path}/out", "--stylizer", stylizer_folder, "-device", "cpu"]
    message = typed("stylize", line)
    if stem.startswith("."):
        assert "must hold images" in message
    else:
        assert not message
        assert (tmp_path / f"out/{stem}.png").is_file()
    assert not (tmp_path / "owned").exists()


def _odd_entry(kind: str, folder: Path) -> None:
    path = folder / "case 5.png"
    path.unlink()
    makes: dict[str, Callable[[], object]] = {
        "a folder": path.mkdir, "a pipe": lambda: os.mkfifo(path), "a loop": lambda: path.symlink_to(path.name),
        "a dead link": lambda: path.symlink_to("nowhere.png"), "a device": lambda: path.symlink_to("/dev/zero"),
        "a link": lambda: path.symlink_to(folder / "case 1.png"), "a text": lambda: path.write_text("hello"),
        "nothing": lambda: path.touch(), "a link to a text": lambda: path.symlink_to("/etc/hostname"),
        "a name of bytes": lambda: shutil.copy(folder / "case 1.png", os.fsencode(folder) + b"/case 5 \xff.png"),
    }  # fmt: skip
    makes[kind]()


@pytest.mark.parametrize("name", ["stylize", "pretrain", "evaluate", "prepare"])
@pytest.mark.parametrize(
    ("kind", "skipped"),
    [("a folder", True), ("a pipe", True), ("a loop", True), ("a dead link", True), ("a device", True), ("a link",
        True),
     ("a text", False), ("nothing", False), ("a link to a text", False), ("a name of bytes", False)],
)  # fmt: skip
def test_odd_files_among_images_do_not_stop_or_hang_a_command_unsaid(
    name: str, kind: str, skipped: bool, data: Path, stylizer_folder: Path, tmp_path: Path, typed: Callable[[str,
        Line], str]
) -> None:  # fmt: skip
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    _odd_entry(kind, copy / "images")
    if skipped and name in ("stylize", "evaluate"):
        if name == "evaluate":
            _odd_entry(kind, copy / "masks")
        assert not typed(name, right(name, copy, tmp_path / "out", stylizer_folder))
    elif skipped and name == "pretrain":
        assert typed(name, [*right(name, copy, tmp_path / "out", stylizer_folder), "--style", copy / "nowhere.png"])
    else:
        assert kind == "a link" or typed(name, _spoiled(name, copy, tmp_path, stylizer_folder, kind))


def _spoiled(name: str, copy: Path, tmp_path: Path, stylizer_folder: Path, kind: str) -> Line:
    if name == "evaluate":
        _odd_entry(kind, copy / "masks")
    return right(name, copy, tmp_path / "out", stylizer_folder)


COMMANDS = ("demo", "evaluate", "export", "info", "prepare", "pretrain_stylizer", "report", "stylize")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_its_version(name: str, capsys: pytest.CaptureFixture) -> None:
    main = importlib.import_module(f"nnunet_osasis.scripts.{name}").main
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert f"of nnunet-osasis {__version__}" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_no_heavy_library(name: str) -> None:
    program = (
        f"import sys\nfrom nnunet_osasis.scripts.{name} import make_parser\nmake_parser().format_help()\n"
        "print(*{'torch', 'monai', 'nnunetv2'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "\n"
