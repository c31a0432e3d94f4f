"""Train a 3D MONAI network on volumes that are restyled as a whole, and look at the batch.

    python docs/tutorials/monai_3d.py --output look              # phantom MR-like volumes, a stylizer made in minutes
    python docs/tutorials/monai_3d.py --output look --images site_a/images --masks site_a/masks \
        --test-images site_b/images --test-masks site_b/masks --stylizer stylizer

Files are NIfTI, one lesion label. Restyling comes before cropping: a whole volume has one intensity range, one semantic
code, so that neighboring slices agree. Being deterministic, `OSASISStylized` is computed once
and cached by `CacheDataset`; plain and restyled copies of every case are trained on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import SimpleITK as sitk
import torch
from monai.data import CacheDataset, DataLoader, decollate_batch
from monai.inferers import SlidingWindowInferer
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.networks.nets import UNet
from monai.transforms import (
    Activations,
    AsDiscrete,
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    LoadImaged,
    NormalizeIntensityd,
    RandCropByPosNegLabeld,
    RandFlipd,
)
from monai.utils import set_determinism
from torch.utils.data import ConcatDataset

from monai_transforms import OSASISStylized
from nnunet_osasis.synthetic.phantom.scanner import acquire_pair

PATCH = (48, 48, 16)  # MONAI's order: (X, Y, Z)


def write_phantom(args: argparse.Namespace, folder: Path, count: int = 8) -> None:
    """Two phantom scanners: training pairs of the first; test pairs and one reference volume of the second."""
    for i in range(count + 5):
        volume_a, volume_b, mask, spacing = acquire_pair(i, shape=(20, 80, 80))
        part = "train" if i < count else "test" if i < count + 4 else "reference"
        for kind, array in (("images", volume_a[0] if part == "train" else volume_b[0]), ("masks", mask)):
            path = folder / part / kind / f"body_{i:03d}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = sitk.GetImageFromArray(array)
            image.SetSpacing(spacing[::-1])
            sitk.WriteImage(image, path)
    args.images, args.masks = folder / "train/images", folder / "train/masks"
    args.test_images, args.test_masks = folder / "test/images", folder / "test/masks"
    args.style = folder / f"reference/images/body_{count + 4:03d}.nii.gz"


def pairs(images: Path, masks: Path) -> list[dict[str, Path]]:
    """MONAI's list of dictionaries, matched by name."""
    return [{"image": path, "label": masks / path.name} for path in sorted(images.iterdir())]


def show_batch(plain: dict, styled: dict, path: Path) -> None:
    """One case, plain and restyled: five slices of each, the lesion outlined."""
    label = torch.as_tensor(plain["label"])[0]
    middle = int(label.sum((0, 1)).argmax())
    chosen = [min(max(middle + d, 0), label.shape[-1] - 1) for d in (-4, -2, 0, 2, 4)]
    figure, axes = plt.subplots(2, len(chosen), figsize=(2 * len(chosen), 4.4))
    for row, (name, data) in enumerate((("plain", plain), ("restyled", styled))):
        volume = torch.as_tensor(data["image"])[0]
        for axis, z in zip(axes[row], chosen, strict=True):
            axis.imshow(volume[..., z].T, cmap="gray", vmin=volume.min(), vmax=volume.quantile(0.999))
            if label[..., z].any():
                axis.contour(label[..., z].T, [0.5], colors="red", linewidths=0.8)
            axis.set_title(f"{name}, slice {z}", fontsize=8)
            axis.set_axis_off()
    figure.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(figure)


def main(argv: list[str] | None = None) -> float:
    """Train, validate, write `batch.png`; returns the mean Dice on the test volumes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    for name in ("images", "masks", "test-images", "test-masks", "style", "stylizer"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--epochs", type=int, default=60)
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
        command += ["--style", str(args.style), "--output", str(args.stylizer), "--minutes", "3", "--resume"]
        subprocess.run(command, check=True)

    set_determinism(0)
    keys = ["image", "label"]
    load = [LoadImaged(keys), EnsureChannelFirstd(keys)]
    normalize = [NormalizeIntensityd("image"), EnsureTyped(keys)]
    augment = [
        RandCropByPosNegLabeld(keys, "label", spatial_size=PATCH, pos=1, neg=1, num_samples=2),
        RandFlipd(keys, prob=0.5, spatial_axis=0),
    ]
    cases = pairs(args.images, args.masks)
    stylize = OSASISStylized("image", args.stylizer)  # slices along the axis of coarsest spacing
    plain = CacheDataset(cases, Compose([*load, *normalize, *augment]))
    styled = CacheDataset(cases, Compose([*load, stylize, *normalize, *augment]))
    show_batch(
        Compose([*load, *normalize])(cases[0]),
        Compose([*load, stylize, *normalize])(cases[0]),
        args.output / "batch.png",
    )
    loader = DataLoader(ConcatDataset([plain, styled]), batch_size=2, shuffle=True, num_workers=2)

    network = UNet(3, 1, 1, channels=(8, 16, 32, 64), strides=(2, 2, 2), num_res_units=1).to(args.device)
    loss_function, optimizer = DiceCELoss(sigmoid=True), torch.optim.Adam(network.parameters(), 3e-3)
    for epoch in range(args.epochs):
        network.train()
        losses = []
        for batch in loader:
            loss = loss_function(network(batch["image"].to(args.device)), batch["label"].to(args.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}/{args.epochs}: loss {sum(losses) / len(losses):.3f}", flush=True)

    network.eval()
    test = CacheDataset(pairs(args.test_images, args.test_masks), Compose([*load, *normalize]))
    metric, discrete = DiceMetric(), Compose([Activations(sigmoid=True), AsDiscrete(threshold=0.5)])
    infer = SlidingWindowInferer(PATCH, overlap=0.5)
    with torch.no_grad():
        for batch in DataLoader(test, batch_size=1):
            outputs = [discrete(o) for o in decollate_batch(infer(batch["image"].to(args.device), network))]
            metric(outputs, [label.to(args.device) for label in decollate_batch(batch["label"])])
    dice = metric.aggregate().item()
    print(f"mean Dice on {len(test)} test volumes: {dice:.3f}; slices of a case: {args.output / 'batch.png'}")
    return dice


if __name__ == "__main__":
    main()
