"""Cases made one after another here, or side by side in processes; whatever fails is known by its case."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from time import perf_counter
from typing import Any, Protocol

import torch
from threadpoolctl import threadpool_limits

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.children import end_with_parent

logger = logging.getLogger(__name__)

WORTH = 30.0
"""Seconds of work that must be left before processes are started unasked: each one imports torch first."""
PER_DEVICE = 2
"""Processes on one CUDA device, unless more are asked for: each holds a copy of the networks."""


class CaseMaker(Protocol):
    """What a case is made by; it travels to a worker as a pickle."""

    def __call__(self, key: str) -> Any:
        """Make one case. Its answer travels back as a pickle."""
        ...

    def to(self, device: str) -> object:
        """Move what it works with to a device."""
        ...


def make_cases(
    maker: CaseMaker,
    keys: Sequence[str],
    done: Callable[[str, Any], None],
    *,
    device: str = "cpu",
    processes: int | None = None,
) -> None:
    """Call ``maker(key)`` for every key and, in this process, ``done(key, answer)`` as soon as each is made.

    Every case is made with one thread, here as in a worker, so that results do not depend on the number of processes.

    Args:
        device: of the maker. On CUDA the processes are spread over all visible devices.
        processes: None begins here and starts nnU-Net's usual number when the first case has shown that this is
            worth it; a number starts so many at once (1: none).

    Raises what the maker raises, and ``OsasisError`` when a worker is killed; the others then end too.
    """
    rest = deque(keys)
    with _one_thread():
        if processes is None and rest:
            began = perf_counter()
            done(rest[0], maker(rest[0]))
            rest.popleft()
            processes = usual_processes(device) if (perf_counter() - began) * len(rest) > WORTH else 1
        count = min(processes or 1, len(rest))
        payload = _portable(maker, device) if count > 1 and not multiprocessing.current_process().daemon else None
        if payload is None:
            for key in rest:
                done(key, maker(key))
        else:
            _make_in_processes(payload, rest, done, _places(device, count))


def usual_processes(device: str) -> int:
    """nnU-Net's own default (``nnUNet_def_n_proc``, else 8), but no more than cores, and two on a CUDA device."""
    from nnunetv2.configuration import default_num_processes

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    on_cuda = torch.device(device).type == "cuda"
    return max(1, min(default_num_processes, cores, PER_DEVICE * torch.cuda.device_count() if on_cuda else cores))


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


def _places(device: str, count: int) -> list[str]:
    """The device of every worker."""
    if torch.device(device).type != "cuda":
        return [device] * count
    return [f"cuda:{place % torch.cuda.device_count()}" for place in range(count)]


def _portable(maker: CaseMaker, device: str) -> bytes | None:
    """The maker as bytes; None for one that cannot travel, which is said."""
    maker.to("cpu")  # a pickled CUDA tensor would come back on the device it was on
    try:
        return pickle.dumps(maker)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        logger.warning("Cases are made in one process: %s", error)
        return None
    finally:
        maker.to(device)


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    key: str | None = field(default=None)

    def give(self, waiting: deque[str]) -> None:
        self.key = waiting.popleft() if waiting else None
        if self.key is not None:
            self.pipe.send(self.key)

    def answer(self) -> tuple[str, Any] | None:
        """``(outcome, value)``, or None when the process ended instead."""
        try:
            return self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, ConnectionError):
            return None


def _make_in_processes(
    payload: bytes, waiting: deque[str], done: Callable[[str, Any], None], devices: Sequence[str]
) -> None:
    workers: list[_Worker] = []
    try:
        for device in devices:
            workers.append(_start(payload, device))
            _give(workers[-1], waiting)
        while busy := [worker for worker in workers if worker.key is not None]:
            wait([worker.pipe for worker in busy] + [worker.process.sentinel for worker in busy])
            for worker in busy:
                key, dead = str(worker.key), not worker.process.is_alive()  # asked before its last words are read
                found = worker.answer()
                if found is None and dead:
                    raise _killed(worker)
                if found is None:
                    continue
                if found[0] == "failed":
                    raise _rebuilt(found[1])
                done(key, found[1])
                _give(worker, waiting)
    finally:
        for worker in workers:
            worker.process.kill()  # what they were about is not in place yet
        for worker in workers:
            worker.process.join()
            worker.pipe.close()


def _give(worker: _Worker, waiting: deque[str]) -> None:
    try:
        worker.give(waiting)
    except (BrokenPipeError, ConnectionError):
        worker.process.join()
        raise _killed(worker) from None


def _start(payload: bytes, device: str) -> _Worker:
    context = _context()
    here, there = context.Pipe()
    # a fork server keeps the environment it was started with, perhaps before nnU-Net's variables were set
    process = context.Process(target=_serve, args=(dict(os.environ), device, there), daemon=True)
    process.start()
    there.close()
    worker = _Worker(process, here)
    try:
        here.send_bytes(payload)
    except (BrokenPipeError, ConnectionError):
        process.join()
        raise _killed(worker) from None
    return worker


def _context() -> Any:
    """Processes that inherit neither locks nor a CUDA context; a fork server imports torch once for all of them."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "nnunet_osasis.nnunet.case_maker"])
    return context


def _serve(environment: dict[str, str], device: str, pipe: Connection) -> None:
    """A worker: cases come in, answers go out, until its parent ends it or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    end_with_parent()
    os.environ.update(environment)
    torch.set_num_threads(1)
    with threadpool_limits(limits=1):
        maker = _received(pipe, device)
        while True:
            key = pipe.recv()
            try:
                if isinstance(maker, Exception):
                    raise maker
                answer = "done", maker(key)
            except Exception as error:
                answer = "failed", _described(key, error)
            pipe.send(answer)


def _received(pipe: Connection, device: str) -> CaseMaker | Exception:
    """The maker, or why it could not be taken over, which the first case's answer tells."""
    try:
        maker: CaseMaker = pipe.recv()
        maker.to(device)
        return maker
    except Exception as error:
        return error


def _described(key: str, error: Exception) -> Exception | tuple:
    if isinstance(error, OsasisError):
        return error.rule, error.found, error.remedy
    if isinstance(error, OSError):  # a full disk has to stay one
        found: Exception = OSError(error.errno, error.strerror or str(error), error.filename)
    else:  # exceptions of any library may refuse to travel
        found = RuntimeError(f"{type(error).__name__}: {error}")
    found.add_note(f"While case {key} was made elsewhere:\n{''.join(traceback.format_exception(error))}")
    return found


def _rebuilt(found: Exception | tuple) -> Exception:
    return found if isinstance(found, Exception) else OsasisError(found[0], found=found[1], remedy=found[2])


def _killed(worker: _Worker) -> OsasisError:
    code = worker.process.exitcode
    how = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
    return OsasisError(
        "The processes that make cases must live to their end",
        found=f"one that ended ({how}) at case {worker.key}",
        remedy='If memory ran out, use fewer of them ("osasis": {"processes": 1} in the plans\' configuration), and '
        "start again; finished cases are kept.",
    )
