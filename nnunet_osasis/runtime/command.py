"""What every command shares: its parser, the types of its options, and one way to end."""

from __future__ import annotations

import argparse
import io
import math
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.escaping import visible
from nnunet_osasis.runtime.provenance import versions

N = TypeVar("N", int, float)


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
        _exit(error)
    except KeyboardInterrupt:
        print(
            "Interrupted. Finished work is kept; the same command (osasis-pretrain-stylizer: with --resume) continues.",
            file=sys.stderr,
        )
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        _exit(_unusable(f"{error.strerror or error}{where}"))
    except (MemoryError, RuntimeError) as error:
        if "Symlink loop" in str(error):  # what Path.resolve() raised before Python 3.13
            _exit(_unusable(str(error)))
        if not (isinstance(error, MemoryError) or _NO_MEMORY.search(str(error))):
            raise
        _exit(
            OsasisError("There must be enough memory", found=str(error) or "none left", remedy="Choose less at once.")
        )
    sys.exit(0)


_NO_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory|Storage size calculation overflowed")


def _unusable(found: str) -> OsasisError:
    return OsasisError("Files and folders must be usable", found=found, remedy="Check the path and its permissions.")


def _exit(error: OsasisError) -> NoReturn:
    """Print a message, control characters of file names and cards made visible, and leave with status 1."""
    print(f"Error: {visible(str(error))}", file=sys.stderr)
    sys.exit(1)


def command_parser(prog: str, description: str, examples: str) -> argparse.ArgumentParser:
    """An argument parser with ``--version``, whose help ends in ``examples`` as they are."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_version(parser)
    return parser


def duration(seconds: float) -> str:
    """Return a time for people.

    >>> duration(40), duration(500), duration(20_000), duration(400_000)
    ('40 s', '8 min', '5.6 h', '4.6 days')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add ``--version``, which prints the package's version and ends the command."""
    version = versions(["nnunet-osasis"])["nnunet-osasis"]
    parser.add_argument("--version", action="version", version=f"%(prog)s of nnunet-osasis {version}")


def add_gray(parser: argparse._ActionsContainer) -> None:
    """Add ``--gray``."""
    parser.add_argument(
        "--gray", "--grey", action="store_true", help="make one channel of images that are gray but stored as RGB"
    )


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add nnU-Net's ``-device`` option."""
    parser.add_argument(
        "-device", default="auto", help="cpu, cuda, cuda:1 or mps; default: auto, a GPU when there is one"
    )


def _number(name: str, kind: Callable[[str], N], accepts: Callable[[N], bool], rule: str) -> Callable[[str], N]:
    """An argparse type. ``name`` stands in argparse's message for text that is no number."""

    def parse(text: str) -> N:
        value = kind(text)
        if not accepts(value):
            raise argparse.ArgumentTypeError(f"must {rule}, got {text[:40]}")
        return value

    parse.__name__ = name
    return parse


positive_int = _number("positive_int", int, lambda value: value >= 1, "be at least 1")
whole_number = _number("whole_number", int, lambda value: value >= 0, "be at least 0")
unit_interval = _number("unit_interval", float, lambda value: 0 <= value <= 1, "lie in [0, 1]")
positive_number = _number(
    "positive_number", float, lambda value: math.isfinite(value) and value > 0, "be a number above 0"
)
seed_number = _number("seed_number", int, lambda value: 0 <= value < 2**32, f"be from 0 to {2**32 - 1}")
"""Argparse type of what every generator of random numbers takes."""
