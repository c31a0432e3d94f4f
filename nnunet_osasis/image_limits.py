"""How large an image may say it is: checked against its header, before any memory is taken for it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

from nnunet_osasis.errors import OsasisError

VARIABLE = "OSASIS_MAX_VALUES"
MAX_VALUES = 2**30
"""Numbers (pixels or voxels times channels) of one image: 1024 x 1024 x 1024 in one channel."""


def most_values() -> int:
    """``MAX_VALUES``, or what the environment variable ``OSASIS_MAX_VALUES`` says instead.

    Raises ``OsasisError`` unless that is a whole number of at least 1.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return MAX_VALUES
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
        raise OsasisError(f"{VARIABLE} must be a whole number of at least 1", found=text[:40], remedy="Unset it.")
    return int(text)


def check_size(sides: Iterable[int], path: str | Path) -> int:
    """The product of ``sides``, channels too. Raises ``OsasisError`` for a side below 1 and for too many values."""
    shape = [int(side) for side in sides]
    if any(side < 1 for side in shape):
        raise OsasisError("An image's sides must be at least 1", found=f"{shape} in {path}", remedy="Leave it out.")
    values, most = math.prod(shape), most_values()
    if values > most:
        raise OsasisError(
            f"An image may hold {most} values at most",
            found=f"{' x '.join(map(str, shape))} in {path}",
            remedy=f"If the file is what it says and there is memory for it, set the variable {VARIABLE} higher.",
        )
    return values
