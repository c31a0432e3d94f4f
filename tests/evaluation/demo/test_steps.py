"""Finished steps are reused, changed ones redone; failures show the log; nothing is left running."""

from __future__ import annotations

import os
import stat
import sys
import time

import pytest

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.demo.steps import Step, StepBook
from nnunet_osasis.runtime import commands as children
from nnunet_osasis.runtime.commands import Command, find_command

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stand-in commands are shell scripts")


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Stand-in commands on the search path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    scripts = {
        "demo-touch": 'echo "made $1"; echo x >> "$1"',
        "demo-append": 'sleep 0.1; echo "$2" >> "$1"',
        "demo-fail": 'echo "the reason"; exit 3',
        "demo-sleep": 'echo $$ > "$1"; sleep 60',
    }
    for name, body in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(children, "POLL_SECONDS", 0.01)
    return tmp_path


@pytest.fixture
def book(tools):
    def make():
        return StepBook(tools / "steps", tools / "logs", dict(os.environ), say=lambda line: None)

    return make


def _touch(path, after=()):
    return Step(f"touch_{path.name}", "Touch", Command("demo-touch", (str(path),)), path, after)


def test_commands_run_once(tools, book):
    steps = [_touch(tools / name) for name in "abc"]
    for _ in range(2):
        last = book()
        last.run(steps, at_once=2)
    assert [(tools / name).read_text() for name in "abc"] == ["x\n"] * 3
    assert all(stage["reused"] for stage in last.stages)
    log = (tools / "logs" / "touch_a.log").read_text()
    assert log.startswith("$ demo-touch") and "made" in log


def test_lost_results_are_made_again(tools, book):
    book().run([_touch(tools / "a")])
    (tools / "a").unlink()
    book().run([_touch(tools / "a")])
    assert (tools / "a").read_text() == "x\n"


def test_steps_wait_for_what_they_need_and_are_redone_with_it(tools, book):
    order = tools / "order"

    def step(name, after=()):
        return Step(name, "Order", Command("demo-append", (str(order), name)), order, after)

    steps = [step("first"), step("second", ("first",)), step("free"), step("third", ("second",))]
    book().run(steps, at_once=3)
    lines = order.read_text().split()
    assert lines.index("first") < lines.index("second") < lines.index("third") and len(lines) == 4
    (tools / "steps" / "second.json").unlink()
    book().run(steps, at_once=3)
    assert order.read_text().split()[4:] == ["second", "third"]


def test_computations_are_reused_until_an_earlier_input_changes(book):
    calls = []

    def line(first, second):
        steps = book()
        steps.compute("one", "One", first, lambda: calls.append("one"))
        return steps.compute("two", "Two", second, lambda: calls.append("two") or {"value": second})

    assert line(1, 1) == line(1, 1) == {"value": 1}
    assert calls == ["one", "two"]
    line(1, 2)
    assert calls == ["one", "two", "two"]
    line(2, 2)
    assert calls == ["one", "two", "two", "one", "two"]


def test_failure_shows_command_log_and_its_end(tools, book):
    with pytest.raises(OsasisError) as caught:
        book().run([Step("fail", "Fail", Command("demo-fail", ()), tools / "never")])
    text = str(caught.value)
    assert "demo-fail" in text and "exit status 3" in text and "the reason" in text and "fail.log" in text


def test_command_without_its_result_is_a_failure(tools, book):
    step = Step("odd", "Odd", Command("demo-touch", (str(tools / "elsewhere"),)), tools / "expected")
    with pytest.raises(OsasisError, match="expected"):
        book().run([step])


def test_first_failure_stops_the_others_and_keeps_what_was_done(tools, book):
    pid = tools / "pid"
    sleeper = Step("sleep", "Sleep", Command("demo-sleep", (str(pid),)), pid)
    failing = Step("fail", "Fail", Command("demo-fail", ()), tools / "never")
    started = time.monotonic()
    with pytest.raises(OsasisError, match="exit status 3"):
        book().run([_touch(tools / "a"), sleeper, failing], at_once=2)
    assert time.monotonic() - started < 20
    assert (tools / "steps" / "touch_a.json").is_file()
    if pid.is_file() and pid.read_text().strip():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


def test_unknown_command_names_the_remedy():
    with pytest.raises(OsasisError, match="pip install"):
        find_command("no-such-command-of-ours")


def test_commands_beside_the_interpreter_come_first():
    assert os.path.dirname(find_command(os.path.basename(sys.executable))) == os.path.dirname(sys.executable)
