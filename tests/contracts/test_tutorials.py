"""The tutorial scripts run as printed, on a handful of phantom images."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from specimens import build_tiny

TUTORIALS = Path(__file__).parents[2] / "docs/tutorials"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TUTORIALS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments(module: ModuleType, folder: Path, stylizer: Path) -> list[str]:
    """Options for a few written phantom cases."""
    args = argparse.Namespace()
    module.write_phantom(args, folder / "data", count=3)
    named = {name: getattr(args, name) for name in ("images", "masks", "test_images", "test_masks")}
    options = [text for name, path in named.items() for text in (f"--{name.replace('_', '-')}", str(path))]
    return [*options, "--stylizer", str(stylizer), "--output", str(folder / "look"), "--epochs", "1", "--device", "cpu"]


@pytest.mark.parametrize(
    "network", ["unet", *(pytest.param(name, marks=pytest.mark.slow) for name in ("unetplusplus", "pranet"))]
)
def test_images(tmp_path: Path, stylizer_folder: Path, network: str) -> None:
    tutorial = load("monai_2d")
    dice = tutorial.main([*arguments(tutorial, tmp_path, stylizer_folder), "--network", network, "--size", "64"])
    assert 0 <= dice <= 1
    assert (tmp_path / "look/batch.png").stat().st_size > 10_000


@pytest.mark.slow
def test_volumes(tmp_path: Path) -> None:
    build_tiny(tmp_path / "stylizer", channels=1)
    tutorial = load("monai_3d")
    dice = tutorial.main(arguments(tutorial, tmp_path, tmp_path / "stylizer"))
    assert 0 <= dice <= 1
    assert (tmp_path / "look/batch.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["monai_2d", "monai_3d"])
def test_half_of_ones_own_data_is_not_enough(tmp_path: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        load(name).main(["--output", str(tmp_path / "look"), "--images", str(tmp_path)])
    assert "--stylizer or --style" in capsys.readouterr().err
