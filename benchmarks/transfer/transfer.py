r"""Which transfer comes nearest to known truth: all free controls, all estimates of the stylizer, and oracles.

    OSASIS_DATA=/path/to/data python benchmarks/transfer/transfer.py --world drive --size 64 \
        --autoencoder stylizer --work work/transfer --output benchmarks/transfer/drive_64.json

Four cameras or scanners (`worlds.py`), five references, three seeds (of the calibrator's training, of the reference's
noise and of SDEdit; one pretrained autoencoder). Everything is fitted on the sources and the one reference; the truth
of the test images (the other camera's picture of the same scene, without noise) is only compared with. Rows hold mean
CIEDE2000 (one channel: absolute difference, black to white is 100) inside the field of view, and the correlation of
gradient magnitudes with the source image.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from worlds import WORLDS, World, shrink, to_8_bit, unit

from nnunet_osasis.controls import (
    GIN,
    ColourJitter,
    FourierDomainAdaptation,
    HistogramMatching,
    HistogramShift,
    PooledReinhard,
    Reinhard,
)
from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate.structure import structure_agreement
from nnunet_osasis.images.grids import save_grid
from nnunet_osasis.maps.base import MeanMap, PixelMap
from nnunet_osasis.maps.field_of_view import own_view
from nnunet_osasis.maps.parametric import fit_images
from nnunet_osasis.runtime.records import atomic_write_json, override
from nnunet_osasis.stylizer.calibrator import Calibrator, CalibratorConfig
from nnunet_osasis.stylizer.stylizer import OSASISStylizer
from nnunet_osasis.training.calibrate import train_calibrator
from nnunet_osasis.training.presets import get_preset
from nnunet_osasis.training.pretrain import pretrain
from nnunet_osasis.training.read_out import estimate_maps, pair_maps
from nnunet_osasis.training.style_pair import StylePairConfig, make_style_pair

RANGE = (0.0, 255.0)
SIDE = 64


def difference(a: np.ndarray, b: np.ndarray, view: np.ndarray | None = None) -> float:
    """Mean colour difference of two uint8 images ``(C, H, W)`` where ``view`` ``(H, W)`` holds."""
    view = np.ones(a.shape[1:], dtype=bool) if view is None else view
    x, y = (np.moveaxis(v, 0, -1)[view] for v in (a, b))
    if a.shape[0] != 3:
        return float(np.abs(x.astype(float) - y).mean() / 2.55)
    return float(deltaE_ciede2000(rgb2lab(x), rgb2lab(y)).mean())


def controls(world: World, reference: np.ndarray, seed: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Every free control, fitted where there is something to fit."""
    channels = reference.shape[0]
    made = {
        "histogram matching": HistogramMatching(reference, value_range=RANGE),
        "Reinhard": Reinhard(reference, value_range=RANGE),
        "pooled Reinhard": PooledReinhard.fit(world.sources, reference, value_range=RANGE),
        "FDA": FourierDomainAdaptation(reference, value_range=RANGE),
        "GIN": GIN(channels, seed=seed, value_range=RANGE),
        "histogram shift": HistogramShift(channels, seed=seed, value_range=RANGE),
    }
    if channels == 3:
        made["colour jitter"] = ColourJitter(channels, seed=seed, value_range=RANGE)

    def applied(transfer) -> Callable[[np.ndarray], np.ndarray]:
        return lambda image: np.clip(np.rint(transfer.stylize_array(image)), 0, 255).astype(np.uint8)

    return {name: applied(transfer) for name, transfer in made.items()}


def styled(one: PixelMap) -> Callable[[np.ndarray], np.ndarray]:
    """A map as the stylizer applies it: frames stay."""

    def apply(image: np.ndarray) -> np.ndarray:
        x = unit(image)
        return to_8_bit(torch.where(own_view(x), one(x), x))

    return apply


def estimates(
    model: DiffusionAutoencoder,
    calibrator: Calibrator,
    sources: torch.Tensor,
    reference: np.ndarray,
    seed: int,
    makers: tuple[str, ...],
) -> dict[str, PixelMap]:
    """The stylizer's read-outs from one reference, and its pairs by other makers."""
    y = unit(shrink(reference, SIDE))
    found: dict[str, PixelMap] = {}
    for maker in makers:
        pair = make_style_pair(model, y, sources, StylePairConfig(maker=maker), seed=seed, calibrator=calibrator)
        maps, agreed = estimate_maps([y], sources, calibrator)
        maps |= pair_maps([pair])
        if maker == "prealigned_sdedit":
            found |= {name: maps[name] for name in ("moments", "pair", "calibrator", "combined")}
            found["combined, held back"] = MeanMap(maps["combined"].maps, agreed.confidence)
            found["agreement"] = agreed  # type: ignore[assignment]
        else:
            found[f"pair: {maker}"] = maps["pair"]
            found[f"combined, pair: {maker}"] = maps["combined"]
    return found


def score(world: World, camera: str, method: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
    """Distance to the truth, and structure kept, mean over the test images."""
    apart, kept = [], []
    for index, image in enumerate(world.tests):
        view = own_view(unit(image))[0, 0].numpy()
        result = method(image)
        apart.append(difference(result, world.twin(camera, "test", index, None), view))
        kept.append(float(structure_agreement(unit(result), unit(image))))
    return {"difference": round(float(np.mean(apart)), 4), "structure": round(float(np.mean(kept)), 4)}


def oracle(world: World, camera: str) -> PixelMap:
    """The best affine map there is: fitted to the truth of all test images."""
    pairs = [(shrink(x, SIDE), shrink(world.twin(camera, "test", i, None), SIDE)) for i, x in enumerate(world.tests)]
    before, after = (torch.cat([unit(pair[k]) for pair in pairs]) for k in (0, 1))
    return fit_images(before, after, own_view(before), ridge=1e-8)


def rows_of(args: argparse.Namespace, world: World, model: DiffusionAutoencoder) -> list[dict]:
    """One row per camera, reference, seed and method."""
    sources = torch.cat([unit(image) for image in world.sources])
    rows: list[dict] = []
    for seed in args.seeds:
        config = CalibratorConfig(seed=seed)
        calibrator = train_calibrator(sources, config, work=args.work / f"{args.world}_{args.size}_{seed}", resume=True)
        for camera, kind in world.cameras.items():
            several: dict[str, list[PixelMap]] = {}
            fixed = {"source": lambda image: image, "oracle affine (tests)": styled(oracle(world, camera))}
            fixed["truth"] = lambda image: image  # its own structure
            for index, name in enumerate(world.reference_names):
                noise = 100 * seed + index
                seen = world.twin(camera, "reference", index, noise)
                makers = ("prealigned_sdedit", *(("calibrator", "nearest", "sdedit") if args.pairs else ()))
                maps = estimates(model, calibrator, sources, seen, seed, makers)
                agreed = maps.pop("agreement")
                for each in ("moments", "calibrator"):
                    several.setdefault(each, []).append(maps[each])
                x, y = unit(shrink(world.references[index], SIDE)), unit(shrink(seen, SIDE))
                maps["oracle affine (reference's twin)"] = fit_images(x, y, own_view(x))
                methods = controls(world, seen, seed) | {key: styled(one) for key, one in maps.items()}
                methods |= {key: value for key, value in fixed.items() if key != "truth"}
                for method, apply in methods.items():
                    row = {"camera": camera, "kind": kind, "reference": name, "seed": seed, "method": method}
                    rows.append(row | score(world, camera, apply))
                    if method == "combined":
                        rows[-1]["agreement"] = agreed.to_json()  # type: ignore[attr-defined]
                if args.sheets and seed == args.seeds[0] and index < 2:
                    sheet(args, world, camera, index, seen, methods)
            five = MeanMap((*several["moments"], *several["calibrator"]))
            row = {"camera": camera, "kind": kind, "reference": "all five", "seed": seed, "method": "combined of five"}
            rows.append(row | score(world, camera, styled(five)))
            print(seed, camera, rows[-1], flush=True)
            write(args, world, rows)
    for camera, kind in world.cameras.items():
        kept = [
            float(structure_agreement(unit(world.twin(camera, "test", i, None)), unit(image)))
            for i, image in enumerate(world.tests)
        ]
        row = {"camera": camera, "kind": kind, "reference": "none", "seed": 0, "method": "truth", "difference": 0.0}
        rows.append(row | {"structure": round(float(np.mean(kept)), 4)})
    return rows


def sheet(args: argparse.Namespace, world: World, camera: str, index: int, seen: np.ndarray, methods: dict) -> None:
    """A contact sheet to be looked at; of real images it is never committed."""
    chosen = range(0, len(world.tests), max(1, len(world.tests) // 6))
    columns = [("source", [unit(world.tests[i])[0] for i in chosen])]
    for name in ("pooled Reinhard", "moments", "pair", "calibrator", "combined"):
        columns.append((name, [unit(methods[name](world.tests[i]))[0] for i in chosen]))
    columns.append(("truth", [unit(world.twin(camera, "test", i, None))[0] for i in chosen]))
    columns.append(("reference", [unit(seen)[0]]))
    name = f"{args.world}_{args.size}_{camera}_{world.reference_names[index]}".replace(" ", "_")
    save_grid(args.sheets / f"{name}.png", columns, title=f"{args.world}, {camera}")


def write(args: argparse.Namespace, world: World, rows: list[dict]) -> None:
    """All rows so far, with what made them."""
    facts = {
        "world": args.world, "size": args.size, "seeds": args.seeds, "sources": len(world.sources),
        "tests": len(world.tests), "cameras": list(world.cameras), "threads": torch.get_num_threads(),
        "machine": platform.machine(), "torch": torch.__version__, "autoencoder": args.origin,
    }  # fmt: skip
    atomic_write_json(args.output, {**facts, "seconds": round(time.perf_counter() - args.began), "rows": rows})


def autoencoder(args: argparse.Namespace, sources: torch.Tensor) -> DiffusionAutoencoder:
    """A stylizer's, checked to be of these sources, or one pretrained here."""
    if args.autoencoder is None:
        preset = get_preset("tiny")
        preset = override(preset, pretrain=override(preset.pretrain, iterations=args.iterations))
        args.origin = f"tiny, {args.iterations} steps on these sources"
        return pretrain(sources, preset, work=args.work / f"{args.world}_{args.size}_autoencoder", resume=True)
    stylizer = OSASISStylizer.from_pretrained(args.autoencoder)
    if stylizer.card["source_images"] != len(sources) or stylizer.in_channels != sources.shape[1]:
        raise OsasisError("The autoencoder must be of these sources", found=stylizer.card["source_images"])
    args.origin = f"tiny, {stylizer.card['pretraining']['iterations']} steps on these sources"
    return stylizer.autoencoder


def main() -> None:
    """Run one world at one size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=WORLDS, required=True)
    parser.add_argument("--size", choices=("64", "native"), default="64")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--autoencoder", help="a stylizer made on these sources; without it one is pretrained")
    parser.add_argument("--iterations", type=int, default=800, help="of that pretraining")
    parser.add_argument("--pairs", action="store_true", help="also the other pair makers")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    args.began = time.perf_counter()
    size = SIDE if args.size == "64" else None
    world = WORLDS[args.world](Path(os.environ.get("OSASIS_DATA", ".")), size, difference)
    model = autoencoder(args, torch.cat([unit(image) for image in world.sources]))
    rows = rows_of(args, world, model)
    write(args, world, rows)


if __name__ == "__main__":
    main()
