"""Where the stylizer of a training run is."""

from __future__ import annotations

from pathlib import Path

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.configuration import NnunetConfiguration, preprocessed_folder
from nnunet_osasis.nnunet.options import OsasisOptions

FOLDER = "osasis"


def default_stylizer_folder(dataset: int | str, configuration: str) -> Path:
    """``nnUNet_preprocessed/DatasetXXX_Name/osasis/<configuration>``, where a stylizer is found without being named."""
    return preprocessed_folder(dataset) / FOLDER / configuration


def find_stylizer(setup: NnunetConfiguration, options: OsasisOptions) -> Path:
    """The stylizer folder the plans name, else the dataset's own.

    A folder that the plans name but that is not there is an error, never a reason to take another one. Raises
    ``OsasisError`` with both places and with the command that makes a stylizer.
    """
    own = default_stylizer_folder(setup.dataset, setup.name)
    place = own if options.stylizer is None else options.stylizer
    if place.is_dir():
        return place
    plans = "" if setup.plans.plans_name == "nnUNetPlans" else f" -p {setup.plans.plans_name}"
    command = f"osasis-pretrain-stylizer -d {int(setup.dataset[7:10])} -c {setup.name}{plans} --style reference.png"
    named = "not set" if options.stylizer is None else f"{options.stylizer}, which is not a folder"
    raise OsasisError(
        "A stylizer is needed to train on stylized cases",
        found=f'none at (1) "osasis": {{"stylizer": ...}} of configuration {setup.name} in {setup.plans.plans_name}'
        f".json: {named}; (2) {own}: {'there, but the plans name another' if own.is_dir() else 'not there'}",
        remedy=f"Make one (reference.png is one image from the new site):\n  {command}",
    )
