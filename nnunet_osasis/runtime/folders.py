"""A folder that appears whole: filled under another name, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.locks import output_lock
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.runtime.storage import sync_folder, temporary_prefix, write_error


@contextmanager
def new_folder(target: Path, *, overwrite: bool, marker: str) -> Iterator[Path]:
    """An empty folder beside ``target`` to fill; when the block ends without an exception it becomes ``target``.

    Args:
        overwrite: replace a ``target`` that is there, if a file ``marker`` in it says that it was made this way.

    Raises ``OsasisError`` when ``target`` is there and may not be replaced, when another process is at work beside
    it, and when the place cannot be written.
    """
    _require_free(target, overwrite=overwrite, marker=marker)
    with output_lock(target.parent, "osasis-export"):
        temporary: Path | None = None
        try:
            temporary = Path(tempfile.mkdtemp(prefix=temporary_prefix(), dir=target.parent))
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o777 & ~umask)  # mkdtemp makes private folders; results should be as shared as others
            yield temporary
            for folder in (temporary, *(path for path in temporary.rglob("*") if path.is_dir())):
                sync_folder(folder)
            _require_free(target, overwrite=overwrite, marker=marker)
            _replace(temporary, target)
        except OSError as error:
            raise write_error(target, error) from error
        finally:
            if temporary is not None and temporary.exists():
                shutil.rmtree(temporary)


def _require_free(target: Path, *, overwrite: bool, marker: str) -> None:
    if not os.path.lexists(target):
        return
    if not (target / marker).is_file():
        raise OsasisError(
            "Only an earlier export is ever replaced",
            found=f"{target}, which is something else (no {marker} in it)",
            remedy="Choose another output folder (-o).",
        )
    if not overwrite:
        raise OsasisError(
            "The output must be new", found=f"{target}, which is there", remedy="Add --overwrite, or choose another -o."
        )


def _replace(temporary: Path, target: Path) -> None:
    if target.exists():
        # Under a name that the next run clears, should this one be killed before the last line.
        old = Path(tempfile.mkdtemp(prefix=temporary_prefix(), dir=target.parent))
        target.rename(old / target.name)
        temporary.rename(target)
        sync_folder(target.parent)
        shutil.rmtree(old)
    else:
        temporary.rename(target)
        sync_folder(target.parent)


def claim(root: Path, command: str) -> None:
    """Make the output folder ``command``'s: steps that run again replace whole subfolders of it.

    Raises ``OsasisError`` for a folder that holds anything but an earlier output of the same command.
    """
    marker = root / f"{command.replace('-', '_')}.json"
    if root.exists() and not marker.is_file() and (not root.is_dir() or any(root.iterdir())):
        raise OsasisError(
            f"The output folder must be new, empty, or an earlier one of {command}",
            found=f"other content in {root}",
            remedy="Choose another --output.",
        )
    atomic_write_json(marker, {"made_by": command})
