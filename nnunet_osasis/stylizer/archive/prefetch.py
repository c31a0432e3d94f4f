"""Read the next item and write the last one while one is computed; results are as if done one by one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

Content = TypeVar("Content")

Result = TypeVar("Result")


def prefetched(
    items: Sequence[T],
    read: Callable[[T], Content | None],
    work: Callable[[Content], Result],
    write: Callable[[Content, Result], None],
    *,
    alone: Callable[[T], bool],
) -> Generator[bool, None, None]:
    """``read``, ``work`` and ``write`` every item, in order; yields after each whether there was something to do.

    One item is read ahead and one is written behind, each in a thread; never more, so that memory does not depend on
    the number of items. What fails ends the rest at that item: everything before it has been written by then.

    Args:
        items: what to do.
        read: gives what ``work`` needs; None leaves the item out.
        work: computes the result, in the calling thread.
        write: takes what was read and the result.
        alone: whether an item is so large that it must be the only one in memory.
    """
    ahead: Future[Content | None] | None = None
    behind: Future[None] | None = None
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        try:
            for position, item in enumerate(items):
                if alone(item) and behind is not None:
                    behind.result()
                content = read(item) if ahead is None else ahead.result()
                ahead = None
                if position + 1 < len(items) and not alone(item) and not alone(items[position + 1]):
                    ahead = reader.submit(read, items[position + 1])
                to_do = content is not None
                if content is not None:
                    result = work(content)
                    if behind is not None:
                        behind.result()
                    behind = writer.submit(write, content, result)
                    del result
                    if alone(item):
                        behind.result()
                del content
                yield to_do
        finally:
            if behind is not None:
                behind.result()
