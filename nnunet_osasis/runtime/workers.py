"""Worker processes, one per task and as many side by side as there are places; devices are handed out in turn.

The same work for many files, in this process or in several, in order, with a bar.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, TypeVar

from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.children import end_with_parent

THREADS = 1
"""Of a task on a CPU, however many there are: sums in another order have other last bits, and rows are to be equal."""


@dataclass(frozen=True)
class Task:
    """``function(*arguments)`` in a process of its own; with ``takes_device`` the device is appended to the arguments.

    ``function`` must be importable, and its last argument is the number of threads it may use.
    """

    name: str
    function: Callable[..., dict[str, Any]]
    arguments: tuple
    takes_device: bool = False


def run_tasks(
    tasks: Sequence[Task], *, workers: int, devices: Sequence[str], describe: str, done: Callable[[Task, dict], None]
) -> None:
    """Run all tasks; a failing one does not keep the others from finishing.

    Args:
        workers: tasks side by side. devices: handed to tasks in turn, such as ``("cuda:0", "cuda:1")``.
        done: called in this process with every task that ended well.

    Raises:
        OsasisError: tasks failed; the first reason and all names are told after the others have ended.
    """
    if not tasks:
        return
    free = [devices[i % len(devices)] for i in range(workers)]
    waiting, running, failed = list(tasks), dict[Future, tuple[Task, str]](), list[tuple[str, BaseException]]()
    with (
        ProcessPoolExecutor(
            workers, mp_context=_context(), max_tasks_per_child=1, initializer=end_with_parent
        ) as executor,
        tqdm(total=len(tasks), desc=describe, unit="task", dynamic_ncols=True) as bar,
    ):
        try:
            while waiting or running:
                while waiting and free:
                    task, device = waiting.pop(0), free.pop(0)
                    arguments = (*task.arguments, device, THREADS) if task.takes_device else (*task.arguments, THREADS)
                    running[executor.submit(task.function, *arguments)] = task, device
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task, device = running.pop(future)
                    free.append(device)
                    bar.update()
                    if (error := future.exception()) is not None:
                        failed.append((task.name, error))
                        if isinstance(error, BrokenProcessPool):
                            waiting, running = [], {}
                            break
                    else:
                        done(task, future.result())
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        name, error = failed[0]
        if isinstance(error, BrokenProcessPool):
            raise OsasisError(
                "Worker processes must live to their end",
                found=f"one was killed during {name}",
                remedy="If memory ran out, use fewer of them (-np 1). The same command goes on from what is finished.",
            ) from error
        if not isinstance(error, OsasisError):
            error.add_note(f"In {name}; failed in all: {', '.join(n for n, _ in failed)}.")
            raise error
        others = f" (also failed: {', '.join(n for n, _ in failed[1:])})" if len(failed) > 1 else ""
        raise OsasisError(f"{name} failed: {error.rule}", found=error.found, remedy=f"{error.remedy or ''}{others}")


def _context() -> multiprocessing.context.BaseContext:
    """Processes that inherit neither locks nor a CUDA context, and import torch anew only where they must.

    A fork server imports once and stays free of threads; Windows has none and starts afresh.
    """
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    trainer = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer"
    unet = "dynamic_network_architectures.architectures.unet"
    context.set_forkserver_preload(
        ["torch", "monai.inferers", trainer, unet, "nnunet_osasis.evaluation.experiment.tasks"]
    )
    return context


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
