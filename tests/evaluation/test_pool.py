"""The pool: every task in a process of its own, devices shared out, and one failure that costs no other task."""

from __future__ import annotations

import os
from typing import Any

import pool_tasks
import pytest

from nnunet_osasis import OsasisError
from nnunet_osasis.runtime.workers import Task, run_tasks


def run(tasks: list[Task], *, workers: int = 2, devices: tuple[str, ...] = ("cpu",)) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    run_tasks(
        tasks,
        workers=workers,
        devices=devices,
        describe="t",
        done=lambda task, result: found.update({task.name: result}),
    )
    return found


def test_every_task_has_its_own_process_and_one_thread_whatever_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = run([Task(str(i), pool_tasks.report, (f"n{i}", i)) for i in range(4)])
    assert {name: result["name"] for name, result in found.items()} == {str(i): f"n{i}" for i in range(4)}
    assert [found[str(i)]["rest"] for i in range(4)] == [[i, 1] for i in range(4)]
    processes = {result["process"] for result in found.values()}
    assert len(processes) == 4 and os.getpid() not in processes
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert run([Task("0", pool_tasks.report, ("n",))])["0"]["rest"] == [1]


def test_devices_are_handed_out_in_turn_and_only_to_who_wants_one() -> None:
    tasks = [Task(str(i), pool_tasks.slowly, ("n", 0.4), takes_device=True) for i in range(2)]
    found = run([*tasks, Task("none", pool_tasks.report, ("n",))], devices=("one", "two"))
    assert sorted(found[str(i)]["rest"][0] for i in range(2)) == ["one", "two"]
    assert len(found["none"]["rest"]) == 1


def test_one_worker_goes_in_order_and_gives_its_device_back() -> None:
    tasks = [Task(str(i), pool_tasks.report, ("n",), takes_device=True) for i in (2, 0, 1)]
    found = run(tasks, workers=1, devices=("one", "two"))
    assert list(found) == ["2", "0", "1"]
    assert {result["rest"][0] for result in found.values()} == {"one"}


def test_failing_tasks_are_all_named_and_keep_no_other_from_finishing() -> None:
    found: list[str] = []
    kinds = [pool_tasks.refuse, pool_tasks.report, pool_tasks.refuse, pool_tasks.report]
    with pytest.raises(OsasisError) as caught:
        run_tasks(
            [Task(f"task {i}", kind, (f"n{i}",)) for i, kind in enumerate(kinds)],
            workers=1, devices=("cpu",), describe="t", done=lambda task, _: found.append(task.name),
        )  # fmt: skip
    assert found == ["task 1", "task 3"]
    assert str(caught.value) == "task 0 failed: It must work; got n0. Try again. (also failed: task 2)"


def test_a_killed_worker_ends_in_advice() -> None:
    with pytest.raises(OsasisError, match=r"killed during dying.*-np 1"):
        run([Task("dying", pool_tasks.die, ("n",))], workers=1)


def test_a_librarys_error_names_the_task_too() -> None:
    with pytest.raises(RuntimeError, match=r"^out of memory in n0") as caught:
        run([Task(f"task {i}", pool_tasks.break_down, (f"n{i}",)) for i in range(2)], workers=1)
    assert caught.value.__notes__ == ["In task 0; failed in all: task 0, task 1."]


def test_nothing_to_do_is_done_at_once() -> None:
    assert run([]) == {}
