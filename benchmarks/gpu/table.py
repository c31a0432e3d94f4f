"""The results as markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from nnunet_osasis.runtime.records import read_json


def tables(path: Path) -> str:
    """All tables of a ``results.json``, with what is missing and why."""
    results = read_json(path, what="The results")
    machine = results["machine"]
    parts = [
        f"{machine.get('cuda') or machine.get('processor')}, {machine.get('cores')} cores, "
        f"torch {machine.get('versions', {}).get('torch')}{', tiny' if results['settings']['tiny'] else ''}"
    ]
    for name, step in results["steps"].items():
        entries = {key: one for key, one in step.get("entries", {}).items() if isinstance(one, dict)}
        found = {key: one for key, one in entries.items() if "took_s" in one}
        parts.append(f"## {step['title'][0].upper()}{step['title'][1:]}")
        if step["status"] != "done":
            parts.append(f"{step['status'].capitalize()}: {step.get('why')}.")
        parts += [f"- {key}: {one['error']}" for key, one in entries.items() if "error" in one]
        if found:
            parts.append(TABLES[name.split(".")[1]](found))
    return "\n\n".join(parts)


def _table(rows: Iterable[Iterable[Any]], headers: list[str]) -> str:
    return tabulate([list(row) for row in rows], headers=headers, tablefmt="github", disable_numparse=True)


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) and value < 1000 else f"{value:.0f}"


def _pixels(found: Mapping[str, Any]) -> str:
    kinds = ("fp32, no TF32", "fp32", "bf16")
    rows = (
        [name, *(_number(one.get(kind, {}).get(value)) for kind in kinds for value in ("largest", "mean"))]
        for name, one in found.items()
    )
    return _table(rows, ["read-out (gray levels of 255)", *(f"{k}: {v}" for k in kinds for v in ("largest", "mean"))])


def _speed(found: Mapping[str, Any]) -> str:
    named = {key: key.rpartition(", batch ")[::2] for key in found}
    batches = sorted({int(batch) for _, batch in named.values()})
    lines = list(dict.fromkeys(name for name, _ in named.values()))
    rows = []
    for line in lines:
        cells = [found.get(f"{line}, batch {batch}") for batch in batches]
        peak = [cell["peak_gib"] for cell in cells if cell and "peak_gib" in cell]
        rows.append(
            [line, *(_number(cell and cell["images_per_s"]) for cell in cells), _number(max(peak, default=None))]
        )
    return _table(rows, ["images a second", *(f"batch {batch}" for batch in batches), "GiB at most"])


def _train(found: Mapping[str, Any]) -> str:
    rows = []
    for name, one in found.items():
        if "minutes_extrapolated" in one:
            whole = f"{one['minutes_extrapolated']:.2f} min for {one['iterations']} iterations, "
            whole += f"from {one['iterations_measured']}"
            rows.append([f"{name} ({one['preset']}, {one['side']} px)", "", whole, _number(one.get("peak_gib"))])
        else:
            speed = _number(one["steps_per_second"]), f"{_number(one['images_per_second'])} images/s"
            rows.append([name, *speed, _number(one.get("peak_gib"))])
    return _table(rows, ["training", "steps/s", "", "GiB"])


def _nnunet(found: Mapping[str, Any]) -> str:
    kinds = list(next(iter(found.values()))["ratio_to_stock"])
    rows = (
        [f"{name}, {'×'.join(map(str, one['patch']))}, batch {one['batch_size']}",
         _number(1000 * one["seconds"]["stock"]["median"]),
         *(f"{one['ratio_to_stock'][kind]:.3f}" for kind in kinds if kind != "stock")]
        for name, one in found.items()
    )  # fmt: skip
    return _table(rows, ["plans", "stock, ms a step", *(f"{kind} / stock" for kind in kinds if kind != "stock")])


def _study(found: Mapping[str, Any]) -> str:
    parts = []
    for name, one in found.items():
        parts += [f"### {name}", *(verdict["title"] for verdict in one["verdicts"])]
        rows = (
            [method, *map(_interval, (entry[key] for key in ("target", "source", "difference", "gap_closed")))]
            for method, entry in one["methods"].items()
        )
        parts.append(_table(rows, ["method", "Dice on the target", "in-domain", "minus none", "gap closed"]))
        parts.append(_table(([pair, _interval(value)] for pair, value in one["worth"].items()), ["pair", "Dice"]))
    return "\n\n".join(parts)


def _interval(value: Mapping[str, float] | None) -> str:
    return "" if value is None else f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


TABLES = {"pixels": _pixels, "speed": _speed, "train": _train, "nnunet": _nnunet, "study": _study}
