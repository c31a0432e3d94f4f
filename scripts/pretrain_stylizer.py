"""``osasis-pretrain-stylizer``: make a stylizer from source images and one image of the new site."""

from __future__ import annotations

import argparse
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_osasis import cli
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.readout_names import READOUTS

if TYPE_CHECKING:
    from nnunet_osasis.adapt import AdaptConfig
    from nnunet_osasis.presets import Preset

EXAMPLES = """examples:
  osasis-pretrain-stylizer --images site_a/images --style site_b/one.png --output stylizer
  osasis-pretrain-stylizer -d 501 -c 2d --style site_b/one.png        (for nnUNetTrainerOSASIS)
  osasis-pretrain-stylizer --images a --style b.png --output stylizer --resume      (after an interruption)
  osasis-pretrain-stylizer --images a --style c.png --output stylizer_c --from-stylizer stylizer
                                             (another reference, the same source images: skips pretraining)

The reference image is all that is used of the new site: no masks, no other image. Nothing is downloaded."""


def make_parser() -> argparse.ArgumentParser:
    """All options of the command."""
    parser = argparse.ArgumentParser(
        prog="osasis-pretrain-stylizer",
        description=__doc__.split(": ", 1)[1],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    where = parser.add_argument_group("data")
    where.add_argument("--images", metavar="DIR", help="folder of source images: PNG, JPEG, TIFF, NIfTI, MHA")
    where.add_argument(
        "--style", metavar="IMAGE", required=True, nargs="+",
        help="the one reference image of the target domain; of several, the first is adapted to and all are averaged",
    )  # fmt: skip
    where.add_argument("--output", metavar="DIR", help="stylizer folder to write (nnU-Net: where its trainer looks)")
    where.add_argument("-d", metavar="DATASET", help="nnU-Net dataset id or name, instead of --images")
    where.add_argument("-c", metavar="CONFIGURATION", default="2d", help="nnU-Net configuration (default: 2d)")
    where.add_argument("-p", metavar="PLANS", default="nnUNetPlans", help="nnU-Net plans (default: nnUNetPlans)")
    where.add_argument("-f", metavar="FOLD", default="all", help="use this fold's training cases only (default: all)")
    where.add_argument("--max-images", type=cli.positive_int, default=4000, help="of more, take evenly spaced ones")
    where.add_argument(
        "--intensity-range", type=float, nargs=2, metavar=("LOW", "HIGH"),
        help="native values that become black and white (default: from the images)",
    )  # fmt: skip
    how = parser.add_argument_group("training")
    how.add_argument("--preset", default="tiny", help="tiny (64 px, CPU), small (128 px), base (256 px, DiffAE's size)")
    how.add_argument("--recipe", default="default", help="default, or osasis: the published adaptation as it runs")
    how.add_argument("--losses", help="osasis or paper (eqs. 10-13); default: the recipe's")
    how.add_argument("--iterations", type=cli.positive_int, help="pretraining steps (default: the preset's)")
    how.add_argument(
        "--minutes", type=cli.positive_number, help="pretraining steps that fit this time, measured once at the start"
    )
    how.add_argument("--batch-size", type=cli.positive_int)
    how.add_argument("--learning-rate", type=cli.positive_number)
    how.add_argument("--adapt-iterations", type=cli.positive_int)
    how.add_argument("--adapt-learning-rate", type=cli.positive_number)
    how.add_argument(
        "--pair", help="how the style pair is made: prealigned_sdedit, calibrator, sdedit, nearest or file"
    )
    how.add_argument(
        "--style-source-image", metavar="IMAGE", help="with --pair file: the reference as the source shows it"
    )
    how.add_argument("--readout", default="combined", help=f"{', '.join(READOUTS)} (default: combined)")
    how.add_argument(
        "--calibrator-iterations", type=cli.whole_number, metavar="N",
        help="training steps of the calibrator; 0 leaves it out",
    )  # fmt: skip
    how.add_argument("--hold-back", action="store_true", help="weaken combined as far as its estimates disagree")
    how.add_argument("--detail", action="store_true", help="the stylizer also carries over sharpness and noise")
    how.add_argument("--clip", metavar="DIR|MODEL:TAG", help="open_clip weights on this machine as the style embedder")
    how.add_argument("--from-stylizer", metavar="DIR", help="take another stylizer's autoencoder and calibrator")
    how.add_argument("--precision", help="auto (bf16 where the hardware has it), fp32 or bf16")
    how.add_argument("--seed", type=cli.seed_number, default=0)
    cli.add_device(how)
    running = parser.add_argument_group("running")
    running.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    running.add_argument("--overwrite", action="store_true", help="replace a stylizer or an unfinished run")
    running.add_argument("--tensorboard", action="store_true", help="also write TensorBoard events")
    running.add_argument("--checkpoint-every", type=cli.positive_int, help="pretraining steps between checkpoints")
    running.add_argument("--grid-every", type=cli.positive_int, help="pretraining steps between sample grids")
    return parser


def _data(args: argparse.Namespace) -> tuple:
    """``(arrays, reference arrays, normalization schemes, window, output)`` of folder or nnU-Net mode."""
    from nnunet_osasis.sources import folder_arrays, read_in_slices

    if args.d is None:
        if args.images is None or args.output is None:
            raise OsasisError("Give --images and --output, or an nnU-Net dataset with -d", remedy="See --help.")
        styles = [read_in_slices(style) for style in args.style]
        return folder_arrays(args.images), styles, (), (), Path(args.output)
    from nnunet_osasis.nnunet import cases

    hints = cases.intensity_hints(args.d, args.c, args.p)
    keys = cases.training_keys(args.d, args.f)
    window = (min(h.percentile_00_5 for h in hints), max(h.percentile_99_5 for h in hints))
    styles = [cases.read_reference(style, args.d, args.c, args.p) for style in args.style]
    output = Path(args.output) if args.output else cases.default_stylizer_folder(args.d, args.c)

    def arrays():
        for key, array in cases.unnormalized_cases(args.d, args.c, args.p, keys):
            yield key, (array[:, 0] if array.shape[1] == 1 else array)

    return arrays, styles, tuple(h.scheme for h in hints), window, output


def _preset(args: argparse.Namespace, output: Path, device: str, images: int, channels: int) -> Preset:
    """The preset with the command's changes; ``--minutes`` becomes a number of steps, remembered for ``--resume``."""
    from nnunet_osasis.build import WORK
    from nnunet_osasis.presets import get_preset, override
    from nnunet_osasis.speed import steps_for
    from nnunet_osasis.storage import atomic_write_json, read_json

    preset = get_preset(args.preset)
    iterations, remembered = args.iterations, output / WORK / "minutes.json"
    config = override(
        preset.pretrain, iterations=iterations, batch_size=args.batch_size, learning_rate=args.learning_rate,
        precision=args.precision, seed=args.seed, checkpoint_every=args.checkpoint_every, grid_every=args.grid_every,
    )  # fmt: skip
    preset = replace(preset, pretrain=config)
    if args.minutes is not None and args.iterations is None:
        if args.resume and remembered.is_file():
            iterations = int(read_json(remembered, what="The remembered number of steps")["iterations"])
        else:
            iterations = steps_for(preset, args.minutes, channels=channels, device=device)
            atomic_write_json(remembered, {"iterations": iterations})
        preset = replace(preset, pretrain=override(config, iterations=iterations))
    print(f"Pretraining: {preset.pretrain.iterations} steps of {preset.pretrain.batch_size} of {images} images.")
    return preset


def _adaptation(args: argparse.Namespace) -> AdaptConfig:
    from nnunet_osasis.adapt import get_recipe
    from nnunet_osasis.presets import override

    config = get_recipe(args.recipe)
    pair = override(config.pair, maker=args.pair)
    return override(
        config, losses=args.losses, iterations=args.adapt_iterations, learning_rate=args.adapt_learning_rate,
        precision=args.precision, seed=args.seed, pair=pair,
    )  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Parse, build, print where the stylizer is."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.images is not None and args.d is not None:
        parser.error("give --images or -d, not both")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from torch.nn import Identity

    from nnunet_osasis.build import WORK, StylizerBuild
    from nnunet_osasis.build_config import BuildConfig, check_possible, lent_calibrator
    from nnunet_osasis.calibrator import CalibratorConfig
    from nnunet_osasis.gate.calibration import EvenlySpaced
    from nnunet_osasis.intensity import IntensityRange
    from nnunet_osasis.leftovers import clear_leftovers
    from nnunet_osasis.locks import output_lock
    from nnunet_osasis.presets import get_preset, override
    from nnunet_osasis.sources import load_counterpart, load_reference, load_sources
    from nnunet_osasis.storage import ensure_writable
    from nnunet_osasis.style.embedders import load_clip
    from nnunet_osasis.stylizer import OSASISStylizer, StylizerConfig
    from nnunet_osasis.stylizer_folder import is_stylizer_folder

    size = get_preset(args.preset).model["sample_size"]
    adaptation = _adaptation(args)  # unknown names are refused before any image is read
    calibration = override(CalibratorConfig(seed=args.seed), iterations=args.calibrator_iterations)
    wanted_settings = BuildConfig(args.preset, get_preset(args.preset), adaptation, calibration, args.readout)
    check_possible(wanted_settings, references=len(args.style))
    StylizerConfig(readout=args.readout)
    if adaptation.pair.maker == "file" and args.style_source_image is None:
        raise OsasisError("--pair file needs --style-source-image", found="none")
    if args.clip is not None:  # once now, so that hours of pretraining do not end in a wrong name
        load_clip(args.clip, Identity())  # type: ignore[arg-type]
    device = cli.resolve_device(args.device)
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
    with output_lock(output, "osasis-pretrain-stylizer"):
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
        preset = _preset(args, output, device, len(sources), channels)
        config = BuildConfig(
            args.preset, preset, adaptation, calibration, args.readout,
            hold_back=args.hold_back, detail=args.detail, clip=args.clip, device=device,
        )  # fmt: skip
        build = StylizerBuild(
            config, sources, references[0], intensity, output,
            more_references=references[1:],
            details=details,
            gate_images=spread.kept,
            autoencoder=given.autoencoder if given else None,
            calibrator=lent_calibrator(given, sources),
            counterpart=counterpart,
            tensorboard=output / WORK / "tensorboard" if args.tensorboard else None,
        )  # fmt: skip
        build.run(resume=args.resume)
    print(f"Stylizer: {output}\nPictures: {output / WORK / 'grid_stylized.png'}")


def entry() -> None:
    """Console entry point."""
    cli.run_command(main)


if __name__ == "__main__":
    entry()
