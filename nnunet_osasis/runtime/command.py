"""What every command shares: one way to end, one way to choose a device."""

from __future__ import annotations

import argparse
import io
import math
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from nnunet_osasis.errors import OsasisError


def run_command(main: Callable[[], object]) -> NoReturn:
    """Run ``main`` and leave the interpreter: 0 when done, 1 with one message on bad input, 130 on Ctrl-C.

    What the machine refuses (a path that cannot be used, memory that is not there) is one message too. Anything else is
    a mistake of ours and keeps its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names need not be text
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
        sys.stdout.flush()
    except OsasisError as error:
        _end(error)
    except KeyboardInterrupt:
        print("Interrupted. Finished work is kept; the same command (with --resume) continues.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        _end(
            OsasisError(
                "Files and folders must be usable",
                found=f"{error.strerror or error}{where}",
                remedy="Check the path and its permissions.",
            )
        )
    except (MemoryError, RuntimeError) as error:
        if "Symlink loop" in str(error):  # what Path.resolve() raised before Python 3.13
            _end(
                OsasisError(
                    "Files and folders must be usable", found=str(error), remedy="Check the path and its permissions."
                )
            )
        if not (isinstance(error, MemoryError) or _NO_MEMORY.search(str(error))):
            raise
        _end(OsasisError("There must be enough memory", found=str(error) or "none left", remedy="Choose less at once."))
    sys.exit(0)


_NO_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory|Storage size calculation overflowed")


def _end(error: OsasisError) -> NoReturn:
    """Print a message, control characters of file names and cards made visible, and leave with status 1."""
    shown = "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in str(error))
    print(f"Error: {shown}", file=sys.stderr)
    sys.exit(1)


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add nnU-Net's ``-device`` option."""
    parser.add_argument(
        "-device", default="auto", help="cpu, cuda, cuda:1 or mps; default: auto, a GPU when there is one"
    )


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


def positive_number(text: str) -> float:
    """Argparse type: a finite number above 0."""
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text[:40]}")
    return value


def seed_number(text: str) -> int:
    """Argparse type: what every generator of random numbers takes, 0 to 2**32 - 1."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be from 0 to {2**32 - 1}, got {text[:40]}")
    return value
