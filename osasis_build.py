"""setuptools' build backend, plus one start-up file that shows nnU-Net where our trainers are.

nnU-Net looks for a trainer it does not know in the folders listed in the environment variable
``nnUNet_extTrainer``. The file added here, ``nnunet_osasis_trainers.pth``, lies in site-packages next to the
package; Python reads it at every start and appends our folder of re-exports to that variable. So a plain
``pip install`` is all it takes, for ``nnUNetv2_train``, for the processes it starts and for ``nnUNetv2_predict``
alike, and ``pip uninstall`` takes the file away again because it is listed in the wheel's RECORD.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

PTH_NAME = "nnunet_osasis_trainers.pth"
_TRAINERS = ("nnunet_osasis", "nnunet", "ext_trainers")

# In a .pth file only lines that begin with "import" are executed, one line at a time. This one must be cheap
# (every interpreter runs it, so no package is imported to find the folder) and must stay silent when the package
# is gone or half gone. The user's own folders keep their place in front; ours is never added twice.
_FIND_INSTALLED = (
    "s = m.PathFinder.find_spec('nnunet_osasis'); "
    "d = os.path.join(list(s.submodule_search_locations or [''])[0], 'nnunet', 'ext_trainers') if s else ''; "
)
_LINE = (
    "import os, importlib.machinery as m; {find}"
    "v = os.environ.get('nnUNet_extTrainer', ''); "
    "os.path.isdir(d) and d not in v.split(os.pathsep) and "
    "os.environ.update(nnUNet_extTrainer=os.pathsep.join(filter(None, (v, d))))\n"
)


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """Build the ordinary wheel; its start-up file finds the folder beside the installed package."""
    name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    _add_file(Path(wheel_directory) / name, PTH_NAME, _LINE.format(find=_FIND_INSTALLED))
    return name


def build_editable(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """Build the editable wheel; its start-up file names the folder in the working tree."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    folder = Path(__file__).resolve().parent.joinpath(*_TRAINERS)
    _add_file(Path(wheel_directory) / name, PTH_NAME, _LINE.format(find=f"d = {str(folder)!r}; "))
    return name


def _add_file(wheel: Path, name: str, text: str) -> None:
    """Rewrite ``wheel`` with one more file at its root, listed in its RECORD."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    rewritten = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(rewritten, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith(".dist-info/RECORD"):
                rows = [*csv.reader(io.StringIO(data.decode())), [name, f"sha256={digest}", str(len(text.encode()))]]
                record = io.StringIO()
                csv.writer(record, lineterminator="\n").writerows(rows)
                data = record.getvalue().encode()
                # The archive's own time stamp, so that the same tree gives the same wheel.
                added = zipfile.ZipInfo(name, date_time=entry.date_time)
                added.external_attr = 0o644 << 16
                new.writestr(added, text)
            new.writestr(entry, data)
    os.replace(rewritten, wheel)
