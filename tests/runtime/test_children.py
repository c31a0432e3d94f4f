"""Commands as child processes: run by name, on as many cores as they are shown, and gone with their parent."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.runtime.children import child_command, console_command


@pytest.mark.parametrize("one_core", [True, False])
def test_a_module_sees_the_cores_it_is_shown_and_its_arguments(one_core: bool, tmp_path: Path) -> None:
    (tmp_path / "cores.py").write_text(
        "import multiprocessing, os, sys\nprint(os.cpu_count(), multiprocessing.cpu_count(), *sys.argv[1:])\n"
    )
    command = child_command("cores", "-x", "a b", one_core=one_core)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": ""}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    cores = 1 if one_core else os.cpu_count()
    assert ended.stdout == f"{cores} {cores} -x a b\n"


def test_a_console_command_runs_by_its_name() -> None:
    ended = subprocess.run(child_command("@osasis-info", "--version"), capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("osasis-info of nnunet-osasis")


def test_a_command_that_is_not_installed_is_named() -> None:
    with pytest.raises(OsasisError, match=r"no osasis-nothing.*pip install"):
        console_command("osasis-nothing")
