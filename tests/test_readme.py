"""The README's Python runs as printed, and its commands exist."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S))


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda s: s.strip().splitlines()[-1][:40])
def test_python_snippets_run(
    snippet: str, stylizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(stylizer_folder, tmp_path / "stylizer")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, str(README), "exec"), {})  # noqa: S102 (our own text)


def test_there_are_snippets_to_run() -> None:
    assert len(SNIPPETS) == 2


@pytest.mark.parametrize("command", ["pretrain_stylizer", "stylize", "info", "demo"])
def test_options_named_in_the_readme_exist(command: str, capsys: pytest.CaptureFixture) -> None:
    import importlib

    module = importlib.import_module(f"nnunet_osasis.scripts.{command}")
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    lines = [line for line in SHELL.splitlines() if line.startswith(f"osasis-{command.replace('_', '-')}")]
    for option in re.findall(r"(?<= )--?[a-z][a-z-]*", " ".join(line.split("#")[0] for line in lines)):
        assert option in text, option


def test_the_picture_is_there() -> None:
    assert (README.parent / "docs/demo.png").stat().st_size > 10_000
