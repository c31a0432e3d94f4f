"""The one place that opens test masks: from predicted maps to one row of metrics per case."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.cells import Cell
from nnunet_osasis.evaluation.work import load_pictures
from nnunet_osasis.runtime.records import finished, write_sealed_json
from nnunet_osasis.runtime.storage import sha256_of_array, sha256_of_file, sha256_of_json

FORMAT = 1
"""Raised when a metric's definition changes, so that old scores are not reused."""

Masks = Mapping[str, Mapping[str, np.ndarray]]
"""By test set and case."""


def score_cell(
    cell: Cell, predictions: Path, prediction_key: str, masks: Masks, metrics: tuple[str, ...], tolerance: float
) -> list[dict[str, Any]]:
    """Rows ``{"network", "method", "style", "seed", "test", "case", metric...}``; kept beside the predictions.

    Undefined values (such as HD95 of an empty prediction) are None. Raises ``OsasisError`` when a case has no
    prediction or one of another size.
    """
    hashes = {test: {case: sha256_of_array(mask) for case, mask in masks[test].items()} for test in cell.tests}
    key = sha256_of_json([FORMAT, prediction_key, sha256_of_file(predictions), hashes, metrics, tolerance])
    record = predictions.with_suffix(".scores.json")
    if done := finished(record, key):
        return list(done["rows"])
    from nnunet_osasis.metrics.protocol import choose_protocol
    from nnunet_osasis.metrics.score import score_case

    protocol = choose_protocol("standard", tolerance=tolerance)
    maps, rows = load_pictures(predictions), []
    for test in cell.tests:
        for case, mask in masks[test].items():
            found = maps.get(f"{test}/{case}")
            if found is None or found.shape != mask.shape:
                raise OsasisError(
                    "Every test case needs a prediction of its size",
                    found=f"{None if found is None else found.shape} for {case} of {test}, {mask.shape}",
                    remedy=f"Delete {predictions} and run again.",
                )
            scores = score_case(found / 255.0, mask, protocol=protocol, metrics=metrics)
            origin = {
                "network": cell.network.name,
                "method": cell.method.name,
                "style": cell.target,
                "seed": cell.seed,
                "test": test,
                "case": case,
            }
            rows.append({**origin, **{name: _number(scores[name]) for name in metrics}})
    write_sealed_json(record, {"key": key, "rows": rows})
    return rows


def _number(value: float) -> float | None:
    return None if math.isnan(value) or math.isinf(value) else round(float(value), 6)
