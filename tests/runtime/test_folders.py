"""Folders that appear whole, or stay as they were."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.runtime.folders import atomic_folder


def fill(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_there_whole_and_as_shared_as_others(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "deep" / "out") as folder:
        fill(folder, a="1")
        (folder / "sub").mkdir()
        fill(folder / "sub", b="2")
        assert not (tmp_path / "deep" / "out").exists()
    assert content(tmp_path / "deep" / "out") == {"a": "1", "sub/b": "2"}
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "deep" / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_block_that_fails_leaves_the_old_folder(tmp_path: Path, error: BaseException) -> None:
    with atomic_folder(tmp_path / "out") as folder:
        fill(folder, a="old")

    def fails() -> None:
        with atomic_folder(tmp_path / "out", overwrite=True) as folder:
            fill(folder, a="half")
            raise error

    with pytest.raises((KeyboardInterrupt, OsasisError)):
        fails()
    assert content(tmp_path) == {"out/a": "old"}


def test_only_its_own_writing_is_called_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"), atomic_folder(tmp_path / "out"):
        (tmp_path / "missing").read_text()
    with pytest.raises(ConnectionResetError), atomic_folder(tmp_path / "out"):
        raise ConnectionResetError
    with pytest.raises(OsasisError, match=r"writable.*out"), atomic_folder(tmp_path / "out") as folder:
        (folder / "no folder/a").write_text("")
    assert content(tmp_path) == {}


def test_a_folder_is_replaced_on_request_and_only_with_its_marker(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out") as folder:
        fill(folder, a="old", b="old")
    with pytest.raises(OsasisError, match=r"must be new.*--overwrite"), atomic_folder(tmp_path / "out"):
        pass
    with pytest.raises(OsasisError, match="with mark"), atomic_folder(tmp_path / "out", overwrite=True, marker="mark"):
        pass
    with atomic_folder(tmp_path / "out", overwrite=True) as folder:
        fill(folder, a="new")
    assert content(tmp_path) == {"out/a": "new"}


def test_parts_are_merged_into_a_folder_and_its_marker_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    fill(out, index="old", part="old", optional="old", log="stays")
    moved: list[str] = []
    real = os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: (moved.append(Path(target).name), real(source, target)))
    with atomic_folder(out, marker="index", into=("optional",)) as folder:
        fill(folder, index="new", part="new", another="new")
    assert content(out) == {"index": "new", "part": "new", "another": "new", "log": "stays"}
    assert moved == ["another", "part", "index"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
