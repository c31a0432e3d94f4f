"""Worker processes: one pool, and the three ways in which the package hands work to it.

:func:`run_tasks` runs unlike tasks, each in a process of its own. :func:`workers` maps a function over many files.
:func:`make_cases` makes the cases of a dataset with networks that every worker holds. Workers compute with one thread,
so that results do not depend on their number, and they end with the process that started them.
"""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from time import perf_counter
from typing import Any, Protocol

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.children import exit_with_parent

logger = logging.getLogger(__name__)

THREADS = 1
"""Threads of a worker on a CPU, however many cores there are: sums in another order have other last bits."""

MIN_SECONDS = 30.0
"""Seconds of work that must be left before :func:`make_cases` starts processes unasked: each one imports torch."""

PROCESSES_PER_GPU = 2
"""Most processes of one CUDA device that are started unasked: each holds a copy of the networks."""

MAX_CHUNK = 16
"""Most files that travel to a worker in one message."""

Job = tuple[str, Callable[..., Any], tuple]
"""What a job is called in messages, its function (importable by name), and the function's arguments."""


@dataclass
class _State:
    """What a worker process knows: the device it was given, and the maker of cases it holds."""

    device: str = "cpu"
    maker: Any = None


_state = _State()


def _start(environment: dict[str, str], device: str, maker: bytes | None) -> None:
    """Begin a worker. A fork server keeps the environment that it was started with; it gets the present one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    exit_with_parent()
    os.environ.update(environment, OMP_NUM_THREADS=str(THREADS))
    _state.device = device
    if maker is not None:
        try:
            _state.maker = ForkingPickler.loads(maker)  # as multiprocessing reads what its parent sends
            _state.maker.to(device)
        except Exception as error:  # raised by the first case: an exception in here would lose its text
            _state.maker = error
    threadpool_limits(THREADS)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(THREADS)


def _call(function: Callable[..., Any], arguments: tuple) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        try:
            pickle.dumps(error)
            copy.copy(error)  # made anew from its arguments, as unpickling does
        except Exception:  # exceptions of any library may refuse to travel
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        raise


class _Pool:
    """One single-worker executor per device, so that a worker that was killed is known by its job.

    Args:
        devices: the device of every worker, such as ``["cuda:0", "cuda:1"]``.
        preload: modules that a fork server imports once for all workers; without any they are spawned.
        maker: a pickled :class:`CaseMaker` for every worker to hold.
        fresh: give every job a process of its own.
        fewer: how the user asks for fewer processes.
    """

    def __init__(
        self,
        devices: Sequence[str],
        *,
        preload: Sequence[str] = (),
        maker: bytes | None = None,
        fresh: bool = False,
        fewer: str = "-np 1",
    ) -> None:
        # Spawned or served processes inherit neither locks nor a CUDA context. A process has one fork server, which
        # imports what its first pool asks for: pools that need no heavy import leave it to those that do.
        served = bool(preload) and sys.platform != "win32"  # Windows has no fork server
        context = multiprocessing.get_context("forkserver" if served else "spawn")
        if served:
            context.set_forkserver_preload([name for name in dict.fromkeys(preload) if name != "__main__"])
        self._fewer = fewer
        self._executors = [
            ProcessPoolExecutor(
                1,
                mp_context=context,
                initializer=_start,
                initargs=(dict(os.environ), device, maker),
                max_tasks_per_child=1 if fresh else None,
            )
            for device in devices
        ]

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # what the workers are about is not in place yet
            for executor in self._executors:
                for process in list((executor._processes or {}).values()):  # kill_workers() from Python 3.14 on
                    process.kill()
        for executor in self._executors:
            executor.shutdown(wait=True, cancel_futures=True)

    def completed(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Future]]:
        """Yield the index and the future of every job as it ends. Raises ``OsasisError`` when a worker is killed."""
        waiting, free = deque(enumerate(jobs)), deque(self._executors)
        running: dict[Future, tuple[int, ProcessPoolExecutor]] = {}
        while waiting or running:
            while waiting and free:
                executor = free.popleft()
                index, (name, function, arguments) = waiting.popleft()
                try:
                    running[executor.submit(_call, function, arguments)] = index, executor
                except BrokenProcessPool:  # it was killed while it was idle
                    raise self._killed(name, executor) from None
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                index, executor = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    raise self._killed(jobs[index][0], executor)
                free.append(executor)
                yield index, future

    def _killed(self, name: str, executor: ProcessPoolExecutor) -> OsasisError:
        processes = list((executor._processes or {}).values())
        executor.shutdown(wait=True)  # the executor's thread reads the exit status; two readers would race
        codes = [code for process in processes if (code := process.exitcode) is not None]
        how = "exit status unknown"
        if codes:
            how = f"signal {-codes[0]}" if codes[0] < 0 else f"exit status {codes[0]}"
        return OsasisError(
            "Worker processes must live to their end",
            found=f"one that was killed during {name}, or that could not start ({how})",
            remedy=f"If memory ran out, use fewer of them ({self._fewer}). The same command goes on from what is "
            "finished. A script of your own must start its work below if __name__ == '__main__'.",
        )


@dataclass(frozen=True)
class Task:
    """``function(*arguments, threads)`` for a process of its own, or ``function(*arguments, device, threads)``.

    Attributes:
        name: what messages call it.
        function: importable by name; its last argument is the number of threads it may use.
        arguments: its other arguments.
        takes_device: append the worker's device to the arguments.
    """

    name: str
    function: Callable[..., dict[str, Any]]
    arguments: tuple
    takes_device: bool = False


def _run_task(task: Task) -> dict[str, Any]:
    device = (_state.device,) if task.takes_device else ()
    return task.function(*task.arguments, *device, THREADS)


def run_tasks(
    tasks: Sequence[Task],
    *,
    workers: int,
    devices: Sequence[str],
    describe: str,
    done: Callable[[Task, dict], None],
    preload: Sequence[str] = (),
) -> None:
    """Run all tasks, each in a process of its own; a failing one does not keep the others from finishing.

    Args:
        tasks: started in this order.
        workers: tasks side by side.
        devices: handed to the workers in turn, such as ``("cuda:0", "cuda:1")``.
        describe: title of the progress bar.
        done: called in this process with every task that ended well, and its result.
        preload: modules to import once for all workers, beside those of the tasks.

    Raises:
        OsasisError: a worker was killed; or tasks failed: the first reason and all names, after the others have ended.
    """
    if not tasks:
        return
    failures: list[tuple[str, BaseException]] = []
    places = [devices[i % len(devices)] for i in range(min(workers, len(tasks)))]
    modules = (*preload, *(task.function.__module__ for task in tasks))
    with (
        _Pool(places, preload=modules, fresh=True) as pool,
        tqdm(total=len(tasks), desc=describe, unit="task", dynamic_ncols=True) as bar,
    ):
        for index, future in pool.completed([(task.name, _run_task, (task,)) for task in tasks]):
            bar.update()
            if (error := future.exception()) is None:
                done(tasks[index], future.result())
            else:
                failures.append((tasks[index].name, error))
    if not failures:
        return
    (name, error), names = failures[0], [name for name, _ in failures]
    if not isinstance(error, OsasisError):
        error.add_note(f"In {name}; failed in all: {', '.join(names)}.")
        raise error
    others = f" (also failed: {', '.join(names[1:])})" if len(names) > 1 else ""
    raise OsasisError(f"{name} failed: {error.rule}", found=error.found, remedy=f"{error.remedy or ''}{others}")


def _map_chunk(function: Callable[[Any], Any], chunk: list) -> list:
    return [function(item) for item in chunk]


def _mapped(pool: _Pool, count: int, function: Callable, items: list, title: str) -> Iterator:
    """Yield ``function(item)`` for all items in their order."""
    size = max(1, min(MAX_CHUNK, len(items) // (4 * count)))
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    early: dict[int, list] = {}
    following = 0
    for index, future in pool.completed([(title, _map_chunk, (function, chunk)) for chunk in chunks]):
        early[index] = future.result()
        while following in early:
            yield from early.pop(following)
            following += 1


@contextmanager
def workers(processes: int, *, progress: bool) -> Iterator[Callable[[Callable, list, str], list]]:
    """Yield a map ``(function, items, title) -> results`` that keeps the order and shows a bar.

    Args:
        processes: how many; 1 works in this process.
        progress: show the bar.

    Raises:
        OsasisError: a worker was killed. The first failure of ``function`` is raised as it is and stops the others.
    """

    def listed(results: Iterable, items: list, title: str) -> list:
        return list(tqdm(results, total=len(items), desc=title, disable=not progress, dynamic_ncols=True))

    if processes == 1:
        yield lambda function, items, title: listed(map(function, items), items, title)
        return
    with _Pool(["cpu"] * processes) as pool:
        yield lambda function, items, title: listed(_mapped(pool, processes, function, items, title), items, title)


class CaseMaker(Protocol):
    """A function that makes one case; it travels to a worker as a pickle, and its result back."""

    def __call__(self, key: str) -> Any:
        """Make the case ``key``."""
        ...

    def to(self, device: str) -> object:
        """Move the networks it works with to a device."""
        ...


def _make_case(key: str) -> Any:
    if isinstance(_state.maker, Exception):
        raise _state.maker
    return _state.maker(key)


def make_cases(
    maker: CaseMaker,
    keys: Sequence[str],
    done: Callable[[str, Any], None],
    *,
    device: str = "cpu",
    processes: int | None = None,
) -> None:
    """Call ``maker(key)`` for every key and, in this process, ``done(key, result)`` as soon as each case is made.

    Args:
        maker: copied to every worker once.
        keys: the cases.
        done: called in this process, in the order in which cases are finished.
        device: the maker's device. On CUDA the processes are spread over all visible devices.
        processes: how many; 1 works in this process. None begins in this process and starts
            :func:`usual_processes` when the first case has shown that this is worth it.

    Raises:
        OsasisError: a worker was killed. What the maker raises is raised as it is; the other workers then end too.
    """
    rest = deque(keys)
    with _one_thread():
        if processes is None and rest:
            began = perf_counter()
            done(rest[0], maker(rest[0]))
            rest.popleft()
            processes = usual_processes(device) if (perf_counter() - began) * len(rest) > MIN_SECONDS else 1
        count = min(processes or 1, len(rest))
        pickled = _pickled(maker, device) if count > 1 and not multiprocessing.current_process().daemon else None
        if pickled is None:
            for key in rest:
                done(key, maker(key))
            return
        places = worker_devices(device, count)
        fewer = '"osasis": {"processes": 1} in the plans\' configuration'
        with _Pool(places, preload=("torch", type(maker).__module__), maker=pickled, fewer=fewer) as pool:
            for index, future in pool.completed([(f"case {key}", _make_case, (key,)) for key in rest]):
                if (error := future.exception()) is not None:
                    error.add_note(f"While the case {rest[index]} was made in another process.")
                    raise error
                done(rest[index], future.result())


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with threadpool_limits(THREADS):
            yield
    finally:
        torch.set_num_threads(before)


def _pickled(maker: CaseMaker, device: str) -> bytes | None:
    """The maker as bytes; None, with a warning, for one that cannot be pickled."""
    maker.to("cpu")  # a pickled CUDA tensor would come back on the device it was on
    try:
        return pickle.dumps(maker)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        logger.warning("Cases are made in one process: %s", error)
        return None
    finally:
        maker.to(device)


def usual_processes(device: str) -> int:
    """nnU-Net's own number of processes (``nnUNet_def_n_proc``, else 8), at most one per core and two per GPU."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    on_cuda = torch.device(device).type == "cuda"
    most = PROCESSES_PER_GPU * torch.cuda.device_count() if on_cuda else cores
    return max(1, min(int(os.environ.get("nnUNet_def_n_proc", "8")), cores, most))


def worker_devices(device: str, count: int) -> list[str]:
    """The device of each of ``count`` workers: all visible GPUs in turn on CUDA, else ``device``."""
    import torch

    if torch.device(device).type != "cuda":
        return [device] * count
    return [f"cuda:{index % torch.cuda.device_count()}" for index in range(count)]
