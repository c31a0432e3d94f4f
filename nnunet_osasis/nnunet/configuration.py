"""A configuration of nnU-Net's plans: how its cases are prepared, where its files are, and where its stylizer is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.options import OsasisOptions
from nnunet_osasis.runtime.records import read_json

FOLDER = "osasis"
"""Folder in a dataset's preprocessed folder that holds its stylizers, one per configuration."""


@dataclass(frozen=True)
class NnunetConfiguration:
    """One dataset, one plans file, one configuration: all that nnU-Net knows about how cases are prepared.

    Attributes:
        name: of the configuration, such as ``2d``.
        plans: nnU-Net's reader of the plans file.
        dataset_json: content of ``dataset.json``.
    """

    name: str
    plans: PlansManager
    dataset_json: dict[str, Any]

    @classmethod
    def load(cls, dataset: int | str, configuration: str, plans_identifier: str = "nnUNetPlans") -> NnunetConfiguration:
        """Read plans and dataset.json from ``nnUNet_preprocessed``.

        Args:
            dataset: id (501, "501") or name ("Dataset501_Polyps").
            configuration: such as ``2d`` or ``3d_fullres``.
            plans_identifier: name of the plans file.

        Raises:
            OsasisError: when the dataset, its plans or the configuration does not exist.
        """
        folder = preprocessed_folder(dataset)
        if not (folder / f"{plans_identifier}.json").is_file():
            raise OsasisError(
                "The dataset must be planned and preprocessed",
                found=f"no {plans_identifier}.json in {folder}",
                remedy=f"Run: nnUNetv2_plan_and_preprocess -d {int(folder.name[7:10])} -c {configuration}",
            )
        plans = PlansManager(read_json(folder / f"{plans_identifier}.json", what="The plans file"))
        if configuration not in plans.available_configurations:
            raise OsasisError(
                f"The configuration must be one of {', '.join(plans.available_configurations)}", found=configuration
            )
        return cls(configuration, plans, read_json(folder / "dataset.json", what="dataset.json"))

    @property
    def manager(self) -> ConfigurationManager:
        """nnU-Net's view of the configuration, inheritance resolved."""
        return self.plans.get_configuration(self.name)

    @property
    def dataset(self) -> str:
        """The dataset's full name, such as ``Dataset501_Polyps``."""
        return self.plans.dataset_name

    @property
    def dataset_id(self) -> int:
        """The dataset's number, such as 501."""
        return int(self.dataset[7:10])

    @property
    def preprocessed_folder(self) -> Path:
        """Where the dataset's preprocessed files are: plans, splits, and one folder per data identifier."""
        return preprocessed_folder(self.dataset)

    @property
    def data_folder(self) -> Path:
        """Where the preprocessed cases of this configuration are."""
        return self.preprocessed_folder / self.manager.data_identifier

    @property
    def raw_folder(self) -> Path | None:
        """Where the original images are, or None when ``nnUNet_raw`` is not set or does not hold the dataset."""
        if not nnUNet_raw.is_set():
            return None
        folder = Path(nnUNet_raw) / self.dataset
        return folder if folder.is_dir() else None

    def preprocessing(self) -> dict[str, Any]:
        """Everything in the plans that decides what a preprocessed image looks like."""
        settings = ("normalization_schemes", "use_mask_for_norm", "spacing", "preprocessor_name")
        resampling = ("resampling_fn_data", "resampling_fn_data_kwargs")
        return {
            **{name: self.manager.configuration.get(name) for name in (*settings, *resampling)},
            "transpose_forward": list(self.plans.transpose_forward),
            "reader": self.plans.plans["image_reader_writer"],
            "intensities": self.plans.foreground_intensity_properties_per_channel,
        }

    @property
    def channel_names(self) -> list[str]:
        """Names of the image channels, in order."""
        names = self.dataset_json.get("channel_names", self.dataset_json.get("modality", {}))
        return [names[key] for key in sorted(names, key=int)]

    def transposed(self, array: np.ndarray) -> np.ndarray:
        """Move the axes of an image ``(C, ...)`` from the reader's order to the plans' ``(C, Z, Y, X)``."""
        return array.transpose(0, *(axis + 1 for axis in self.plans.transpose_forward))

    def require_channels(self, count: int) -> None:
        """Raise ``OsasisError`` unless a stylizer for ``count`` channels fits the dataset."""
        channels = len(self.manager.normalization_schemes)
        if count != channels:
            raise OsasisError(
                f"The stylizer must take the {channels} channel(s) of {self.dataset}",
                found=f"one for {count} channel(s)",
                remedy="Make a stylizer from this dataset's images.",
            )


def preprocessed_folder(dataset: int | str) -> Path:
    """``nnUNet_preprocessed/DatasetXXX_Name``. Raises ``OsasisError`` when the variable or the dataset is missing."""
    if not nnUNet_preprocessed.is_set():
        raise OsasisError(
            "nnU-Net must know where preprocessed data are",
            found="no environment variable nnUNet_preprocessed",
            remedy="Set nnUNet_raw, nnUNet_preprocessed and nnUNet_results as for nnUNetv2_train.",
        )
    return Path(nnUNet_preprocessed) / dataset_name(dataset)


def dataset_name(dataset: int | str) -> str:
    """``DatasetXXX_Name`` of an id or a name. Raises ``OsasisError`` for one that nnU-Net does not know."""
    try:
        return str(maybe_convert_to_dataset_name(dataset))
    except (RuntimeError, ValueError) as error:
        raise OsasisError(
            "The dataset must be an id or name nnU-Net knows",
            found=str(error),
            remedy="Check -d and nnU-Net's folders.",
        ) from error


def default_stylizer_folder(dataset: int | str, configuration: str) -> Path:
    """``nnUNet_preprocessed/DatasetXXX_Name/osasis/<configuration>``, where the trainers look by default."""
    return preprocessed_folder(dataset) / FOLDER / configuration


def find_stylizers(setup: NnunetConfiguration, options: OsasisOptions) -> list[Path]:
    """Every stylizer folder that the plans name, else the dataset's own.

    A folder that the plans name but that does not exist is an error, never a reason to take another one.

    Raises:
        OsasisError: with both places that were searched, and with the command that makes a stylizer.
    """
    return [_existing(setup, named) for named in options.stylizers]


def find_stylizer(setup: NnunetConfiguration, options: OsasisOptions) -> Path:
    """The first of :func:`find_stylizers`."""
    return find_stylizers(setup, options)[0]


def _existing(setup: NnunetConfiguration, named: Path | None) -> Path:
    own = default_stylizer_folder(setup.dataset, setup.name)
    folder = own if named is None else named
    if folder.is_dir():
        return folder
    plans = "" if setup.plans.plans_name == "nnUNetPlans" else f" -p {setup.plans.plans_name}"
    reference = f"reference{setup.dataset_json['file_ending']}"
    command = f"osasis-pretrain-stylizer -d {setup.dataset_id} -c {setup.name}{plans} --style {reference}"
    first = "not set" if named is None else f"{named}, which is not a folder"
    second = "there, but the plans name another" if own.is_dir() else "not there"
    raise OsasisError(
        "A stylizer is needed to train on stylized cases",
        found=f'none at (1) "osasis": {{"stylizer": ...}} of configuration {setup.name} in {setup.plans.plans_name}'
        f".json: {first}; (2) {own}: {second}",
        remedy=f"Make one ({reference} is one image from the new site):\n  {command}",
    )
