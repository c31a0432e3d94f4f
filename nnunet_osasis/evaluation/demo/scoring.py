"""From predictions and stylized pictures to ``results.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnunet_osasis.controls import HistogramMatching, Identity, PooledReinhard
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.demo.fidelity import fidelity_row
from nnunet_osasis.evaluation.demo.methods import CONTROLS, Method
from nnunet_osasis.evaluation.demo.settings import DemoSettings
from nnunet_osasis.evaluation.demo.workspace import Workspace
from nnunet_osasis.evaluation.metrics import score_case
from nnunet_osasis.evaluation.report.statistics import gap_closed, mean_interval, paired_difference
from nnunet_osasis.nnunet.raw_dataset import read_images, read_masks, read_png
from nnunet_osasis.transfer import StyleTransfer

Pictures = dict[str, np.ndarray]


def score_cases(rows: Sequence[Method], settings: DemoSettings, workspace: Workspace) -> list[dict[str, Any]]:
    """Dice of every training on every test case: ``{"method", "training", "domain", "case", "dice"}``.

    Raises ``OsasisError`` when a prediction is missing.
    """
    masks, scores = read_masks(workspace.test_masks), []
    for method in rows:
        for fold in range(settings.repeats):
            predictions = read_masks(workspace.predictions(method.key, fold))
            for case, mask in masks.items():
                if case not in predictions:
                    raise OsasisError("Every test image needs a prediction", found=f"none for {case} by {method.label}")
                origin = {"method": method.key, "training": fold, "domain": case.split("_")[0], "case": case}
                scores.append({**origin, **score_case(predictions[case] > 0, mask, metrics=("dice",))})
    return scores


def summarise(rows: Sequence[Method], cases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``summary`` (one row per method) and ``osasis_minus_control`` (paired differences on the second scanner)."""

    def values(method: str, domain: str) -> np.ndarray:
        """Dice ``(trainings, cases)``."""
        found = {
            (row["training"], row["case"]): row["dice"]
            for row in cases
            if row["method"] == method and row["domain"] == domain
        }
        trainings, names = (sorted({key[part] for key in found}) for part in (0, 1))
        return np.array([[found[training, name] for name in names] for training in trainings])

    baseline = {domain: values("none", domain) for domain in ("source", "target")}
    has_bound = any(method.key == "truth" for method in rows)
    bound = float(values("truth", "target").mean()) if has_bound else None
    summary = []
    for method in rows:
        source, target = values(method.key, "source"), values(method.key, "target")
        closed = None if bound is None else gap_closed(float(target.mean()), float(baseline["target"].mean()), bound)
        summary.append(
            {
                "method": method.key,
                "source": mean_interval(source),
                "target": mean_interval(target),
                "source_trainings": source.mean(axis=1).tolist(),
                "target_trainings": target.mean(axis=1).tolist(),
                "difference": paired_difference(target, baseline["target"]),
                "source_difference": paired_difference(source, baseline["source"]),
                "gap_closed": closed,
            }
        )
    leads = {
        control.key: paired_difference(values("osasis", "target"), values(control.key, "target"))
        for control in CONTROLS
    }
    return {"summary": summary, "osasis_minus_control": leads}


def fidelity_cases(settings: DemoSettings, workspace: Workspace) -> list[str]:
    """Evenly spaced training cases on which styles are compared."""
    cases = sorted(read_images(workspace.training_images))
    count = min(len(cases), settings.fidelity_cases)
    return [cases[i] for i in np.linspace(0, len(cases) - 1, count).round().astype(int)]


def styled_pictures(settings: DemoSettings, workspace: Workspace) -> dict[str, Pictures]:
    """Training pictures in the style of every method, uint8, by method and case."""
    originals = read_images(workspace.training_images)
    reference = np.moveaxis(read_png(workspace.reference), -1, 0)
    sources = [np.moveaxis(image, -1, 0) for image in originals.values()]
    transfers: dict[str, StyleTransfer] = {
        "none": Identity(3),
        "histogram": HistogramMatching(reference),
        "reinhard": PooledReinhard.fit(sources, reference),
    }
    cases = fidelity_cases(settings, workspace)
    styled = {name: {case: _apply(transfer, originals[case]) for case in cases} for name, transfer in transfers.items()}
    by_osasis = read_images(workspace.stylized)
    return {**styled, "osasis": {case: by_osasis[case] for case in cases}}


def score_fidelity(settings: DemoSettings, workspace: Workspace) -> list[dict[str, Any]]:
    """Distance to truth and shift of lesion edges for every style."""
    originals, masks = read_images(workspace.training_images), read_masks(workspace.training_masks)
    truths = None if settings.own_images else read_images(workspace.truth)
    return [
        {"method": name, **fidelity_row(originals, pictures, masks, truths)}
        for name, pictures in styled_pictures(settings, workspace).items()
    ]


def _apply(transfer: StyleTransfer, picture: np.ndarray) -> np.ndarray:
    return np.rint(np.moveaxis(transfer.stylize_array(np.moveaxis(picture, -1, 0)), 0, -1)).astype(np.uint8)
