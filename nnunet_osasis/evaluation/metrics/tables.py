"""The results as tables: CSV of all cases, Markdown and LaTeX of the means.

pandas is imported where a table is made, as it takes half a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnunet_osasis.evaluation.metrics.folder import FolderScores
from nnunet_osasis.evaluation.metrics.pairing import describe_left_out
from nnunet_osasis.evaluation.metrics.protocol import METRICS
from nnunet_osasis.evaluation.metrics.summary import table_columns
from nnunet_osasis.runtime.escaping import csv_text, latex_text, markdown_text

if TYPE_CHECKING:
    import pandas as pd

ARROWS = {"higher": " ↑", "lower": " ↓", "": ""}

LATEX_ARROWS = {"higher": r" $\uparrow$", "lower": r" $\downarrow$", "": ""}


def cases_csv(scores: FolderScores) -> str:
    """Return one line per method, case and class; cells are empty where a metric is undefined."""
    import pandas as pd

    rows = [
        {"method": csv_text(score.method), "case": csv_text(score.case), "class": csv_text(score.label), **score.values}
        for score in scores.scores
    ]
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.10g", lineterminator="\n")


def markdown_table(summary: Mapping[str, Any]) -> str:
    """Return the mean (standard deviation over cases) per method, with the protocol and all reservations below."""
    heads = [head + ARROWS[METRICS[name].better] for head, name in table_columns(summary).items()]
    table = _means(summary, heads, markdown_text, "**{}**")
    align = ["left", "left", *["center"] * len(heads)]
    lines = [table.to_markdown(index=False, disable_numparse=True, colalign=align), ""]
    if summary["differences"]:
        lines += [difference_table(summary), ""]
    return "\n".join([*lines, *notes(summary, markdown_text), ""])


def difference_table(summary: Mapping[str, Any]) -> str:
    """Return every method minus the first, paired over cases, with 95 % intervals; an interval without 0 is bold."""
    import pandas as pd

    columns = table_columns(summary)
    heads = [head + ARROWS[METRICS[name].better] for head, name in columns.items()]
    rows = []
    for method, differences in summary["differences"].items():
        row = [markdown_text(method)]
        for name in columns.values():
            value = differences[name]
            cell = "–" if value["mean"] is None else f"{value['mean']:+.3f}"
            if value["low"] is not None:
                cell += f" ({value['low']:+.3f} to {value['high']:+.3f})"
                cell = f"**{cell}**" if value["low"] > 0 or value["high"] < 0 else cell
            row.append(cell)
        rows.append(row)
    head = f"method minus {markdown_text(summary['reference_method'])}"
    table = pd.DataFrame(rows, columns=[head, *heads])
    return str(table.to_markdown(index=False, disable_numparse=True, colalign=["left", *["center"] * len(heads)]))


def latex_table(summary: Mapping[str, Any]) -> str:
    """Return the same as a ``booktabs`` table."""
    heads = [latex_text(head) + LATEX_ARROWS[METRICS[name].better] for head, name in table_columns(summary).items()]
    table = _means(summary, heads, latex_text, r"\textbf{{{}}}")
    lines = table.to_latex(index=False, escape=False, column_format="ll" + "c" * len(heads))
    return lines + "".join(f"% {note}\n" for note in notes(summary, latex_text))


def notes(summary: Mapping[str, Any], escape: Callable[[str], str]) -> list[str]:
    """Return what a reader of the table has to know, one sentence each; ``escape`` is applied to names."""
    protocol, computed = summary["protocol"], summary["definitions"]
    stretched = ", maps stretched to [0, 1]" if protocol["normalize"] else ""
    sentences = [
        f"Mean (standard deviation) over {len(summary['cases'])} cases. Protocol: {protocol['name']}; "
        f"threshold {protocol['threshold']:g}{stretched}; references: {summary['references']}."
    ]
    if "nsd" in computed:
        sentences.append(
            f"NSD at a tolerance of {protocol['tolerance']:g} (mm, or pixels where files have no spacing)."
        )
    if "lesions" in computed:
        sentences.append(f"A lesion is found when at least {protocol['lesion_overlap']:.0%} of it is covered.")
    if summary["differences"]:
        sentences.append(
            f"Differences to {escape(summary['reference_method'])} are paired over cases; 95 % intervals by bootstrap "
            "over cases, taken for independent (of several cases per patient they are too narrow)."
        )
    columns = table_columns(summary).values()
    undefined = [
        f"{METRICS[name].label} {statistics['undefined']} ({escape(method)}, {label})"
        for method, classes in summary["methods"].items()
        for label, parts in classes.items()
        for name, statistics in parts["by_case"].items()
        if statistics["undefined"] and name in columns
    ]
    if undefined:
        sentences.append(f"Undefined in so many cases, which the means leave out: {'; '.join(undefined)}.")
    if summary["left_out"]:
        left_out = "; ".join(escape(text) for text in describe_left_out(summary["left_out"]))
        sentences.append(f"INCOMPLETE: only cases that all sides have. {left_out}.")
    return sentences


def _means(summary: Mapping[str, Any], heads: Sequence[str], escape: Callable[[str], str], strong: str) -> pd.DataFrame:
    """One row per class and method; cells that are the best of several methods (as printed) are made ``strong``."""
    import pandas as pd

    methods, names = summary["methods"], list(table_columns(summary).values())
    rows = []
    for label in next(iter(methods.values())):
        statistics = {method: classes[label]["by_case"] for method, classes in methods.items()}
        best = {name: _best(name, [row[name]["mean"] for row in statistics.values()]) for name in names}
        for method, row in statistics.items():
            cells = []
            for name in names:
                mean, std = row[name]["mean"], row[name]["std"]
                cell = _digits(mean) if std is None else f"{_digits(mean)} ({std:.3f})"
                cells.append(strong.format(cell) if len(methods) > 1 and _digits(mean) == best[name] else cell)
            rows.append([escape(method), escape(label), *cells])
    return pd.DataFrame(rows, columns=["method", "class", *heads])


def _best(name: str, means: Sequence[float | None]) -> str | None:
    defined, better = [mean for mean in means if mean is not None], METRICS[name].better
    return _digits(max(defined) if better == "higher" else min(defined)) if defined and better else None


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
