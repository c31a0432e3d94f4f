"""The picture of the worst cases of a cache, beside its audit trail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_osasis.gate.audit import WORST, badness, in_short, read_audit
from nnunet_osasis.gate.pictures import as_picture, save_worst
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.transfer import StyleTransfer


def save_worst_cases(path: Path, audit: Path, cases: Any, transfer: StyleTransfer, intensity: IntensityRange) -> None:
    """Show the worst cases of an audit, restyled again: what was refused is stored nowhere else.

    Args:
        cases: as :func:`nnunet_osasis.nnunet.cases.open_cases` gives them; cases that are gone are left out.
    """
    rows = [row for row in read_audit(audit) if row["case"] in cases.keys]
    shown = []
    for row in sorted(rows, key=badness)[:WORST]:
        source = cases.unnormalized(row["case"])
        full = transfer.stylize_array(source, strength=row["wanted_strength"])
        used = full if row["decision"] == "full" else transfer.stylize_array(source, strength=row["strength"])
        before, at_full, at_last = as_picture(source, full, used)
        shown.append((in_short(row), before, at_full, at_last))
    if shown:
        save_worst(path, shown, intensity)
