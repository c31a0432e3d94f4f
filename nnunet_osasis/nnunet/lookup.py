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
