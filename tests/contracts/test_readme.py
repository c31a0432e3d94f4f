"""What README and docs print, runs: Python as it stands, commands through their own parsers, links to files."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """``(page, text)`` of every fenced block of a language."""
    found = []
    for page in PAGES:
        texts = re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)
        found += [(page.name, text) for text in texts]
    return found


SNIPPETS = blocks("python")
LINES = [(p, line) for p, text in blocks("bash") for line in text.replace("\\\n", " ").splitlines() if line.strip()]
COMMANDS = {
    "osasis-pretrain-stylizer": "pretrain_stylizer",
    "osasis-prepare": "prepare",
    "osasis-stylize": "stylize",
    "osasis-info": "info",
    "osasis-demo": "demo",
    "osasis-evaluate": "evaluate",
    "osasis-export": "export",
    "osasis-report": "report",
}


@pytest.mark.parametrize(("page", "snippet"), SNIPPETS, ids=[f"{p} {i}" for i, (p, _) in enumerate(SNIPPETS)])
def test_python_snippets_run(
    page: str, snippet: str, stylizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(stylizer_folder, tmp_path / "stylizer")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, page, "exec"), {})  # noqa: S102 (our own text)


def test_experiment_files_are_read() -> None:
    from nnunet_osasis.evaluation.experiment.config import experiment_from_json

    given = [json.loads(text) for _, text in blocks("json")]
    given += [json.loads(path.read_text()) for path in sorted((ROOT / "benchmarks/harness").glob("*.json"))]
    assert {experiment_from_json(values).name for values in given} >= {"polyp", "retina", "skin"}


def test_there_is_something_to_run() -> None:
    assert len(SNIPPETS) >= 6
    assert {page for page, _ in SNIPPETS} >= {"README.md", "monai.md"}


@pytest.mark.parametrize(("page", "line"), LINES, ids=[line.split("#")[0].strip()[:60] for _, line in LINES])
def test_commands_are_accepted_by_their_parsers(page: str, line: str, capsys: pytest.CaptureFixture) -> None:
    """Option names and the form of their values; nnU-Net's commands must name trainers that exist."""
    words = shlex.split(line, comments=True)
    if words[:2] == ["accelerate", "launch"]:
        from accelerate.commands.launch import launch_command_parser

        given = launch_command_parser().parse_args(words[2:])  # what follows -m is a module of ours and its arguments
        assert given.module and given.multi_gpu
        words = [next(c for c, m in COMMANDS.items() if given.training_script == f"nnunet_osasis.scripts.{m}")]
        words += given.training_script_args
    if words[0] in COMMANDS:
        module = importlib.import_module(f"nnunet_osasis.scripts.{COMMANDS[words[0]]}")
        module.make_parser().parse_args(words[1:])
    elif words[0].startswith("nnUNetv2_"):
        from nnunet_osasis import trainers

        named = [words[i + 1] for i, word in enumerate(words) if word == "-tr"]
        assert named
        assert set(named) <= set(trainers.__all__)
    elif words[:2] == ["python", "docs/tutorials/monai_2d.py"] or words[0] == "python":
        assert (ROOT / words[1]).is_file()
    else:
        assert words[0] in ("make", "pip", "git", "cd", "export"), line


def test_cheap_commands_do_what_they_say(stylizer_folder: Path, image_folder: Path, tmp_path: Path) -> None:
    """The README's osasis-stylize line, as printed, in a folder laid out as it assumes."""
    line = next(line for page, line in LINES if page == "README.md" and line.startswith("osasis-stylize"))
    shutil.copytree(image_folder, tmp_path / "site_a")
    shutil.copytree(stylizer_folder, tmp_path / "stylizer")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        importlib.import_module("nnunet_osasis.scripts.stylize").main(shlex.split(line, comments=True)[1:])
    assert len(list((tmp_path / "site_a_as_b").glob("*.png"))) == 6
    assert len(list((tmp_path / "site_a_as_b/masks").glob("*.png"))) == 6


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_picture_is_there() -> None:
    assert (ROOT / "docs/demo.png").stat().st_size > 10_000
