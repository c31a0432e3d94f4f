"""A virtual environment of its own, and a copy of the tree to install from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

PARTS = ("nnunet_osasis", "monai_transforms", "scripts", "trainers", "tests", "docs", "benchmarks")
FILES = ("pyproject.toml", "setup.py", "osasis_build.py", "MANIFEST.in", "LICENSE", "README.md")


def copy_tree(root: Path, to: Path) -> Path:
    """What an install and the tests need, without anything made by running it."""
    to.mkdir(parents=True)
    for name in FILES:
        shutil.copy(root / name, to)
    for name in PARTS:
        shutil.copytree(root / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    return to


@dataclass(frozen=True)
class Files:
    """What was in an environment at some moment."""

    paths: frozenset[str]
    versions: dict[str, str]


class Environment:
    """A fresh virtual environment; ``pins`` hold for everything pip installs in it."""

    def __init__(self, python: str, folder: Path, pins: list[str]) -> None:
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        self.folder, self._pins = folder, folder / "pins.txt"
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        self._pins.write_text("\n".join(pins) + "\n")
        self.pip("install", "--upgrade", "pip")

    def run(
        self, *command: str, check: bool = True, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment without this one's variables for Python and for our trainers."""
        clean = {k: v for k, v in os.environ.items() if k != "nnUNet_extTrainer" and not k.startswith("PYTHON")}
        clean |= {
            "OMP_NUM_THREADS": "1",
            "PYTHONSAFEPATH": "1",
            "PATH": f"{self.bin}{os.pathsep}{clean['PATH']}",
            **variables,
        }
        program = str(self.bin / command[0])
        return subprocess.run(
            [program, *command[1:]], env=clean, cwd=cwd or self.folder, capture_output=True, text=True, check=check
        )

    def pip(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Pip under the pins; nothing is kept in a cache."""
        options = (
            ["--no-cache-dir", "--no-compile", "--constraint", str(self._pins)] if arguments[0] == "install" else []
        )
        return self.run("python", "-m", "pip", arguments[0], *options, *arguments[1:], check=check)

    def runs(self, *command: str) -> bool:
        """Whether a command ends well."""
        return self.run(*command, check=False).returncode == 0

    def output(self, *command: str) -> str:
        """What a command prints."""
        return self.run(*command).stdout.strip()

    def versions(self) -> dict[str, str]:
        """Every installed package."""
        listed = json.loads(self.pip("list", "--format=json").stdout)
        return {entry["name"]: entry["version"] for entry in listed}

    def files(self) -> Files:
        """Every file but bytecode, relative to the environment, and every package."""
        paths = (p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if "__pycache__" not in p.parts)
        return Files(frozenset(paths), self.versions())

    def pytest(self, tree: Path, tests: list[str]) -> dict:
        """Outcomes of ``tests``, run from the tree against what is installed."""
        report = self.folder / "report.xml"
        base = self.folder / "pytest"
        options = ["-q", "-m", "not slow", "-p", "no:cacheprovider", f"--junit-xml={report}", f"--basetemp={base}"]
        done = self.run("python", "-m", "pytest", *options, *tests, check=False, cwd=tree)
        if not report.is_file():
            return {"passed": 0, "failed": {"pytest itself": self._clean(done.stdout + done.stderr)}, "skipped": {}}
        outcome: dict = {"passed": 0, "failed": {}, "skipped": {}}
        for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314 (written by the line above)
            name = f"{case.get('classname')}::{case.get('name')}"
            bad = [part for part in case if part.tag in ("failure", "error")]
            skipped = case.find("skipped")
            if bad:
                outcome["failed"][name] = self._clean(bad[0].get("message") or "")
            elif skipped is not None:
                outcome["skipped"][name] = self._clean(skipped.get("message") or "")
            else:
                outcome["passed"] += 1
        report.unlink()
        shutil.rmtree(base, ignore_errors=True)
        return outcome

    def _clean(self, text: str) -> str:
        return text.replace(str(self.folder.parent), "<work>")[-600:]
