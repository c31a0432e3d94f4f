"""The table of trainings: one cell per network, method, target's style and seed, and what each is tested on."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_osasis.evaluation.experiment.config import IMAGENET, Experiment, MethodSpec, NetworkSpec
from nnunet_osasis.evaluation.experiment.data import SOURCE, Prepared
from nnunet_osasis.runtime.storage import sha256_of_file, sha256_of_json

FORMAT = 1
"""Version of the predictions; raised when equal settings would give other ones, so that old cells are not reused."""


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        network: the network to train.
        method: what is done to the training images.
        target: name of the target whose style it trains for; None for methods that see no reference.
        seed: one of the experiment's seeds.
        tests: names of the test sets it predicts.
        stretch: how many times the budget's steps it takes.
    """

    network: NetworkSpec
    method: MethodSpec
    target: str | None
    seed: int
    tests: tuple[str, ...]
    stretch: int = 1

    @property
    def name(self) -> str:
        """Unique name, which can be part of a file name."""
        style = self.method.name if self.target is None else f"{self.method.name}@{self.target}"
        longer = "" if self.stretch == 1 else f"__x{self.stretch}"
        return f"{self.network.name}__{style}__{self.seed}{longer}"

    @property
    def random_seed(self) -> int:
        """Seed of weights and batches.

        Trainings of two methods share no random numbers, so that their difference holds the whole chance of training,
        and ``identity`` against ``none`` shows how large that is.
        """
        return zlib.crc32(self.name.encode())

    def key(self, experiment: Experiment, prepared: Prepared, styled: dict[str, Any] | None) -> str:
        """Return the SHA-256 of everything that decides the predictions.

        Args:
            experiment: the experiment of the cell.
            prepared: its images.
            styled: record of the stylized training images; None for methods that have none.
        """
        values = experiment.to_json()
        network = next(n for n in values["networks"] if n["name"] == self.network.name)
        method = next(m for m in values["methods"] if m["name"] == self.method.name)
        truth = prepared.truths[self.target or ""].sha256 if self.method.kind == "truth" else None
        folds = [experiment.seeds.index(self.seed), len(experiment.seeds)]
        extra: dict[str, Any] = {"folds": folds} if experiment.budget.engine == "nnunet" else {}
        if self.network.weights is not None:
            extra["weights"] = _sha256_of_weights(self.network)
        return sha256_of_json(
            {
                "format": FORMAT,
                "budget": values["budget"],
                "network": network,
                "method": method,
                "seed": self.seed,
                "name": self.name,
                "data": prepared.sha256(*self.tests),
                "styled": None if styled is None else styled["sha256"],
                "truth": truth,
                **extra,
            }
        )


STRETCH = 2
"""How many times the steps of all others the training takes that shows what more steps give."""


def longer_cells(experiment: Experiment) -> list[Cell]:
    """Return one longer training per network, without style transfer, tested in-domain; none for nnU-Net's trainers."""
    if experiment.budget.engine != "light":
        return []
    method = next(method for method in experiment.methods if method.name == experiment.baseline)
    return [Cell(net, method, None, experiment.seeds[0], (SOURCE,), STRETCH) for net in experiment.networks]


def _sha256_of_weights(network: NetworkSpec) -> str | None:
    from nnunet_osasis.networks.imagenet import find_imagenet_weights

    path = find_imagenet_weights(str(network.encoder)) if network.weights == IMAGENET else Path(str(network.weights))
    return None if path is None else sha256_of_file(path)


def all_cells(experiment: Experiment) -> list[Cell]:
    """Return every training, the first seed of everything first: a partial run is a whole small study."""
    cells, targets = [], tuple(target.name for target in experiment.targets)
    with_truth = {target.name for target in experiment.targets if target.has_truth}
    for seed in experiment.seeds:
        for network in experiment.networks:
            for method in experiment.methods:
                if not method.needs_reference:
                    cells.append(Cell(network, method, None, seed, (SOURCE, *targets)))
                    continue
                for target in targets:
                    if method.kind != "truth" or target in with_truth:
                        cells.append(Cell(network, method, target, seed, (SOURCE, target)))
    return cells
