"""``osasis-pretrain-stylizer``: make a stylizer from source images and one image of the new site."""

from __future__ import annotations

import argparse
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime import command as cli
from nnunet_osasis.scripts.pretrain_options import distilled, make_parser

if TYPE_CHECKING:
    from nnunet_osasis.runtime.distributed import Processes
    from nnunet_osasis.training.build import BuildConfig
    from nnunet_osasis.training.presets import AdaptConfig, Preset


def _data(args: argparse.Namespace) -> tuple:
    """``(arrays, reference arrays, normalization schemes, window, output)`` of folder or nnU-Net mode."""
    from nnunet_osasis.images.slices import read_in_slices
    from nnunet_osasis.training.sources import folder_arrays

    if args.d is None:
        if args.images is None or args.output is None:
            raise OsasisError("Give --images and --output, or an nnU-Net dataset with -d", remedy="See --help.")
        styles = [read_in_slices(style) for style in args.style]
        return folder_arrays(args.images), styles, (), (), Path(args.output)
    from nnunet_osasis.nnunet import cases
    from nnunet_osasis.nnunet.configuration import default_stylizer_folder

    hints = cases.intensity_hints(args.d, args.c, args.p)
    keys = cases.training_keys(args.d, args.f)
    window = (min(h.percentile_00_5 for h in hints), max(h.percentile_99_5 for h in hints))
    styles = [cases.read_reference(style, args.d, args.c, args.p) for style in args.style]
    output = Path(args.output) if args.output else default_stylizer_folder(args.d, args.c)

    def arrays():
        for key, array in cases.unnormalized_cases(args.d, args.c, args.p, keys):
            yield key, (array[:, 0] if array.shape[1] == 1 else array)

    return arrays, styles, tuple(h.scheme for h in hints), window, output


def _preset(args: argparse.Namespace, output: Path, device: str, images: int, channels: int) -> Preset:
    """The preset with the command's changes; ``--minutes`` becomes a number of steps, remembered for ``--resume``."""
    from nnunet_osasis.runtime import distributed as processes
    from nnunet_osasis.runtime.records import atomic_write_json, override
    from nnunet_osasis.training.build import WORK
    from nnunet_osasis.training.presets import get_preset
    from nnunet_osasis.training.pretrain import steps_for

    preset = get_preset(args.preset)
    iterations, remembered = args.iterations, output / WORK / "minutes.json"
    config = override(
        preset.pretrain, iterations=iterations, batch_size=args.batch_size, learning_rate=args.learning_rate,
        precision=args.precision, seed=args.seed, checkpoint_every=args.checkpoint_every, grid_every=args.grid_every,
        recompute=args.recompute, compile=args.compile,
    )  # fmt: skip
    preset = replace(preset, pretrain=config)
    if args.minutes is not None and args.iterations is None:
        group = processes.current()
        iterations = group.from_main(lambda: _remembered(remembered) if args.resume else None)
        if iterations is None:
            iterations = steps_for(preset, args.minutes, channels=channels, device=device)  # all work together
            if group.is_main:
                atomic_write_json(remembered, {"iterations": iterations})
        preset = replace(preset, pretrain=override(config, iterations=iterations))
    if processes.current().is_main:
        print(f"Pretraining: {preset.pretrain.iterations} steps of {preset.pretrain.batch_size} of {images} images.")
    return preset


def _remembered(path: Path) -> int | None:
    from nnunet_osasis.runtime.records import read_json

    return int(read_json(path, what="The remembered number of steps")["iterations"]) if path.is_file() else None


def _adaptation(args: argparse.Namespace) -> AdaptConfig:
    from nnunet_osasis.runtime.records import override
    from nnunet_osasis.training.presets import get_recipe

    config = get_recipe(args.recipe)
    pair = override(config.pair, maker=args.pair)
    return override(
        config, losses=args.losses, iterations=args.adapt_iterations, learning_rate=args.adapt_learning_rate,
        precision=args.precision, seed=args.seed, pair=pair, recompute=args.recompute,
    )  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Parse, build, print where the stylizer is."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.images is not None and args.d is not None:
        parser.error("give --images or -d, not both")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from torch.nn import Identity

    from nnunet_osasis.runtime import distributed as processes
    from nnunet_osasis.runtime.compute import resolve_device
    from nnunet_osasis.runtime.records import override
    from nnunet_osasis.stylizer.calibrator import CalibratorConfig
    from nnunet_osasis.stylizer.config import StylizerConfig
    from nnunet_osasis.training.adaptation.embedders import load_clip
    from nnunet_osasis.training.build import BuildConfig, check_possible
    from nnunet_osasis.training.distil import DistilConfig
    from nnunet_osasis.training.presets import get_preset

    adaptation = _adaptation(args)  # unknown names are refused before any image is read
    calibration = override(CalibratorConfig(seed=args.seed), iterations=args.calibrator_iterations)
    distillation = override(DistilConfig(distilled(args), seed=args.seed), iterations=args.distil_iterations)
    device = resolve_device(args.device)
    config = BuildConfig(
        args.preset, get_preset(args.preset), adaptation, calibration, args.readout,
        hold_back=args.hold_back, detail=args.detail, clip=args.clip, device=device, distil=distillation,
    )  # fmt: skip
    check_possible(config, references=len(args.style))
    StylizerConfig(readout=args.readout)
    if adaptation.pair.maker == "file" and args.style_source_image is None:
        raise OsasisError(
            "--pair file needs --style-source-image", found="none", remedy="Name the reference as the source shows it."
        )
    if args.clip is not None:  # once now, so that hours of pretraining do not end in a wrong name
        load_clip(args.clip, Identity())  # type: ignore[arg-type]
    with processes.joined(device) as group:
        if not group.is_main:
            logging.getLogger().setLevel(logging.WARNING)
        _build(args, config, group)


def _build(args: argparse.Namespace, config: BuildConfig, group: Processes) -> None:
    """Read the images and make the stylizer, with the other processes if there are any."""
    from nnunet_osasis.gate.calibration import EvenlySpaced
    from nnunet_osasis.images.intensity import IntensityRange
    from nnunet_osasis.runtime.locks import output_lock
    from nnunet_osasis.runtime.storage import clear_leftovers, ensure_writable
    from nnunet_osasis.stylizer.one_pass import one_pass_facts
    from nnunet_osasis.stylizer.serialization import is_stylizer_folder
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer
    from nnunet_osasis.training.build import WORK, StylizerBuild, lent_calibrator
    from nnunet_osasis.training.presets import get_preset
    from nnunet_osasis.training.sources import load_counterpart, load_reference, load_sources

    size = get_preset(args.preset).model["sample_size"]
    arrays, styles, schemes, window, output = _data(args)
    wanted = IntensityRange("fixed", *args.intensity_range) if args.intensity_range else None
    given = OSASISStylizer.from_pretrained(args.from_stylizer) if args.from_stylizer else None
    if given is not None:
        size, wanted = given.size, wanted or given.config.intensity
    if given is not None and given.size != get_preset(args.preset).model["sample_size"]:
        raise OsasisError(
            "--from-stylizer must have the size of the preset",
            found=f"{given.size} px for --preset {args.preset}",
            remedy="Give the --preset it was made with.",
        )
    details: list = []
    spread = EvenlySpaced()
    sources, intensity = load_sources(
        arrays, size, intensity=wanted, schemes=schemes, window=window, max_images=args.max_images, details=details,
        gate_images=spread,
    )  # fmt: skip
    channels = sources.shape[1]
    if given is not None and given.in_channels != channels:
        raise OsasisError("--from-stylizer must have the images' channels", found=f"{given.in_channels} for {channels}")
    references = [
        load_reference(array, channels, intensity, name=f"the reference {name}")
        for array, name in zip(styles, args.style, strict=True)
    ]
    counterpart = None
    if args.style_source_image is not None:
        counterpart = load_counterpart(args.style_source_image, channels, intensity, size)

    def prepare_output() -> None:
        clear_leftovers(output.parent)
        if args.overwrite:
            if (output / WORK).is_dir():
                shutil.rmtree(output / WORK)
            (output / "stylizer.json").unlink(missing_ok=True)
        elif is_stylizer_folder(output) and not args.resume:
            raise OsasisError(
                "The output folder must not hold another stylizer",
                found=f"a finished stylizer in {output}",
                remedy="Choose another --output, or add --overwrite to replace it.",
            )
        ensure_writable(output)

    with group.on_main(lambda: output_lock(output, "osasis-pretrain-stylizer")):
        group.from_main(prepare_output)
        preset = _preset(args, output, config.device, len(sources), channels)
        build = StylizerBuild(
            replace(config, preset=preset), sources, references[0], intensity, output,
            more_references=references[1:],
            details=details,
            gate_images=spread.kept,
            autoencoder=given.autoencoder if given and given.has_networks else None,
            calibrator=lent_calibrator(given, sources),
            counterpart=counterpart,
            tensorboard=output / WORK / "tensorboard" if args.tensorboard else None,
        )  # fmt: skip
        made = build.run(resume=args.resume)
    if group.is_main:
        one_pass = ", ".join(one_pass_facts(made)["readouts"]) or "no read-out"
        print(f"Stylizer: {output}\nPictures: {output / WORK / 'grid_stylized.png'}\nIn one pass: {one_pass}")


def entry() -> None:
    """Console entry point."""
    cli.run_command(main)


if __name__ == "__main__":
    entry()
