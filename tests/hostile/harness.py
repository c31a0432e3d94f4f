"""How a bad input may end: in a checked result, or in one clear message. Nothing else passes, and not for ever."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.runtime.command import run_command

SECONDS = 60
"""Time after which an input counts as a hang, in seconds; nothing here takes more than a few."""
LONGEST = 2500
"""Longest message that a person still reads, in characters."""


@dataclass(frozen=True)
class Bad:
    """One odd input.

    Attributes:
        name: what is odd about it.
        make: takes an empty folder and returns the call that meets the input.
        check: checks the result; None means that the input must be refused.
        refusable: whether the input may be refused although there is a ``check``.
    """

    name: str
    make: Callable[[Path], Callable[[], Any]]
    check: Callable[[Any], None] | None = None
    refusable: bool = False


def bad(cases: Sequence[Bad]) -> Any:
    """Parametrize a test over ``cases``."""
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return pytest.mark.parametrize("case", cases, ids=names)


@contextmanager
def no_longer_than(seconds: float) -> Iterator[None]:
    """Raise inside whatever runs too long; a decoder in C is stopped by pytest's caller, not by this."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def require_clear(message: str) -> None:
    """Require one message: a sentence, not a dump."""
    assert message.strip()
    assert "Traceback" not in message
    assert len(message) < LONGEST, message[:300]


def meet(case: Bad, folder: Path) -> str:
    """Let the library meet ``case``; return how it ended, ``result`` or ``refused``. Any other end fails the test."""
    call = case.make(folder)
    refusal: OsasisError | None = None
    with no_longer_than(SECONDS):
        try:
            value = call()
        except OsasisError as error:
            refusal = error
    if refusal is not None:
        assert case.check is None or case.refusable, f"refused: {refusal}"
        require_clear(str(refusal))
        return "refused"
    assert case.check is not None, f"taken for good: {value!r:.300}"
    case.check(value)
    return "result"


def command(main: Callable[[list[str]], object], arguments: Sequence[object], capsys: pytest.CaptureFixture) -> str:
    """Run a command as typed; return the one message that it must leave on stderr, or ``""`` if it did its work.

    Warnings of progress bars and libraries may stand before the message.
    """
    capsys.readouterr()
    with no_longer_than(SECONDS), pytest.raises(SystemExit) as ended:
        run_command(lambda: main([str(item) for item in arguments]))
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    status = ended.value.code
    if status == 0:
        return ""
    assert status in (1, 2), f"status {status}: {shown}"
    mark = "Error: " if status == 1 else ": error: "
    assert shown.count(mark) == 1, shown
    message = shown.partition(mark)[2]
    require_clear(message)
    return message
