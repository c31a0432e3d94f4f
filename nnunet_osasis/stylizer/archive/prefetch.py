"""Reading the next item and writing the last one while one is computed; results as if done one by one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

Read = TypeVar("Read")

Made = TypeVar("Made")


def in_overlap(
    items: Sequence[T],
    read: Callable[[T], Read | None],
    work: Callable[[Read], Made],
    write: Callable[[Read, Made], None],
    *,
    alone: Callable[[T], bool],
) -> Generator[bool, None, None]:
    """``read``, ``work`` and ``write`` every item, in order; yields after each whether there was something to do.

    One item is read ahead and one is written behind, each in a thread; never more, so that memory does not depend on
    the number of items. What fails ends the rest at that item: everything before it has been written by then.

    Args:
        read: gives what ``work`` needs; None leaves the item out.
        alone: items so large that there should be one of them in memory.
    """
    ahead: Future[Read | None] | None = None
    behind: Future[None] | None = None
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        try:
            for position, item in enumerate(items):
                if alone(item) and behind is not None:
                    behind.result()
                found = read(item) if ahead is None else ahead.result()
                ahead = None
                if position + 1 < len(items) and not alone(item) and not alone(items[position + 1]):
                    ahead = reader.submit(read, items[position + 1])
                to_do = found is not None
                if found is not None:
                    made = work(found)
                    if behind is not None:
                        behind.result()
                    behind = writer.submit(write, found, made)
                    del made
                    if alone(item):
                        behind.result()
                del found
                yield to_do
        finally:
            if behind is not None:
                behind.result()
