"""The cases of an nnU-Net dataset as a stylizer sees them: native units, nnU-Net's own order of axes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.configuration import NnunetConfiguration, preprocessed_folder
from nnunet_osasis.nnunet.lookup import default_stylizer_folder
from nnunet_osasis.nnunet.preprocessed_cases import PreprocessedCases
from nnunet_osasis.nnunet.raw_cases import RawCases, read_unnormalized

__all__ = [
    "ChannelHint",
    "default_stylizer_folder",
    "intensity_hints",
    "open_cases",
    "read_reference",
    "training_keys",
    "unnormalized_cases",
]

PLANS = "nnUNetPlans"


@dataclass(frozen=True)
class ChannelHint:
    """What the plans know about the intensities of one channel, in native units, inside the foreground.

    ``scheme`` is the normalization's class name in nnU-Net, such as ``ZScoreNormalization``.
    """

    name: str
    scheme: str
    minimum: float
    percentile_00_5: float
    median: float
    percentile_99_5: float
    maximum: float
    mean: float
    std: float


def open_cases(setup: NnunetConfiguration) -> RawCases | PreprocessedCases:
    """The cases from ``nnUNet_raw`` where it holds the dataset, else from preprocessed files where that is exact.

    Raises ``OsasisError`` when neither will do.
    """
    return PreprocessedCases(setup) if setup.raw_folder is None else RawCases(setup)


def unnormalized_cases(
    dataset: int | str, configuration: str, plans_identifier: str = PLANS, keys: Iterable[str] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield ``(key, image)``: images ``(C, Z, Y, X)`` float32, native units, transposed and cropped, 2D with ``Z = 1``.

    ``keys`` defaults to every case of the dataset; pass :func:`training_keys` to keep validation cases out.
    """
    cases = open_cases(NnunetConfiguration.load(dataset, configuration, plans_identifier))
    for key in cases.keys if keys is None else keys:
        yield key, cases.unnormalized(key)


def read_reference(
    path: str | Path, dataset: int | str, configuration: str, plans_identifier: str = PLANS
) -> np.ndarray:
    """Read a target-style image as the dataset's reader would: ``(C, Z, Y, X)`` float32, native units.

    Where the dataset keeps one file per channel, ``path`` is the first of them (``..._0000.nii.gz``) and the others
    lie beside it. Raises ``OsasisError`` when the channels are not those of the dataset.
    """
    return read_like_dataset(Path(path), NnunetConfiguration.load(dataset, configuration, plans_identifier))


def read_like_dataset(path: Path, setup: NnunetConfiguration) -> np.ndarray:
    """:func:`read_reference` for a configuration that is loaded already."""
    if not path.is_file():
        raise OsasisError("The reference image must exist", found=f"no file {path}")
    ending = setup.dataset_json["file_ending"]
    names = setup.channel_names
    files = [str(path)]
    if path.name.endswith(f"_0000{ending}"):
        stem = str(path)[: -len(f"_0000{ending}")]
        found = [Path(f"{stem}_{channel:04d}{ending}") for channel in range(len(names))]
        files = [str(file) for file in found if file.is_file()]
    try:
        image = read_unnormalized(setup, files)
    except Exception as error:  # readers raise whatever their library raises
        raise OsasisError(
            f"The reference image must be readable by the dataset's {setup.plans.image_reader_writer_class.__name__}",
            found=f"{type(error).__name__}: {error}",
            remedy=f"Save it in the dataset's own format ({ending}).",
        ) from error
    if image.shape[0] != len(names):
        raise OsasisError(
            f"The reference image must have the dataset's {len(names)} channel(s) ({', '.join(names)})",
            found=f"{image.shape[0]} in {', '.join(files)}",
            remedy=f"Give an image of the same kind, channels in files ending in _0000{ending}, _0001{ending}, ...",
        )
    return image


def intensity_hints(dataset: int | str, configuration: str, plans_identifier: str = PLANS) -> list[ChannelHint]:
    """What the plans know about each channel's normalization and foreground intensities."""
    setup = NnunetConfiguration.load(dataset, configuration, plans_identifier)
    hints = []
    for channel, (name, scheme) in enumerate(
        zip(setup.channel_names, setup.manager.normalization_schemes, strict=True)
    ):
        known = setup.plans.foreground_intensity_properties_per_channel[str(channel)]
        hints.append(
            ChannelHint(
                name=name,
                scheme=scheme,
                minimum=known["min"],
                percentile_00_5=known["percentile_00_5"],
                median=known["median"],
                percentile_99_5=known["percentile_99_5"],
                maximum=known["max"],
                mean=known["mean"],
                std=known["std"],
            )
        )
    return hints


def training_keys(dataset: int | str, fold: int | str) -> list[str]:
    """The cases ``nnUNetv2_train`` trains on in this fold ("all" or a number), before or after it made its splits.

    Follows nnU-Net's ``do_split``: ``splits_final.json`` where it exists, else the five folds nnU-Net would make,
    and a seeded 80:20 split for a fold beyond them. Writes nothing.
    """
    folder = preprocessed_folder(dataset)
    ending = load_json(str(folder / "dataset.json"))["file_ending"]
    keys = sorted(path.name[: -len(ending)] for path in (folder / "gt_segmentations").glob(f"*{ending}"))
    if fold == "all":
        return keys
    try:
        fold = int(fold)
    except ValueError:
        raise OsasisError('The fold must be a number or "all"', found=repr(fold)) from None
    if (folder / "splits_final.json").is_file():
        splits = load_json(str(folder / "splits_final.json"))
    elif len(keys) < 5:
        raise OsasisError(
            "Five folds need five cases",
            found=f"{len(keys)} in {folder / 'gt_segmentations'}",
            remedy='Use the fold "all", or write a splits_final.json.',
        )
    else:
        splits = generate_crossval_split(keys, seed=12345, n_splits=5)
    if fold < len(splits):
        return sorted(map(str, splits[fold]["train"]))
    chosen = np.random.RandomState(seed=12345 + fold).choice(len(keys), int(len(keys) * 0.8), replace=False)
    return sorted(keys[i] for i in chosen)
