"""Folders that appear whole: they are filled under a temporary name, flushed to the disk, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.runtime.storage import (
    NO_ROOM,
    concerns_others,
    share_as_usual,
    sync_folder,
    sync_tree,
    temporary_folder,
    write_error,
)


@contextmanager
def atomic_folder(
    target: str | Path,
    *,
    overwrite: bool = False,
    marker: str | None = None,
    into: Collection[str] | None = None,
) -> Iterator[Path]:
    """Yield an empty folder beside ``target``; it takes the target's place when the block ends without an exception.

    A reader sees the old folder, none, or the whole new one. What a killed process leaves has a name that
    :func:`~nnunet_osasis.runtime.storage.remove_stale_temporaries` deletes. Hold an
    :func:`~nnunet_osasis.runtime.locks.output_lock` around it where several processes may write one target.

    Args:
        target: the folder to make; its parents are made if need be.
        overwrite: replace a folder that is there.
        marker: a file name; a folder without this file is never replaced.
        into: keep the other content of a folder that is there (logs, checkpoints): only the entries with these names
            are removed or replaced. ``marker`` is then required; it is removed first and put in its place last.

    Raises:
        OsasisError: ``target`` is there and may not be replaced, or the disk refuses.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with atomic_folder(f"{root}/data") as folder:
    ...         _ = (folder / "a.txt").write_text("whole")
    ...     print(*os.listdir(f"{root}/data"))
    a.txt
    """
    target = Path(target)
    if into is None:
        _require_free(target, overwrite=overwrite, marker=marker)
    with ExitStack() as stack:
        with _as_write_error(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(temporary_folder(target.parent)) / target.name
            temporary.mkdir()
            share_as_usual(temporary, 0o777)
        try:
            yield temporary
        except OSError as error:  # what the block reads has messages of its own
            unnamed = error.filename is None and error.errno not in (*NO_ROOM, errno.EFBIG)
            if unnamed or concerns_others(error, temporary):
                raise
            raise write_error(target, error) from error
        with _as_write_error(target):
            sync_tree(temporary)
            if into is not None:
                assert marker is not None  # noqa: S101
                _merge(temporary, target, marker, into)
            else:
                _require_free(target, overwrite=overwrite, marker=marker)  # another process may have made it meanwhile
                _replace(temporary, target)


@contextmanager
def _as_write_error(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_error(target, error) from error


def _require_free(target: Path, *, overwrite: bool, marker: str | None) -> None:
    if not os.path.lexists(target):
        return
    if marker is not None and not (target / marker).is_file():
        raise OsasisError(
            f"Only an earlier export, a folder with {marker}, is ever replaced",
            found=f"{target}, which is something else",
            remedy="Choose another output folder (-o).",
        )
    if not overwrite:
        raise OsasisError(
            "The output must be new", found=f"{target}, which is there", remedy="Add --overwrite, or choose another -o."
        )


def _replace(temporary: Path, target: Path) -> None:
    if target.exists():  # away, beside the new one, which the next run clears should this one be killed
        target.rename(temporary.parent / f"{target.name}.old")
    temporary.rename(target)
    sync_folder(target.parent)


def _merge(temporary: Path, target: Path, marker: str, names: Collection[str]) -> None:
    target.mkdir(exist_ok=True)
    (target / marker).unlink(missing_ok=True)
    parts = sorted(path.name for path in temporary.iterdir() if path.name != marker)
    for name in sorted({*parts, *names} - {marker}):
        if (target / name).is_dir():
            shutil.rmtree(target / name)
        else:
            (target / name).unlink(missing_ok=True)
        if name in parts:
            os.replace(temporary / name, target / name)
    sync_folder(target)
    os.replace(temporary / marker, target / marker)
    sync_folder(target)


def claim(root: Path, command: str) -> None:
    """Make the output folder ``command``'s: steps that run again replace whole subfolders of it.

    Raises:
        OsasisError: the folder holds anything but an earlier output of the same command.
    """
    marker = root / f"{command.replace('-', '_')}.json"
    if root.exists() and not marker.is_file() and (not root.is_dir() or any(root.iterdir())):
        raise OsasisError(
            f"The output folder must be new, empty, or an earlier one of {command}",
            found=f"other content in {root}",
            remedy="Choose another --output.",
        )
    atomic_write_json(marker, {"made_by": command})


def require_apart(output: str | Path, inputs: Iterable[str | Path], *, parts: Iterable[str] = ()) -> None:
    """Refuse an output folder that is a folder of inputs or lies in one, through links too, before anything is written.

    Args:
        output: the folder of results.
        inputs: folders that are read.
        parts: names of folders in ``output`` that are written, which may be no inputs either.

    Raises:
        OsasisError: results could replace inputs, or be taken for inputs later.
    """
    places = [Path(output).resolve(), *((Path(output) / part).resolve() for part in parts)]
    for folder in inputs:
        if any(Path(folder).resolve() in (place, *place.parents) for place in places):
            raise OsasisError(
                "The output must be another folder than the inputs, and lie in none of them",
                found=f"{output}, where {folder} is read",
                remedy="Choose another output folder.",
            )
