"""Steps that are done once: what finished is recorded, and reused as long as nothing it depends on changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.commands import Child, Command, run_children
from nnunet_osasis.runtime.records import read_sealed_json, write_sealed_json
from nnunet_osasis.runtime.storage import sha256_of_json


@dataclass(frozen=True)
class Step:
    """One public command to run.

    Attributes:
        name: unique; also the name of its log.
        stage: what the report counts its seconds under.
        command: what to run.
        after: names of steps that it needs; when one of them is redone, so is this one.
        result: a file or folder that must exist afterwards, and still exist to be reused.
        clear: whether an older ``result`` folder is removed before the command runs.
    """

    name: str
    stage: str
    command: Command
    result: Path
    after: tuple[str, ...] = ()
    clear: bool = False


@dataclass
class StepBook:
    """Runs steps and keeps a record of each: inputs, seconds, command.

    Every record's key covers the keys of all steps before it, so that a change early in the line redoes what follows.
    """

    folder: Path
    logs: Path
    environment: dict[str, str]
    say: Callable[[str], None]
    chain: str = ""
    stages: list[dict[str, Any]] = field(default_factory=list)

    def compute(self, name: str, title: str, depends: Any, work: Callable[[], Any]) -> Any:
        """Run ``work`` in this process unless its record is there; returns its JSON-ready result."""
        key = self._key(name, depends)
        record = self._record(name, key)
        self.chain = key
        if record is not None:
            self.say(f"{title}: kept from the last run")
            self._note(name, title, record, reused=True)
            return record["result"]
        self.say(f"{title} ...")
        started = time.monotonic()
        result = work()
        record = {"key": key, "seconds": round(time.monotonic() - started, 1), "result": result, "command": None}
        write_sealed_json(self.folder / f"{name}.json", record)
        self._note(name, title, record, reused=False)
        return result

    def run(self, steps: Sequence[Step], *, at_once: int = 1) -> None:
        """Run the commands of ``steps``, ``at_once`` side by side, except those that are done.

        A step stands behind those that it comes ``after``. Raises ``OsasisError`` with the end of the log when one
        fails; what finished before is kept.
        """
        keys: dict[str, str] = {}
        records: dict[str, dict[str, Any] | None] = {}
        for step in steps:
            keys[step.name] = self._key(step.name, [list(step.command.shown), [keys[name] for name in step.after]])
            fresh = any(records[name] is None for name in step.after)
            records[step.name] = None if fresh else self._record(step.name, keys[step.name], step.result)
        waiting = [step for step in steps if records[step.name] is None]
        for stage in dict.fromkeys(step.stage for step in steps):
            todo = any(step.stage == stage for step in waiting)
            self.say(f"{stage} ..." if todo else f"{stage}: kept from the last run")
        for step in waiting:  # a step that is cut short must not pass for the one that finished before it
            (self.folder / f"{step.name}.json").unlink(missing_ok=True)

        def finished(step: Step, seconds: float) -> None:
            record = {
                "key": keys[step.name],
                "seconds": round(seconds, 1),
                "command": step.command.text,
                "result": None,
            }
            write_sealed_json(self.folder / f"{step.name}.json", record)
            records[step.name] = record
            self.say(f"    {step.name}: {seconds:.0f} s")

        def ready(step: Step) -> bool:
            return all(records[name] is not None for name in step.after)

        children = [
            Child(
                step.command,
                log=self.logs / f"{step.name}.log",
                environment=self.environment,
                result=step.result,
                clear=step.clear,
                ready=partial(ready, step),
                finished=partial(finished, step),
            )
            for step in waiting
        ]
        run_children(children, at_once=at_once)
        for step in steps:
            record = records[step.name]
            assert record is not None  # noqa: S101 (run_children raises unless every child has finished)
            self._note(step.name, step.stage, record, reused=step not in waiting)
        self.chain = sha256_of_json(sorted(keys.values()))

    def _key(self, name: str, depends: Any) -> str:
        return sha256_of_json([self.chain, name, depends])

    def _record(self, name: str, key: str, result: Path | None = None) -> dict[str, Any] | None:
        path = self.folder / f"{name}.json"
        if not path.is_file() or (result is not None and not result.exists()):
            return None
        try:
            record = read_sealed_json(path, what="The record of a finished step")
        except OsasisError as error:
            self.say(f"{error} {name} is done again.")
            return None
        return record if record.get("key") == key else None

    def _note(self, name: str, title: str, record: dict[str, Any], *, reused: bool) -> None:
        stage = {"step": name, "stage": title, "seconds": record["seconds"], "command": record["command"]}
        self.stages.append({**stage, "reused": reused})
