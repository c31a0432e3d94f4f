"""The same work for many files, in this process or in several, in order, with a bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from tqdm import tqdm

from nnunet_osasis.errors import OsasisError

R = TypeVar("R")


@contextmanager
def workers(processes: int, *, progress: bool) -> Iterator[Callable[[Callable, list, str], list]]:
    """A map over ``processes`` that keeps the order and shows a bar; the first failure stops it."""

    def bar(results: Iterable[R], items: list, title: str) -> list[R]:
        return list(tqdm(results, total=len(items), desc=title, disable=not progress, dynamic_ncols=True))

    if processes == 1:
        yield lambda work, items, title: bar(map(work, items), items, title)
        return
    # Spawned, as nnU-Net does: a forked copy of a process with running threads may hang.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        try:
            yield lambda work, items, title: bar(
                pool.map(work, items, chunksize=max(1, min(16, len(items) // (4 * processes)))), items, title
            )
        except BrokenProcessPool as error:
            raise OsasisError(
                "Worker processes must live to their end",
                found="one that was killed, or that could not start",
                remedy="Memory is the usual reason: use fewer (-np 1). A script of your own must start its work below "
                "if __name__ == '__main__'.",
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes share the cores among themselves
