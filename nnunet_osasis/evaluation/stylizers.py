"""Stylizers for an experiment, made by the public command on the training images and the one reference."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment import StylizerSpec
from nnunet_osasis.evaluation.preparation import Prepared
from nnunet_osasis.storage import atomic_write, atomic_write_json, ensure_writable, read_json, sha256_of_json
from nnunet_osasis.stylizer_folder import is_stylizer_folder, stylizer_digest


def write_pictures(folder: Path, images: dict[str, np.ndarray]) -> None:
    """Pictures ``(C, H, W)`` uint8 as PNG files, by name."""
    for name, image in images.items():
        picture = Image.fromarray(image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1))
        atomic_write(folder / f"{name}.png", partial(picture.save, format="PNG"))


def make_stylizer(
    folder: Path,
    prepared: Prepared,
    target: str,
    spec: StylizerSpec,
    *,
    losses: str,
    pretrained: Path | None,
    device: str,
) -> list[str]:
    """Make the stylizer of one target and loss preset unless it is there; returns the command.

    Args:
        folder: of the stylizer. pretrained: a stylizer of the same source images whose autoencoder is taken.

    Raises ``OsasisError`` when the command fails (its own message is on the screen); an interrupted one is resumed.
    """
    inputs = folder.parent / "inputs"
    images, reference = inputs / "training_images", inputs / f"reference_{target}"
    arguments = ["--images", str(images), "--style", str(reference / "reference.png"), "--output", str(folder)]
    arguments += ["--preset", spec.preset, "-device", device]
    if pretrained is not None:
        arguments += ["--from-stylizer", str(pretrained)]
    elif spec.iterations is not None:
        arguments += ["--iterations", str(spec.iterations)]
    if spec.adapt_iterations is not None:
        arguments += ["--adapt-iterations", str(spec.adapt_iterations)]
    arguments += ["--losses", losses]
    digest = None if pretrained is None else stylizer_digest(pretrained)
    options = {"preset": spec.preset, "losses": losses, "adapt_iterations": spec.adapt_iterations}
    pretraining = spec.iterations if digest is None else digest
    reference_hash = prepared.report["references"][target]["sha256"]
    key = sha256_of_json([prepared.sha256(), reference_hash, options, pretraining])
    remembered = folder.parent / f"{folder.name}.json"
    same = remembered.is_file() and read_json(remembered, what="A stylizer's record").get("key") == key
    command = ["osasis-pretrain-stylizer", *arguments]
    if same and is_stylizer_folder(folder):
        return command
    shutil.rmtree(images, ignore_errors=True)
    write_pictures(images, dict(zip(prepared.train_names, prepared.train, strict=True)))
    write_pictures(reference, {"reference": prepared.references[target]})
    ensure_writable(folder)
    atomic_write_json(remembered, {"key": key, "command": command})
    module = [sys.executable, "-m", "nnunet_osasis.scripts.pretrain_stylizer"]
    ended = subprocess.run([*module, *arguments, "--resume" if same else "--overwrite"], check=False)
    if ended.returncode == 130 or ended.returncode < 0:
        raise KeyboardInterrupt
    if ended.returncode != 0:
        raise OsasisError(
            "The stylizer must be made",
            found=f"exit status {ended.returncode} of osasis-pretrain-stylizer for {target}",
            remedy="Its message is above. The same command goes on from what is finished.",
        )
    return command
