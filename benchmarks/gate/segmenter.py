"""Does a frozen segmenter see the same lesions before and after stylization, on images that passed the gate?

    python benchmarks/gate/segmenter.py --images IMAGES --masks MASKS --test-from 409 --stylizer DIR --output x.json

A small U-Net (the light engine of osasis-report) is trained on the images before ``--test-from`` (the number in their
names), half of them seen through random cameras, so that it goes by structure and not by one camera's colours. It is
then frozen and asked about every later image, original and stylized: without a gate, with the gate, and with the gate
that asks this segmenter too.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from tqdm import tqdm

from nnunet_osasis.evaluation.experiment.config import Budget, NetworkSpec
from nnunet_osasis.evaluation.experiment.light import TrainingSet, predict, train
from nnunet_osasis.gate import StructureGate
from nnunet_osasis.images.image import image_stem
from nnunet_osasis.images.io import list_images, read_image
from nnunet_osasis.maps.parametric import places
from nnunet_osasis.maps.resize import resize
from nnunet_osasis.runtime.compute import generator_for
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.synthetic.acquisition import family_for

SIDE = 160


def reduced(array: np.ndarray) -> np.ndarray:
    """``(C, H, W)`` at ``SIDE`` pixels along the longer side."""
    scale = SIDE / max(array.shape[1:])
    size = (round(array.shape[1] * scale), round(array.shape[2] * scale))
    return resize(torch.from_numpy(array.astype(np.float32))[None], size)[0].numpy()


def through_a_camera(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random acquisition of an image ``(C, H, W)`` in 0 to 255."""
    family, generator = family_for("auto", len(image)), generator_for(0, int(rng.integers(2**30)), stream=9)
    flat = torch.from_numpy(image.astype(np.float32) / 127.5 - 1)[None].flatten(2)
    shown = family.show(flat, places(*image.shape[1:]).flatten(1)[None], family.sample(1, len(image), generator))
    return (shown.view(image.shape).numpy() + 1) * 127.5


class Frozen:
    """The trained network as the gate's segmenter, at ``SIDE`` pixels."""

    fingerprint = "light u-net"

    def __init__(self, network: torch.nn.Module, budget: Budget) -> None:
        self.network, self.budget = network, budget

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Labels of ``(C, H, W)`` in 0 to 255."""
        picture = np.rint(reduced(array)).clip(0, 255).astype(np.uint8)
        found = predict(self.network, {"x": picture}, self.budget)["x"].astype(np.float32)
        return (resize(torch.from_numpy(found)[None, None], array.shape[1:])[0, 0].numpy() > 127).astype(np.uint8)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """1 where neither map has anything."""
    either = (a | b).sum()
    return float((a & b).sum() / either) if either else 1.0


def lost(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> tuple[int, int]:
    """True lesions that the segmenter finds in the original, and those of them that it no longer finds at all."""
    labels, count = ndimage.label(mask)
    found = [k for k in range(1, count + 1) if before[labels == k].any()]
    return len(found), sum(not after[labels == k].any() for k in found)


def main() -> None:
    """Train, freeze, ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--test-from", type=int, required=True)
    parser.add_argument("--stylizer", required=True)
    parser.add_argument("--readout", help="another read-out than the stylizer's, by the same thresholds")
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--count", type=int, default=200, help="test images at most")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    masks = {image_stem(path): path for path in list_images(args.masks)}
    files = sorted(list_images(args.images), key=lambda path: int("".join(filter(str.isdigit, path.stem))))
    number = [int("".join(filter(str.isdigit, path.stem))) for path in files]
    training = [path for path, n in zip(files, number, strict=True) if n < args.test_from]
    test = [path for path, n in zip(files, number, strict=True) if n >= args.test_from]
    test = [test[i] for i in np.unique(np.linspace(0, len(test) - 1, args.count).round().astype(int))]

    def mask_of(path: Path) -> np.ndarray:
        return read_image(masks[image_stem(path)]).array.max(axis=0, keepdims=True) > 127

    budget = Budget(side=SIDE, patch=SIDE, iterations=args.iterations, batch_size=6)
    data = TrainingSet(
        images=[np.rint(reduced(read_image(path).array)).clip(0, 255).astype(np.uint8) for path in training],
        masks=[(reduced(mask_of(path)) > 0.5)[0].astype(np.uint8) for path in training],
        augment=through_a_camera,
    )
    network, spent = train(NetworkSpec(name="unet"), data, budget, seed=0)
    segmenter, stylizer = Frozen(network, budget), OSASISStylizer.from_pretrained(args.stylizer)
    if args.readout:
        stylizer = stylizer.configured(readout=args.readout)
    if stylizer.gate is None:
        parser.error("the stylizer must have a gate: make it anew")
    gates = {
        "no gate": None,
        "gate": StructureGate(stylizer.gate, stylizer.config.intensity),
        "gate with the segmenter": StructureGate(stylizer.gate, stylizer.config.intensity, segmenter),
    }
    rows: list[dict[str, Any]] = []
    for path in tqdm(test, desc="segment", unit="image"):
        source, mask = read_image(path).array, mask_of(path)[0]
        before = segmenter(source)
        changed = np.rint(stylizer.stylize_array(source, strength=1.0)).clip(0, 255)
        for name, gate in gates.items():
            result = gate(source, changed, 1.0, mask.astype(np.uint8)) if gate else None
            image = changed if result is None else result.image
            after = segmenter(image)
            found, gone = lost(before, after, mask)
            rows.append({
                "case": path.name, "gate": name, "decision": result.decision.outcome if result else "full",
                "strength": result.decision.strength if result else 1.0, "iou": round(iou(before, after), 4),
                "iou_with_truth": round(iou(before, mask.astype(np.uint8)), 4), "lesions_found": found,
                "lesions_lost": gone, "scores": result.decision.scores if result else {},
            })  # fmt: skip
    summary = {}
    for name in gates:
        some = [row for row in rows if row["gate"] == name]
        used = [row for row in some if row["decision"] != "original"]
        summary[name] = {
            "images": len(some),
            "decisions": {
                kind: sum(row["decision"] == kind for row in some) for kind in ("full", "weaker", "original")
            },
            "mean_iou_of_used": round(float(np.mean([row["iou"] for row in used])), 4),
            "share_of_used_with_iou_095": round(float(np.mean([row["iou"] >= 0.95 for row in used])), 4),
            "mean_strength_of_used": round(float(np.mean([row["strength"] for row in used])), 3),
            "lesions_found_before": sum(row["lesions_found"] for row in used),
            "lesions_lost": sum(row["lesions_lost"] for row in used),
        }
    facts = {"python": platform.python_version(), "torch": torch.__version__, "device": "cpu"}
    facts |= {"training": {"images": len(training), **spent}, "readout": stylizer.config.readout}
    atomic_write_json(args.output, facts | {"summary": summary, "rows": rows})
    print(summary)


if __name__ == "__main__":
    main()
