"""A folder of predictions, or several, against a folder of references: every case, in order, over processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.metrics.case import make_case
from nnunet_osasis.evaluation.metrics.pairing import Pairs, pair_files
from nnunet_osasis.evaluation.metrics.protocol import Protocol, choose_protocol
from nnunet_osasis.evaluation.metrics.reading import (
    FileFacts,
    Reading,
    dataset_labels,
    prediction_scale,
    read_probabilities,
    read_references,
    spacing_of,
    survey_file,
    values_of,
)
from nnunet_osasis.evaluation.metrics.saliency import alignment_curve
from nnunet_osasis.evaluation.metrics.score import choose_metrics, mean_scores, score_checked
from nnunet_osasis.images.image import onto_grid, require_unplaced, voxel_order
from nnunet_osasis.images.io import read_image
from nnunet_osasis.images.masks import require_same_turn
from nnunet_osasis.runtime.workers import workers

FOREGROUND, MEAN = "foreground", "mean"


@dataclass(frozen=True)
class Score:
    """Metrics of one method on one case and class (``"foreground"`` for masks, ``"mean"`` over classes)."""

    method: str
    case: str
    label: str
    values: dict[str, float]


@dataclass(frozen=True)
class FolderScores:
    """The result of :func:`score_folder`.

    Attributes:
        protocol: the conventions that held.
        metrics: names, in order.
        reading: what the numbers of the references mean.
        pairs: which files were compared and which left out.
        jobs: ``{(method, case): Job}``, in that order.
        scores: by method, case and class, in that order.
        curves: ``{(method, label): (256,)}`` mean E-measure at each threshold, when E was asked for.
        scales: what each method's maps were divided by.
    """

    protocol: Protocol
    metrics: tuple[str, ...]
    reading: Reading
    pairs: Pairs
    jobs: dict[tuple[str, str], Job]
    scores: tuple[Score, ...]
    curves: dict[tuple[str, str], np.ndarray]
    scales: dict[str, int]

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods."""
        return tuple(self.pairs.predictions)

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes that have rows; the last one stands for the method as a whole."""
        return tuple(dict.fromkeys(score.label for score in self.scores))


@dataclass(frozen=True)
class Job:
    """One method's case, ready to be scored in any process.

    Attributes:
        method: name of the method.
        case: name of the case.
        prediction: file of the prediction.
        reference: file of the reference.
        reading: what the numbers of the references mean.
        scale: what maps are divided by.
        protocol: the conventions that hold.
        metrics: what to compute.
    """

    method: str
    case: str
    prediction: Path
    reference: Path
    reading: Reading
    scale: int
    protocol: Protocol
    metrics: tuple[str, ...]


def score_folder(
    predictions: Path | str | Mapping[str, Path],
    references: Path | str,
    *,
    protocol: str | Protocol = "standard",
    metrics: Iterable[str] | None = None,
    classes: Sequence[int] | None = None,
    probabilities: bool = False,
    scale: int | None = None,
    allow_missing: bool = False,
    processes: int = 1,
    progress: bool = True,
) -> FolderScores:
    """Score every case of one or several folders of predictions.

    Args:
        predictions: a folder, or ``{method: folder}``.
        references: folder of masks or label maps with the same names without suffix. nnU-Net's ``dataset.json``, in,
            beside or above it or among the predictions, names the ignore label.
        protocol: as for :func:`nnunet_osasis.evaluation.metrics.score_case`.
        metrics: names; None: as for :func:`nnunet_osasis.evaluation.metrics.score_case`.
        classes: labels to score one against the rest; None: told from the references.
        probabilities: read nnU-Net's ``.npz`` probabilities instead of its label maps.
        scale: 1 or 255, what maps are divided by; None: told from each folder.
        allow_missing: score only the cases that all sides have.
        processes: how many work side by side; the result does not depend on it. With more than one, a script of
            your own must call this below ``if __name__ == "__main__"``.
        progress: show a bar.

    Raises:
        OsasisError: before the first case is scored, for unreadable files, NaN, unequal sets, sizes or spacings, and
            values outside [0, 1] and [0, 255].
    """
    folders = predictions if isinstance(predictions, Mapping) else {"prediction": Path(predictions)}
    chosen = choose_protocol(protocol)
    if not folders:
        raise OsasisError("There must be predictions to score", found="no folder")
    pairs = pair_files(
        {name: Path(f) for name, f in folders.items()},
        Path(references), probabilities=probabilities, allow_missing=allow_missing,
    )  # fmt: skip
    with workers(processes, progress=progress) as run:
        survey = partial(run, survey_file)
        truths = dict(zip(pairs.references, survey(list(pairs.references.values()), "references"), strict=True))
        ignore, known = dataset_labels(Path(references), *map(Path, folders.values()))
        reading = read_references(list(truths.values()), classes, ignore=ignore, known=known)
        scales, jobs = dict[str, int](), dict[tuple[str, str], Job]()
        names = choose_metrics(metrics, chosen, dimensions=max(len(fact.shape) for fact in truths.values()))
        for method, files in pairs.predictions.items():
            facts = survey(list(files.values()), method)
            for fact, truth in zip(facts, truths.values(), strict=True):
                _check_pair(fact, truth)
            divisor = scales[method] = prediction_scale(facts, reading, scale=scale)
            for case, path in files.items():
                job = Job(method, case, path, pairs.references[case], reading, divisor, chosen, names)
                jobs[method, case] = job
        results = run(_score_job, list(jobs.values()), "score")
    scores = tuple(score for rows, _ in results for score in rows)
    return FolderScores(chosen, names, reading, pairs, jobs, scores, _mean_curves(results), scales)


def _check_pair(prediction: FileFacts, truth: FileFacts) -> None:
    what = "Reference", "prediction"
    require_same_turn((truth.tag, prediction.tag), (truth.shape, prediction.shape), prediction.path, what)
    if voxel_order(truth.geometry, truth.shape, prediction.geometry, prediction.shape) is not None:
        return
    if prediction.shape != truth.shape:
        raise OsasisError(
            "Prediction and reference must have one size",
            found=f"{prediction.shape} in {prediction.path} for {truth.shape} in {truth.path}",
            remedy="Resample the prediction to the reference's grid (labels by nearest neighbor).",
        )
    first, second = (spacing_of(fact.geometry, len(fact.shape)) for fact in (prediction, truth))
    if first is not None and second is not None and not np.allclose(first, second, rtol=1e-3, atol=0):
        raise OsasisError(
            "Prediction and reference must have one spacing",
            found=f"{first} in {prediction.path} for {second}",
            remedy="Resample the prediction to the reference's grid, or repair its header.",
        )
    require_unplaced(truth.geometry, prediction.geometry, prediction.path, what)


@dataclass(frozen=True)
class PairValues:
    """The pixels of one prediction and its reference.

    Attributes:
        maps: ``{class: (map in [0, 1] or mask, truth)}``.
        ignored: where the truth is unknown; None: nowhere.
        spacing: the reference's; None where its file has none.
    """

    maps: dict[str, tuple[np.ndarray, np.ndarray]]
    ignored: np.ndarray | None
    spacing: tuple[float, ...] | None


def read_pair(job: Job) -> PairValues:
    """Read the two files of a job; a prediction in another voxel order is brought onto its reference's grid.

    Raises:
        OsasisError: probabilities that lack a class, or a prediction whose voxels lie elsewhere.
    """
    reference = read_image(job.reference)
    stored, spacing = values_of(reference)
    reading, ignored = job.reading, job.reading.ignored(stored)
    truth = reading.truth(stored)
    if job.prediction.suffix == ".npz":
        values = read_probabilities(job.prediction)
        if max(reading.classes or (1,)) >= len(values):
            raise OsasisError("Probabilities must hold every class", found=f"{len(values)} of them in {job.prediction}")
        predicted = {c: values[c] for c in reading.classes or (1,)}
    else:
        prediction = read_image(job.prediction)
        plane = replace(prediction, array=values_of(prediction)[0][None])
        values = onto_grid(plane, reference, what=("Reference", "prediction"))[0]
        predicted = {c: values == c for c in reading.classes} if reading.classes else {1: values / job.scale}
    if reading.classes is None:
        return PairValues({FOREGROUND: (predicted[1], truth)}, ignored, spacing)
    return PairValues({str(c): (map_of_class, truth == c) for c, map_of_class in predicted.items()}, ignored, spacing)


def _score_job(job: Job) -> tuple[list[Score], dict[tuple[str, str], np.ndarray]]:
    """Scores of every class, their mean when there are several, and the E curves by method and class."""
    pair = read_pair(job)
    scores, curves = [], {}
    for label, (prediction, truth) in pair.maps.items():
        case = make_case(prediction, truth, job.protocol, spacing=pair.spacing, ignored=pair.ignored)
        scores.append(Score(job.method, job.case, label, score_checked(case, job.metrics)))
        if "e_max" in job.metrics:
            curves[job.method, label] = alignment_curve(case)
    if len(scores) > 1:
        scores.append(Score(job.method, job.case, MEAN, mean_scores([score.values for score in scores])))
    return scores, curves


def _mean_curves(results: Sequence[tuple[list[Score], dict[tuple[str, str], np.ndarray]]]) -> dict:
    sums: dict[tuple[str, str], list[np.ndarray]] = {}
    for _, curves in results:
        for key, curve in curves.items():
            sums.setdefault(key, []).append(curve)
    return {key: np.mean(curves, axis=0) for key, curves in sums.items()}
