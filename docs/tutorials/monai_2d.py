"""Train a MONAI network on color images that are restyled on the way, and look at the batch.

    python docs/tutorials/monai_2d.py --output look                      # phantom images, a stylizer made in minutes
    python docs/tutorials/monai_2d.py --output look --images site_a/images --masks site_a/masks \
        --test-images site_b/images --test-masks site_b/masks --stylizer stylizer --network pranet

The one line that is not ordinary MONAI is `RandOSASISStylized`. It restyles half of the training images towards the
stylizer's reference; masks are not touched, and neither are validation images.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from monai.data import CacheDataset, DataLoader, PILReader, decollate_batch
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.networks.nets import UNet
from monai.transforms import (
    Activations,
    AsDiscrete,
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    RandFlipd,
    RandRotate90d,
    Resized,
    ScaleIntensityRanged,
)
from monai.utils import set_determinism
from monai.visualize import blend_images
from PIL import Image

from monai_transforms import RandOSASISStylized
from nnunet_osasis.networks import PraNet, StructureLoss, UNetPlusPlus
from nnunet_osasis.synthetic.phantoms import render_pair


def write_phantom(args: argparse.Namespace, folder: Path, count: int = 40) -> None:
    """Two phantom scanners: training pairs of the first; test pairs and one reference image of the second."""
    for i in range(count + 9):
        image_a, image_b, mask = render_pair(i)
        part = "train" if i < count else "test" if i < count + 8 else "reference"
        for kind, array in (("images", image_a if part == "train" else image_b), ("masks", mask * 255)):
            path = folder / part / kind / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    args.images, args.masks = folder / "train/images", folder / "train/masks"
    args.test_images, args.test_masks = folder / "test/images", folder / "test/masks"
    args.style = folder / f"reference/images/{count + 8:03d}.png"


def pairs(images: Path, masks: Path) -> list[dict[str, Path]]:
    """MONAI's list of dictionaries, matched by stem."""
    by_stem = {path.stem: path for path in masks.iterdir()}
    return [{"image": path, "label": by_stem[path.stem]} for path in sorted(images.iterdir())]


def as_colour(image: Image.Image) -> Image.Image:
    """Three channels, whatever the file has."""
    return image.convert("RGB")


def as_grey(mask: Image.Image) -> Image.Image:
    """One channel, whatever the file has."""
    return mask.convert("L")


def make_network(name: str) -> torch.nn.Module:
    """Networks that return one map of logits; PraNet and UNet++ come with this package."""
    if name == "pranet":
        return PraNet(3, 1, deep_supervision=False)
    if name == "unetplusplus":
        return UNetPlusPlus(3, 1, features=(16, 32, 64, 128, 256, 16), deep_supervision=False)
    return UNet(2, 3, 1, channels=(16, 32, 64, 128), strides=(2, 2, 2), num_res_units=2)


def show_batch(batch: dict, path: Path) -> None:
    """Images as the network sees them, and the same with their masks."""
    count = min(6, len(batch["image"]))
    figure, axes = plt.subplots(2, count, figsize=(2 * count, 4.2), squeeze=False)
    for i in range(count):
        image, label = batch["image"][i].clamp(0, 1), batch["label"][i]
        for row, picture in enumerate((image, blend_images(image, label, alpha=0.4))):
            axes[row][i].imshow(torch.as_tensor(picture).permute(2, 1, 0).numpy())  # MONAI's order is (C, W, H)
            axes[row][i].set_axis_off()
    figure.suptitle("a training batch: half of it restyled, masks as they were")
    figure.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(figure)


def main(argv: list[str] | None = None) -> float:
    """Train, validate, write `batch.png`; returns the mean Dice on the test images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    for name in ("images", "masks", "test-images", "test-masks", "style", "stylizer"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--network", choices=("unet", "unetplusplus", "pranet"), default="unet")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args(argv)
    own = (args.images, args.masks, args.test_images, args.test_masks)
    if any(own) and not (all(own) and (args.stylizer or args.style)):
        parser.error("give --images, --masks, --test-images, --test-masks, and --stylizer or --style")
    args.output.mkdir(parents=True, exist_ok=True)
    if args.images is None:
        write_phantom(args, args.output / "data")
    if args.stylizer is None:
        args.stylizer = args.output / "stylizer"
        command = [str(Path(sys.executable).parent / "osasis-pretrain-stylizer"), "--images", str(args.images)]
        command += ["--style", str(args.style), "--output", str(args.stylizer), "--stop-after", "maps", "--resume"]
        subprocess.run(command, check=True)

    set_determinism(0)
    keys = ["image", "label"]
    load = [
        LoadImaged("image", reader=PILReader(converter=as_colour)),
        LoadImaged("label", reader=PILReader(converter=as_grey)),
        EnsureChannelFirstd(keys),
        Resized(keys, (args.size, args.size), mode=("area", "nearest")),
        AsDiscreted("label", threshold=0.5),  # masks of 0 and 1 or of 0 and 255
    ]
    prepare = [ScaleIntensityRanged("image", 0, 255, 0, 1, clip=True), EnsureTyped(keys)]
    augment = [
        RandOSASISStylized("image", args.stylizer, prob=0.5, strength=(0.5, 1.0)),  # before intensities are scaled
        RandFlipd(keys, prob=0.5, spatial_axis=0),
        RandRotate90d(keys, prob=0.5),
    ]
    training = CacheDataset(pairs(args.images, args.masks), Compose([*load, *augment, *prepare]))
    test = CacheDataset(pairs(args.test_images, args.test_masks), Compose([*load, *prepare]))
    loader = DataLoader(training, batch_size=8, shuffle=True, num_workers=2)

    network = make_network(args.network).to(args.device)
    loss_function = StructureLoss() if args.network == "pranet" else DiceCELoss(sigmoid=True)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4 if args.network == "pranet" else 1e-3)
    for epoch in range(args.epochs):
        network.train()
        losses = []
        for step, batch in enumerate(loader):
            if epoch == step == 0:
                show_batch(batch, args.output / "batch.png")
            loss = loss_function(network(batch["image"].to(args.device)), batch["label"].to(args.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}/{args.epochs}: loss {sum(losses) / len(losses):.3f}", flush=True)

    network.eval()
    metric, discrete = DiceMetric(), Compose([Activations(sigmoid=True), AsDiscrete(threshold=0.5)])
    with torch.no_grad():
        for batch in DataLoader(test, batch_size=4):
            outputs = [discrete(o) for o in decollate_batch(network(batch["image"].to(args.device)))]
            metric(outputs, [label.to(args.device) for label in decollate_batch(batch["label"])])
    dice = metric.aggregate().item()
    print(f"mean Dice on {len(test)} test images: {dice:.3f}; the first batch: {args.output / 'batch.png'}")
    return dice


if __name__ == "__main__":
    main()
