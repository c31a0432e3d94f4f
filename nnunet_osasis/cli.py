"""What every command shares: one way to end, one way to choose a device."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from nnunet_osasis.errors import OsasisError


def run_command(main: Callable[[], object]) -> NoReturn:
    """Run ``main`` and leave the interpreter: 0 when done, 1 with one message on bad input, 130 on Ctrl-C."""
    try:
        main()
    except OsasisError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Interrupted. Finished work is kept; the same command (with --resume) continues.", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add nnU-Net's ``-device`` option."""
    parser.add_argument(
        "-device", default="auto", help="cpu, cuda, cuda:1 or mps; default: auto, a GPU when there is one"
    )


def resolve_device(name: str) -> str:
    """Turn ``auto`` into the best device there is. Raises ``OsasisError`` for a device that is not there."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind = name.split(":")[0]
    there = {
        "cpu": lambda: name == "cpu",
        "cuda": lambda: torch.cuda.is_available() and int(name[5:] or 0) < torch.cuda.device_count(),
        "mps": lambda: name == "mps" and torch.backends.mps.is_available(),
    }
    if kind not in there or not re.fullmatch(r"\w+(:\d+)?", name) or not there[kind]():
        raise OsasisError("The device (-device, device=) must be one of this machine", found=name, remedy="Use cpu.")
    return name


def positive_int(text: str) -> int:
    """Argparse type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def whole_number(text: str) -> int:
    """Argparse type: an integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def unit_interval(text: str) -> float:
    """Argparse type: a number in [0, 1]."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie in [0, 1], got {value}")
    return value
