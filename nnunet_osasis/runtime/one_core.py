"""Run a console command as if the machine had one core: ``python -m ...runtime.one_core nnUNetv2_train ...``.

On a CPU nnU-Net gives PyTorch as many threads as there are cores, whatever OMP_NUM_THREADS says. For the demo's small
networks that is slower than one thread, and two trainings side by side use the cores better. From Python 3.13
on PYTHON_CPU_COUNT=1 says the same; this module says it to older versions. Nothing else of the command changes.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from importlib.metadata import entry_points

from nnunet_osasis.errors import OsasisError


def _one() -> int:
    return 1


def main() -> object:
    """Run the console command that the arguments name."""
    name, *arguments = sys.argv[1:]
    found = entry_points(group="console_scripts", name=name)
    if not found:
        raise OsasisError(
            "The console command must be installed", found=f"no {name}", remedy="python -m pip install -e ."
        )
    os.cpu_count = multiprocessing.cpu_count = _one
    sys.argv = [name, *arguments]
    return next(iter(found)).load()()


if __name__ == "__main__":
    sys.exit(main())  # type: ignore[arg-type]
