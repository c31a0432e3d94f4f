"""Who may work in an output folder: one run alone, or several parts of one run at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.distributed import Shard
from nnunet_osasis.runtime.locks import held_by, output_lock
from nnunet_osasis.stylizer.archive.record import PARTS, Log, drop_damaged_manifest, lock_of, logs_in, merge, work_of

COMMAND = "osasis-stylize"

PATIENCE = 20.0
"""Seconds that parts wait for each other's start and end before they say so."""


@dataclass
class Place:
    """A run's place in an output folder.

    Attributes:
        log: of this run. others: parts that were at work when this one ended; without any, all that was made until
        then is in the manifest.
    """

    log: Log
    others: dict[Shard, str] = field(default_factory=dict)


@contextmanager
def place_in(output: Path, share: Shard, work: str) -> Iterator[Place]:
    """Hold a share's place in ``output``; merge what was logged at the end, if no other part is at work by then.

    A run of all images has the folder for itself and is refused while somebody else is there. Parts hold the folder
    for the moments in which they come and go, and a lock of their own between.

    Args:
        work: a digest of the list of images and of all options, which parts that are at work at once must share.

    Raises:
        OsasisError: the folder is in use by a run that would make the same images, by this part itself, or by parts
            of other images or options; or it cannot be written.
    """
    if share.count == 1:
        with output_lock(output, COMMAND):
            if others := at_work(output):
                raise _refusal(output, *next(iter(others.items())))
            drop_damaged_manifest(output)
            merge(output)
            try:
                yield Place(Log(output, share, work))
            finally:
                merge(output)
        return
    command = f"{COMMAND}, {share}"
    with ExitStack() as held:
        with output_lock(output, command, wait=True, patience=PATIENCE):
            others = at_work(output)
            for other, owner in others.items():
                if share.overlaps(other):
                    raise _refusal(output, other, owner)
                if work_of(logs_in(output)[other]) != work:
                    raise OsasisError(
                        "Parts at work at once must have the same images and options",
                        found=f"{owner} at work on other ones in {output}",
                        remedy="Wait for it, then run all parts on the images as they are now.",
                    )
            if not others:
                drop_damaged_manifest(output)
                merge(output)
            held.enter_context(output_lock(output / PARTS, command, name=lock_of(share)))
            place = Place(Log(output, share, work))
        try:
            yield place
        finally:
            with output_lock(output, command, wait=True, patience=PATIENCE):
                held.close()
                place.others = at_work(output)
                if not place.others:
                    merge(output)


def at_work(output: Path) -> dict[Shard, str]:
    """Parts whose process lives, with who it is. To be asked by whoever holds ``output``."""
    shares = (share for share in logs_in(output) if share != Shard())
    held = ((share, held_by(output / PARTS, lock_of(share))) for share in shares)
    return {share: owner for share, owner in held if owner is not None}


def _refusal(output: Path, share: Shard, owner: str) -> OsasisError:
    marker = output / PARTS / f"{lock_of(share)}.marker"
    return OsasisError(
        "No image may be made by two processes at once",
        found=f"{owner} at work on {share} in {output}",
        remedy="Wait for it, or give all parts the same --num-parts and each another --part-id."
        + (f" If that process is gone, delete {marker}." if marker.exists() else ""),
    )
