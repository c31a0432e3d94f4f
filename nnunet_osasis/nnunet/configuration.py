"""Where the stylizer of a training run is.

One dataset, one plans file, one configuration: everything nnU-Net knows about how cases are prepared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.options import OsasisOptions
from nnunet_osasis.runtime.records import read_json

FOLDER = "osasis"


def default_stylizer_folder(dataset: int | str, configuration: str) -> Path:
    """``nnUNet_preprocessed/DatasetXXX_Name/osasis/<configuration>``, where a stylizer is found without being named."""
    return preprocessed_folder(dataset) / FOLDER / configuration


def find_stylizers(setup: NnunetConfiguration, options: OsasisOptions) -> list[Path]:
    """:func:`find_stylizer` for every folder that the plans name."""
    return [find_stylizer(setup, options, named) for named in options.stylizers]


def find_stylizer(setup: NnunetConfiguration, options: OsasisOptions, named: Path | None = None) -> Path:
    """The stylizer folder the plans name, else the dataset's own; ``named`` is one of several.

    A folder that the plans name but that is not there is an error, never a reason to take another one. Raises
    ``OsasisError`` with both places and with the command that makes a stylizer.
    """
    own = default_stylizer_folder(setup.dataset, setup.name)
    wanted = options.stylizers[0] if named is None else named
    place = own if wanted is None else wanted
    if place.is_dir():
        return place
    plans = "" if setup.plans.plans_name == "nnUNetPlans" else f" -p {setup.plans.plans_name}"
    command = f"osasis-pretrain-stylizer -d {int(setup.dataset[7:10])} -c {setup.name}{plans} --style reference.png"
    found = "not set" if wanted is None else f"{wanted}, which is not a folder"
    raise OsasisError(
        "A stylizer is needed to train on stylized cases",
        found=f'none at (1) "osasis": {{"stylizer": ...}} of configuration {setup.name} in {setup.plans.plans_name}'
        f".json: {found}; (2) {own}: {'there, but the plans name another' if own.is_dir() else 'not there'}",
        remedy=f"Make one (reference.png is one image from the new site):\n  {command}",
    )


@dataclass(frozen=True)
class NnunetConfiguration:
    """A configuration as the trainer holds it, or as :meth:`load` reads it for a command."""

    name: str
    plans: PlansManager
    dataset_json: dict[str, Any]

    @classmethod
    def load(cls, dataset: int | str, configuration: str, plans_identifier: str = "nnUNetPlans") -> NnunetConfiguration:
        """Read plans and dataset.json from ``nnUNet_preprocessed``.

        ``dataset`` is an id (501, "501") or a name ("Dataset501_Polyps"). Raises ``OsasisError`` when the dataset,
        its plans or the configuration are not there.
        """
        folder = preprocessed_folder(dataset)
        dataset_id = int(folder.name[7:10])
        plan = f"nnUNetv2_plan_and_preprocess -d {dataset_id} -c {configuration}"
        if not (folder / f"{plans_identifier}.json").is_file():
            raise OsasisError(
                "The dataset must be planned and preprocessed",
                found=f"no {plans_identifier}.json in {folder}",
                remedy=f"Run: {plan}",
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
    def preprocessed_folder(self) -> Path:
        """Where the dataset's preprocessed files are: plans, splits, and one folder per data identifier."""
        return preprocessed_folder(self.dataset)

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
