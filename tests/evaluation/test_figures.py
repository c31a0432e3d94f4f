"""The report's pictures show what was measured, of cases that a rule chose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunet_osasis.evaluation.experiment.data import prepare
from nnunet_osasis.evaluation.experiment.runner import Outcome
from nnunet_osasis.evaluation.experiment.tasks import save_pictures
from nnunet_osasis.evaluation.report.figures import before_after, score_chart, typical_cases
from nnunet_osasis.evaluation.report.summary import summarise

from .sites import experiment, write_data


def test_typical_cases_are_the_quartiles() -> None:
    scores = np.random.default_rng(0).permutation(25) / 25
    assert [scores[i] * 25 for i in typical_cases(scores)] == pytest.approx([6, 12, 18])
    assert typical_cases(np.array([0.5])) == [0]  # each case is shown once


@pytest.mark.parametrize("target", [0, 1], ids=["known truth", "own target"])
def test_before_and_after_stand_side_by_side(target: int, tmp_path: Path) -> None:
    spec = experiment(methods=["none", "osasis"])
    prepared, name = prepare(spec, write_data(tmp_path / "data")), spec.targets[target].name
    stylized = dict(zip(prepared.train_names, prepared.train, strict=True))
    save_pictures(tmp_path / "styled" / f"osasis@{name}.npz", stylized)
    rows, groups = [], {test: {case: case for case in images} for test, images in prepared.tests.items()}
    for method, style in (("none", None), ("osasis", name)):
        cell = method if style is None else f"{method}@{style}"
        maps = {f"{test}/{c}": image[0] for test, images in prepared.tests.items() for c, image in images.items()}
        save_pictures(tmp_path / "cells" / f"unet__{cell}__0.npz", maps)
        place = {"network": "unet", "method": method, "style": style, "seed": 0}
        rows += [
            {**place, "test": test, "case": case, **dict.fromkeys(spec.metrics, 0.5 + 0.1 * i)}
            for test, images in prepared.tests.items()
            for i, case in enumerate(images)
        ]
    entries = [entry for entry in summarise(spec, rows, groups) if entry["target_name"] == name]
    outcome = Outcome(prepared, rows, [], [], [], [])
    paths = [
        before_after(entries, spec, outcome, tmp_path, tmp_path / "pair.png"),
        score_chart(entries, "dice", tmp_path / "scores.png"),
    ]
    for path in paths:
        assert path is not None
        picture = np.array(Image.open(path))
        assert min(picture.shape[:2]) > 100 and picture[..., :3].std() > 5
    assert before_after(entries[:1], spec, outcome, tmp_path, tmp_path / "none.png") is None
