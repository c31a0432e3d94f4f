"""What worker processes of the pool's tests do; importable there by name."""

from __future__ import annotations

import os
import time
from typing import Any

from nnunet_osasis import OsasisError


def report(name: str, *rest: Any) -> dict[str, Any]:
    """Say what was handed in, and where it ran."""
    return {"name": name, "rest": list(rest), "process": os.getpid()}


def slowly(name: str, seconds: float, *rest: Any) -> dict[str, Any]:
    """The same after a while."""
    time.sleep(seconds)
    return report(name, *rest)


def refuse(name: str, *_: Any) -> dict[str, Any]:
    """Fail as our code does."""
    raise OsasisError("It must work", found=name, remedy="Try again.")


def break_down(name: str, *_: Any) -> dict[str, Any]:
    """Fail as a library does."""
    raise RuntimeError(f"out of memory in {name}")


def die(*_: Any) -> dict[str, Any]:
    """End as a process that the system kills."""
    os._exit(9)
