"""Make the golden values: maps drawn here, scored by PySODMetrics 1.6.2 (numpy 2.3.4, scipy 1.17.1).

    python -m venv golden && golden/bin/pip install pysodmetrics==1.6.2
    golden/bin/python tests/evaluation/metrics/golden/make_golden.py

Writes ``inputs.npz`` (``<case>_prediction`` and ``<case>_truth``, uint8) and ``values.json`` beside this file.
PySODMetrics is no dependency of the project; the tests read only these two files.
"""

from __future__ import annotations

import json
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy import ndimage

HERE = Path(__file__).parent


def blob(rng: np.random.Generator, shape: tuple[int, int], *, share: float, smooth: float) -> np.ndarray:
    """A random smooth region that covers ``share`` of the image, bool."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), smooth)
    return field > np.quantile(field, 1 - share)


def soft(mask: np.ndarray, rng: np.random.Generator, *, blur: float, noise: float) -> np.ndarray:
    """A map that resembles ``mask``: blurred, shifted, noisy, uint8."""
    moved = np.roll(mask, rng.integers(-4, 5, 2), (0, 1)).astype(float)
    values = ndimage.gaussian_filter(moved, blur) + noise * rng.standard_normal(mask.shape)
    return np.clip(np.rint(30 + 190 * values), 0, 255).astype(np.uint8)


def draw_cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Prediction and truth by name, both uint8 in 0..255."""
    rng, cases = np.random.default_rng(0), {}
    for i, (shape, share) in enumerate([((40, 52), 0.1), ((64, 64), 0.25), ((40, 52), 0.6), ((64, 64), 0.02)]):
        mask = blob(rng, shape, share=share, smooth=4)
        truth = mask.astype(np.uint8) * 255
        cases[f"soft{i}"] = soft(mask, rng, blur=2, noise=0.1), truth
        cases[f"smooth{i}"] = soft(mask, rng, blur=5, noise=0), truth
        cases[f"mask{i}"] = np.where(blob(rng, shape, share=share, smooth=3) | np.roll(mask, 2, 0), 255, 0), truth
    truth, grey = cases["soft1"][1], cases["soft1"][0]
    empty, full, corner = np.zeros_like(truth), np.full_like(truth, 255), np.zeros_like(truth)
    corner[0, 0] = corner[-1, -1] = corner[-1, 0] = 255
    cases |= {
        "perfect": (truth, truth),
        "inverted": (255 - truth, truth),
        "empty_prediction": (empty, truth),
        "full_prediction": (full, truth),
        "noise": (rng.integers(0, 256, truth.shape), truth),
        "faint": (grey // 8, truth),
        "empty_truth": (grey, empty),
        "both_empty": (empty, empty),
        "full_truth": (grey, full),
        "both_full": (full, full),
        "corners": (grey, corner),
    }
    return {name: (p.astype(np.uint8), t.astype(np.uint8)) for name, (p, t) in cases.items()}


def measure(prediction: np.ndarray, truth: np.ndarray, *, normalize: bool) -> dict[str, float]:
    """Every number of PySODMetrics that the project has too; with ``normalize`` the map is stretched first."""
    import py_sod_metrics as sod

    inputs = (prediction, truth) if normalize else (prediction / 255, truth > 128)
    handlers = {
        name: handler(with_dynamic=True, with_adaptive=False, with_binary=True, sample_based=True)
        for name, handler in (
            ("dice", sod.DICEHandler),
            ("iou", sod.IOUHandler),
            ("specificity", sod.SpecificityHandler),
        )
    }
    curves = sod.FmeasureV2(handlers)
    s, e, wf, mae = sod.Smeasure(), sod.Emeasure(), sod.WeightedFmeasure(), sod.MAE()
    for metric in (curves, s, e, wf, mae):
        metric.step(*inputs, normalize=normalize)
    alignment = e.get_results()["em"]
    found = {"s": s.get_results()["sm"], "wf": wf.get_results()["wfm"], "mae": mae.get_results()["mae"]}
    found |= {"e_max": alignment["curve"].max(), "e_mean": alignment["curve"].mean(), "e_adaptive": alignment["adp"]}
    for name, result in curves.get_results().items():
        found |= {name: result["binary"], f"{name}_mean": result["dynamic"].mean()}
    if truth.any() and not truth.all():
        values = (prediction / 255, truth > 128)
        if normalize:
            values = sod.utils.validate_and_normalize_input(prediction, truth, True)
        found |= {"s_object": s.object(*values), "s_region": s.region(*values)}
    return {name: float(value) for name, value in found.items()}


def main() -> None:
    """Draw, score, write."""
    warnings.simplefilter("ignore")
    cases = draw_cases()
    arrays = {
        f"{name}_{kind}": a
        for name, pair in cases.items()
        for kind, a in zip(("prediction", "truth"), pair, strict=True)
    }
    np.savez_compressed(HERE / "inputs.npz", **arrays)
    values = {
        kind: {name: measure(*pair, normalize=kind == "normalized") for name, pair in cases.items()}
        for kind in ("normalized", "as_they_are")
    }
    about = {name: version(name) for name in ("pysodmetrics", "numpy", "scipy")}
    (HERE / "values.json").write_text(json.dumps({"made_with": about, **values}, indent=1) + "\n")


if __name__ == "__main__":
    main()
