"""Remedies can be followed to the letter: their options, commands, names and packages exist."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nnunet_osasis.nnunet.options import OsasisOptions

ROOT = Path(__file__).parents[2]
FOLDERS = ("nnunet_osasis", "scripts", "monai_transforms", "trainers")
COMMANDS = ("demo", "evaluate", "export", "info", "prepare", "pretrain_stylizer", "report", "stylize")
OWNERS: dict[str, tuple[str, ...]] = {
    "nnunet_osasis/training/": ("pretrain_stylizer",),
    "nnunet_osasis/nnunet/prepare/": ("prepare",),
    "nnunet_osasis/nnunet/export/": ("export",),
    "nnunet_osasis/nnunet/": ("pretrain_stylizer",),
    "nnunet_osasis/networks/portable": ("export",),
    "nnunet_osasis/stylizer/onnx": ("export",),
    "nnunet_osasis/stylizer/archive/": ("stylize",),
    "nnunet_osasis/evaluation/metrics/": ("evaluate",),
    "nnunet_osasis/evaluation/": ("report", "demo"),
    "nnunet_osasis/images/masks": ("prepare",),
    "nnunet_osasis/runtime/distributed": ("pretrain_stylizer", "stylize"),
    "nnunet_osasis/runtime/": ("prepare", "export", "report", "demo"),
}
"""Whose options a remedy may name, by where it stands: the first fitting entry, of which one command must know it."""

FOREIGN = {
    "--save_probabilities": "nnunetv2.inference.predict_from_raw_data",
    "-plans_name": "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints",
    "--c": "nnunetv2.run.run_training",
    "--gpu_ids": "accelerate.commands.launch",
    "--cpu": "accelerate.commands.launch",
}
"""Options of other people's commands, and the module whose source names them."""

OPTION = re.compile(r"(?<![\w-])(--?[a-z][a-z_-]*)(?:[ =]([A-Za-z0-9_.]+))?")
SKIPPED = re.compile(r"(?:python -c '[^']*'|python -m pip install -e \.|ulimit -f|nnUNetv2_\w+ [^;,]*)")
"""Command lines of others, whose options are not ours."""


@dataclass(frozen=True)
class Remedy:
    """A remedy's text, with ``{...}`` where a value goes, and the file it stands in."""

    place: str
    text: str


def _texts(node: ast.expr, names: dict[str, list[ast.expr]], depth: int = 0) -> list[str]:
    """Every text an expression may be; names are followed to what was assigned to them."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else [""]
    if isinstance(node, ast.JoinedStr):
        return [
            "".join(_texts(part, names, depth)[0] if isinstance(part, ast.Constant) else "{}" for part in node.values)
        ]
    if isinstance(node, ast.IfExp):
        return _texts(node.body, names, depth) + _texts(node.orelse, names, depth)
    if isinstance(node, ast.BinOp):
        return [a + b for a in _texts(node.left, names, depth) for b in _texts(node.right, names, depth)]
    if isinstance(node, ast.Name) and depth < 3:
        return [text for value in names.get(node.id, ()) for text in _texts(value, names, depth + 1)]
    return ["{}"]


def remedies() -> Iterator[Remedy]:
    """Every remedy of the package: keyword arguments of that name, and defaults of parameters of that name."""
    trees = {path: ast.parse(path.read_text()) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}
    everywhere: dict[str, list[ast.expr]] = {}
    for tree in trees.values():
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                everywhere.setdefault(node.targets[0].id, []).append(node.value)
    for path, tree in trees.items():
        names = dict(everywhere)
        found: list[ast.expr] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign | ast.AugAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Name) and target.id in ("remedy", "hint", "command", "there"):
                        names[target.id] = [*names.get(target.id, ()), node.value]
            if isinstance(node, ast.Call):
                found += [word.value for word in node.keywords if word.arg in ("remedy", "otherwise")]
            if isinstance(node, ast.FunctionDef):
                for arguments, defaults in (
                    (node.args.args[len(node.args.args) - len(node.args.defaults) :], node.args.defaults),
                    (node.args.kwonlyargs, node.args.kw_defaults),
                ):
                    pairs = zip(arguments, defaults, strict=True)
                    found += [value for argument, value in pairs if argument.arg == "remedy" and value is not None]
        for node in found:
            for text in _texts(node, names):
                yield Remedy(str(path.relative_to(ROOT)), text)


ALL = list(dict.fromkeys(remedies()))


def parser_of(command: str) -> argparse.ArgumentParser:
    return importlib.import_module(f"nnunet_osasis.scripts.{command}").make_parser()


PARSERS = {command: parser_of(command) for command in COMMANDS}


def owners(place: str) -> tuple[str, ...]:
    """The commands whose options a file may name."""
    if place.startswith("scripts/"):
        name = Path(place).stem
        return (name,) if name in COMMANDS else ("pretrain_stylizer",)
    return next((commands for prefix, commands in OWNERS.items() if place.startswith(prefix)), COMMANDS)


def options(text: str) -> list[tuple[str, str | None]]:
    """Options a remedy names, with the value if a plain one follows."""
    return [(name.rstrip("-"), value) for name, value in OPTION.findall(SKIPPED.sub("", text))]


WITH_OPTIONS = [remedy for remedy in ALL if options(remedy.text)]


def test_remedies_are_found() -> None:
    assert len(ALL) > 250 and len(WITH_OPTIONS) > 50


@pytest.mark.parametrize("remedy", WITH_OPTIONS, ids=lambda remedy: f"{Path(remedy.place).stem}: {remedy.text[:50]}")
def test_options_exist_in_the_command_that_says_so(remedy: Remedy) -> None:
    commands = owners(remedy.place)
    for command in re.findall(r"osasis-([a-z-]+)", remedy.text):
        commands = (command.replace("-", "_"),)  # it names the command itself
    for name, value in options(remedy.text):
        if name in FOREIGN and not any(name in PARSERS[c]._option_string_actions for c in commands):
            spec = importlib.util.find_spec(FOREIGN[name])
            assert spec is not None and spec.origin is not None
            assert f"{name}" in Path(spec.origin).read_text(), f"{FOREIGN[name]} has no {name}"
            continue
        actions = [PARSERS[c]._option_string_actions.get(name) for c in commands]
        known = [action for action in actions if action is not None]
        assert known, f"{remedy.place}: no {name} in {', '.join(commands)}: {remedy.text}"
        if value and any(action.choices for action in known):
            stated = value.rstrip(".")
            assert any(stated in (action.choices or ()) for action in known) or stated in (
                "or",
                "to",
                "is",
                "if",
                "and",
            )


def test_commands_packages_and_names_exist() -> None:
    scripts = {entry.name for entry in importlib.metadata.distribution("nnunet-osasis").entry_points}
    for remedy in ALL:
        for command in re.findall(r"osasis-[a-z][a-z-]+", remedy.text):
            assert command in scripts, remedy
        for extra in re.findall(r"nnunet-osasis\[(\w+)\]", remedy.text):
            raise AssertionError(f"the package is in no index: name what {extra} needs, {remedy}")
        for dotted in re.findall(r"\b(?:timm|open_clip|nnunet_osasis)(?:\.\w+)+", remedy.text):
            assert importable(dotted), f"{dotted} in {remedy}"


def test_options_of_the_plans_exist() -> None:
    fields = set(OsasisOptions.__dataclass_fields__)
    for remedy in ALL:
        if remedy.place.startswith(("nnunet_osasis/nnunet/", "nnunet_osasis/networks/")):
            for key in re.findall(r'"(\w+)":|(?<=eave )"(\w+)" out|as "(\w+)"', remedy.text):
                name = next(part for part in key if part)
                assert name in fields | {"osasis"}, remedy


def importable(dotted: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False
