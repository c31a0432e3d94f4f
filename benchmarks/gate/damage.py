"""How much damage does the structure gate find, and how often does it cry wolf? On images it was not calibrated on.

    python benchmarks/gate/damage.py --images TEST/images --masks TEST/masks --stylizer STYLIZER --output clinicdb.json
    python benchmarks/gate/damage.py --phantom bowel --output bowel.json      # or mr

Real images: stylized by the stylizer (undamaged, for all that can be known) and by random cameras (undamaged for
certain); the gate has the stylizer's own thresholds, measured on its training images. Phantoms: scenes of one
scanner; undamaged is the other scanner's picture of the same scene, and the gate is calibrated on other scenes.
Then every undamaged image is damaged in every way of nnunet_osasis.gate.damage, in and around its real lesion mask, and
scored with and without that mask.

``--lesions small`` instead draws a second, small lesion into every image, of every size and contrast in turn, away from
the first; a random camera shows the picture with it (undamaged) and without it (erased down to the tissue under it).
The source shows it if what was drawn stands out of the tissue and its texture by a Fisher distance of at least 1; a
lesion drawn into a highlight that is white already does not. ``--seed`` draws others.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from tqdm import tqdm

from nnunet_osasis.gate import GateThresholds, calibrate_gate, lesions, score_structure
from nnunet_osasis.gate.calibration import without_mask
from nnunet_osasis.gate.damage import KINDS
from nnunet_osasis.gate.local import SIGMA_PX, smooth
from nnunet_osasis.images.image import image_stem
from nnunet_osasis.images.intensity import to_unit
from nnunet_osasis.images.io import list_images, read_image
from nnunet_osasis.maps.parametric import places
from nnunet_osasis.runtime.compute import generator_for
from nnunet_osasis.runtime.records import atomic_write_json
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.synthetic import known_camera as camera
from nnunet_osasis.synthetic.acquisition import family_for
from nnunet_osasis.synthetic.phantom.anatomy import draw_anatomy
from nnunet_osasis.synthetic.phantom.scanner import SCANNER_A, SCANNER_B
from nnunet_osasis.synthetic.phantoms import render_pair

Case = tuple[str, np.ndarray, dict[str, np.ndarray], np.ndarray]
"""Name, source ``(C, H, W)`` in [-1, 1], undamaged versions by name, mask ``(H, W)``."""


def random_camera(unit: np.ndarray, index: int) -> np.ndarray:
    """The image through an acquisition that no calibration drew (another stream of random numbers)."""
    family, generator = family_for("auto", len(unit)), generator_for(1, index, stream=8)
    flat = torch.from_numpy(unit)[None].flatten(2)
    shown = family.show(flat, places(*unit.shape[1:]).flatten(1)[None], family.sample(1, len(unit), generator))
    return shown.view(unit.shape).numpy()


def known_camera(array: np.ndarray, index: int) -> np.ndarray:
    """An 8-bit image as a camera model with noise, sharpening and JPEG takes it, blurred by at most half a pixel."""
    drawn = camera.random_camera(index)
    sharp = replace(drawn.camera, blur=min(drawn.camera.blur, 0.5 / array.shape[2]))
    shown = replace(drawn, camera=sharp, frame=1.0).shoot(array.astype(np.uint8), noise_seed=index)
    return shown.astype(np.float32) / 127.5 - 1


def real_cases(images: Path, masks: Path, stylizer: OSASISStylizer, most: int) -> Iterator[Case]:
    """Evenly spaced images of a folder whose masks show a lesion."""
    by_stem = {image_stem(path): path for path in list_images(masks)}
    files = [path for path in list_images(images) if image_stem(path) in by_stem]
    for index in np.unique(np.linspace(0, len(files) - 1, most).round().astype(int)):
        array = read_image(files[index]).array
        mask = read_image(by_stem[image_stem(files[index])]).array.max(axis=0) > 127
        if not mask.any():
            continue
        bounds = stylizer.config.intensity.bounds(array)
        unit = to_unit(array, bounds)
        good = {
            "stylized": to_unit(np.rint(stylizer.stylize_array(array)).clip(0, 255), bounds),
            "random_camera": random_camera(unit, int(index)),
            "known_camera": known_camera(array, int(index)),
        }
        yield files[index].name, unit, good, mask


def phantom_cases(kind: str, count: int, stylizer: OSASISStylizer | None) -> Iterator[Case]:
    """Scenes by two scanners, the second one's picture free of noise; with a stylizer also what that makes of them."""
    if kind == "bowel":
        for seed in range(count):
            image_a, _, mask = render_pair(20_000 + seed, 128)
            _, truth, _ = render_pair(20_000 + seed, 128, noise=False)
            unit, shown = (np.moveaxis(i, -1, 0).astype(np.float32) / 127.5 - 1 for i in (image_a, truth))
            yield (
                f"scene {seed}",
                unit,
                {"true_second_scanner": shown, "random_camera": random_camera(unit, seed)},
                mask > 0,
            )
        return
    for seed in range(count):
        body = draw_anatomy(5_000 + seed, (12, 128, 128))
        scans = [SCANNER_A.acquire(body, noise_seed=seed), SCANNER_B.acquire(body)]
        chosen = int(body.mask.sum(axis=(1, 2)).argmax())
        units = []
        for scan in scans:
            low, high = np.percentile(scan, [0.5, 99.5])
            units.append(to_unit(scan[:, chosen], (float(low), float(high))))
        good = {"true_second_scanner": units[1], "random_camera": random_camera(units[0], seed)}
        if stylizer is not None:
            low, high = np.percentile(scans[0], [0.5, 99.5])
            restyled = stylizer.stylize_array(scans[0])[:, chosen]
            good = {"stylized": to_unit(restyled, (float(low), float(high))), **good}
        yield f"body {seed}", units[0], good, body.mask[chosen] > 0


def phantom_thresholds(kind: str) -> GateThresholds:
    """From scenes that :func:`phantom_cases` never shows."""
    if kind == "bowel":
        scenes = [np.moveaxis(render_pair(30_000 + s, 128)[0], -1, 0).astype(np.float32) / 127.5 - 1 for s in range(16)]
        return calibrate_gate(scenes)
    units = []
    for seed in range(16):
        scan = SCANNER_A.acquire(draw_anatomy(6_000 + seed, (12, 128, 128)), noise_seed=seed)
        low, high = np.percentile(scan, [0.5, 99.5])
        units.append(to_unit(scan[:, 6], (float(low), float(high))))
    return calibrate_gate(units)


def measure(cases: Iterator[Case], total: int, thresholds: GateThresholds) -> dict[str, Any]:
    """Scores and decisions of every undamaged and every damaged version, and their shares."""
    rows: list[dict[str, Any]] = []
    for index, (name, unit, good, mask) in enumerate(tqdm(cases, total=total, desc="damage", unit="image")):
        rng = np.random.default_rng([7, index])
        labels = mask.astype(np.uint8)
        first = next(iter(good))
        versions = [(first if key == first else key, "none", image) for key, image in good.items()]
        versions += [(first, kind, damage(good[first].astype(np.float64), mask, rng)) for kind, damage in KINDS.items()]
        for version, kind, image in versions:
            found = score_structure(unit, image.astype(np.float32), labels)
            rows.append({
                "case": name, "version": version, "damage": kind, "scores": found.values(), "lesions": found.lesions,
                "fails_without_mask": bool(found.failures(without_mask(thresholds.least))),
                "fails_with_mask": bool(found.failures(thresholds.least)),
            })  # fmt: skip
    shares: dict[str, dict[str, float]] = {}
    for version, kind in sorted({(row["version"], row["damage"]) for row in rows}):
        some = [row for row in rows if (row["version"], row["damage"]) == (version, kind)]
        shares[f"{version}, {'undamaged' if kind == 'none' else kind}"] = {
            "images": len(some),
            "fail_without_mask": round(float(np.mean([row["fails_without_mask"] for row in some])), 4),
            "fail_with_mask": round(float(np.mean([row["fails_with_mask"] for row in some])), 4),
        }
    return {"shares": shares, "rows": rows}


SIZES_PX, CONTRASTS = (25, 49, 81, 169, 400), (8, 16, 32, 64)


def drawn_lesion(
    image: np.ndarray, mask: np.ndarray, size: int, contrast: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """The image with a soft disc of ``size`` pixels, so many gray levels brighter, in tissue; and the disc."""
    radius = np.sqrt(size / np.pi)
    room = ndimage.distance_transform_edt(np.pad(~mask, 1))[1:-1, 1:-1] > radius + 12
    inside = np.flatnonzero(room & (ndimage.gaussian_filter(image.mean(axis=0), 4) > -0.7))
    if not len(inside):
        return None
    center = np.ones_like(mask)
    center.flat[rng.choice(inside)] = False
    disc = np.zeros_like(mask)
    disc.flat[np.argsort(ndimage.distance_transform_edt(center), axis=None, kind="stable")[:size]] = True
    color = rng.uniform(0.6, 1.2, (len(image), 1, 1))
    soft = ndimage.gaussian_filter(disc.astype(np.float64), 0.6) * color / color.mean()
    return np.clip(image + contrast / 127.5 * soft, -1, 1).astype(np.float32), disc


SHOWN = 1.0
"""Fisher distance between what was drawn and the tissue around it from which the source shows a lesion."""


def drawn_contrast(source: np.ndarray, tissue: np.ndarray, disc: np.ndarray) -> float:
    """Length of what was drawn, blurred as the gate sees it, in units of the spread of the tissue in and around it."""
    reach = np.clip(round(0.8 * np.sqrt(disc.sum() / np.pi)), 3, lesions.MAX_REACH_PX)
    near = ndimage.distance_transform_edt(~disc) <= reach
    shape = ndimage.gaussian_filter(disc.astype(np.float64), SIGMA_PX)[near]
    with_it, without = (smooth(image[None])[0].double().numpy()[:, near] for image in (source, tissue))
    apart = lesions.contrast_to_noise(with_it - without, shape)[1]
    spread = np.cov(without, bias=True) + lesions.QUIET**2 * np.eye(len(without))
    return float(np.sqrt(apart @ np.linalg.solve(spread, apart)))


def small_lesions(cases: Iterator[Case], total: int, thresholds: GateThresholds, seed: int) -> dict[str, Any]:
    """Decisions about every size and contrast, through cameras of this and of another resolution and noise in turn."""
    rows: list[dict[str, Any]] = []
    least, family = thresholds.least, family_for("camera", 3)
    for index, (name, tissue, _, mask) in enumerate(tqdm(cases, total=total, desc="lesions", unit="image")):
        rng, generator = np.random.default_rng([9, seed, index]), generator_for(3 + seed, index, stream=8)
        where = places(*tissue.shape[1:]).flatten(1)[None]
        for number, (size, contrast) in enumerate((s, c) for s in SIZES_PX for c in CONTRASTS):
            drawn = drawn_lesion(tissue, mask, size, contrast, rng)
            if drawn is None:
                continue
            source, disc = drawn
            drawings = [family.sample(1, len(tissue), generator, 0.5) for _ in range(2)]
            detail = family.sample(1, len(tissue), generator)
            degraded, found = bool((index + number) % 2), {}
            for version, image in (("undamaged", source), ("erased", tissue)):
                flat = torch.from_numpy(np.ascontiguousarray(image))[None]
                shown = family.show(flat.flatten(2), where, drawings[0]).view(flat.shape)
                shown = (family.degrade(shown, detail, generator) if degraded else shown)[0].numpy()
                stored = np.rint((shown + 1) * 127.5).astype(np.float32) / np.float32(127.5) - 1
                found[version] = score_structure(source, stored, mask + 2 * disc.astype(np.uint8))
            rows.append({
                "case": name, "size": size, "contrast": contrast, "degraded": degraded,
                "drawn": round(drawn_contrast(source, tissue, disc), 3),
                **{f"{version}_scores": scores.values() for version, scores in found.items()},
                **{f"{version}_fails": bool(scores.failures(least)) for version, scores in found.items()},
                **{f"{v}_fails_without_mask": bool(s.failures(without_mask(least))) for v, s in found.items()},
            })  # fmt: skip
    return {"shares": share_of_lesions(rows), "rows": rows}


def share_of_lesions(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By size and contrast, and of all that the source shows: how many are shown, found, and false alarms."""
    groups = {f"{size} px, {level} levels": [r for r in rows if (r["size"], r["contrast"]) == (size, level)]
              for size in SIZES_PX for level in CONTRASTS}  # fmt: skip
    for degraded in (False, True):
        title = "all, another resolution and noise" if degraded else "all, colors only"
        groups[title] = [row for row in rows if row["degraded"] == degraded]
    shares = {}
    for title, group in (groups | {"all": rows}).items():
        shown = [row for row in group if row["drawn"] >= SHOWN]

        def share(name: str, some: list[dict[str, Any]] = shown) -> float:
            return round(float(np.mean([row[name] for row in some])), 4) if some else 0.0

        shares[title] = {
            "lesions": len(group), "shown": len(shown), "found": share("erased_fails"),
            "found_without_mask": share("erased_fails_without_mask"), "false_alarms": share("undamaged_fails"),
            "false_alarms_without_mask": share("undamaged_fails_without_mask"),
        }  # fmt: skip
    return shares


def main() -> None:
    """Measure one world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--stylizer")
    parser.add_argument("--phantom", choices=("bowel", "mr"))
    parser.add_argument("--lesions", choices=("own", "small"), default="own")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn lesions")
    parser.add_argument("--count", type=int, default=200, help="images at most")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.phantom:
        stylizer = OSASISStylizer.from_pretrained(args.stylizer) if args.stylizer else None
        thresholds, cases = phantom_thresholds(args.phantom), phantom_cases(args.phantom, args.count, stylizer)
        world: dict[str, Any] = {"phantom": args.phantom, "readout": stylizer.config.readout if stylizer else None}
    else:
        stylizer = OSASISStylizer.from_pretrained(args.stylizer)
        if stylizer.gate is None:
            parser.error("the stylizer must have a gate: make it anew")
        thresholds, cases = stylizer.gate, real_cases(args.images, args.masks, stylizer, args.count)
        world = {"readout": stylizer.config.readout, "stylizer": stylizer.fingerprint}
    small = args.lesions == "small"
    found = small_lesions(cases, args.count, thresholds, args.seed) if small else measure(cases, args.count, thresholds)
    facts = {"world": world, "thresholds": thresholds.to_json(), "python": platform.python_version(), "device": "cpu"}
    atomic_write_json(args.output, facts | {"torch": torch.__version__, "numpy": np.__version__} | found)
    print(json.dumps(found["shares"], indent=2))


if __name__ == "__main__":
    main()
