"""``osasis-pretrain-stylizer``: make a stylizer from source images and one image of the new site."""

from __future__ import annotations

import argparse
import logging
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime import command as cli
from nnunet_osasis.scripts.pretrain_options import make_parser, settings_for

if TYPE_CHECKING:
    import numpy as np

    from nnunet_osasis.runtime.distributed import Processes
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer
    from nnunet_osasis.training.build import BuildConfig
    from nnunet_osasis.training.presets import Preset
    from nnunet_osasis.training.sources import NamedArrays


@dataclass(frozen=True)
class Data:
    """What the command reads and where it writes.

    Attributes:
        arrays: opens a pass over the source images.
        styles: reference images in native units.
        output: the stylizer's folder.
        usage: the command line that uses the stylizer.
        schemes: nnU-Net's normalization schemes, in dataset mode.
        window: lowest and highest percentile of the dataset, in dataset mode.
    """

    arrays: NamedArrays
    styles: Sequence[np.ndarray]
    output: Path
    usage: str
    schemes: Sequence[str] = ()
    window: Sequence[float] = ()


def _data(args: argparse.Namespace) -> Data:
    """Find the data of folder mode (``--images``) or nnU-Net mode (``-d``)."""
    from nnunet_osasis.images.slices import read_in_slices
    from nnunet_osasis.training.sources import folder_arrays

    if args.d is None:
        if args.images is None or args.output is None:
            raise OsasisError("Give --images and --output, or an nnU-Net dataset with -d", remedy="See --help.")
        styles = [read_in_slices(style) for style in args.style]
        target = f"{Path(args.images).resolve()}_stylized"
        usage = shlex.join(["osasis-stylize", "-i", args.images, "-o", target, "--stylizer", args.output])
        return Data(folder_arrays(args.images), styles, Path(args.output), usage)
    from nnunet_osasis.nnunet import cases
    from nnunet_osasis.nnunet.configuration import default_stylizer_folder

    hints = cases.intensity_hints(args.d, args.c, args.p)
    keys = cases.training_keys(args.d, args.f)
    styles = [cases.read_reference(style, args.d, args.c, args.p) for style in args.style]
    own = default_stylizer_folder(args.d, args.c)
    output = Path(args.output) if args.output else own
    usage = f"nnUNetv2_train {args.d} {args.c} FOLD -tr nnUNetTrainerOSASIS"
    if args.p != "nnUNetPlans":
        usage += f" -p {args.p}"
    if output.resolve() != own.resolve():
        usage += f'   (with "osasis": {{"stylizer": "{output}"}} in configuration {args.c} of {args.p}.json)'

    def arrays():
        for key, array in cases.unnormalized_cases(args.d, args.c, args.p, keys):
            yield key, (array[:, 0] if array.shape[1] == 1 else array)

    window = (min(h.percentile_00_5 for h in hints), max(h.percentile_99_5 for h in hints))
    return Data(arrays, styles, output, usage, tuple(h.scheme for h in hints), window)


def _config(args: argparse.Namespace) -> BuildConfig:
    """Turn the options into settings; unknown names are refused before any image is read."""
    from torch.nn import Identity

    from nnunet_osasis.runtime.compute import resolve_device
    from nnunet_osasis.runtime.records import override
    from nnunet_osasis.stylizer.calibrator import CalibratorConfig
    from nnunet_osasis.stylizer.config import StylizerConfig
    from nnunet_osasis.training.adaptation.embedders import load_clip
    from nnunet_osasis.training.adaptation.recipes import get_recipe
    from nnunet_osasis.training.build import BuildConfig, check_possible
    from nnunet_osasis.training.distil import DistilConfig
    from nnunet_osasis.training.presets import get_preset

    recipe, preset = get_recipe(args.recipe), get_preset(args.preset)
    config = BuildConfig(
        args.preset,
        replace(preset, pretrain=override(preset.pretrain, **settings_for(args, "pretrain"))),
        replace(recipe, pair=override(recipe.pair, **settings_for(args, "pair")), **settings_for(args, "adapt")),
        CalibratorConfig(**settings_for(args, "calibrator")),
        args.readout,
        hold_back=args.hold_back, detail=args.detail, clip=args.clip,
        distil=DistilConfig(**settings_for(args, "distil")), device=resolve_device(args.device),
    )  # fmt: skip
    check_possible(config, references=len(args.style))
    StylizerConfig(readout=args.readout)
    if config.adapt.pair.maker == "file" and args.style_source_image is None:
        raise OsasisError(
            "--pair file needs --style-source-image", found="none", remedy="Name the reference as the source shows it."
        )
    if args.clip is not None:  # loaded once now, so that hours of pretraining do not end in a wrong name
        load_clip(args.clip, Identity())  # type: ignore[arg-type]
    return config


def _timed(args: argparse.Namespace, preset: Preset, output: Path, device: str, channels: int) -> Preset:
    """Turn ``--minutes`` into a number of pretraining steps, remembered for ``--resume``; all processes call this."""
    from nnunet_osasis.runtime import distributed as processes
    from nnunet_osasis.runtime.records import atomic_write_json, override, read_json
    from nnunet_osasis.training.build import WORK
    from nnunet_osasis.training.pretrain import steps_for

    path, group = output / WORK / "minutes.json", processes.current()

    def remembered() -> int | None:
        if not (args.resume and path.is_file()):
            return None
        steps = read_json(path, what="The remembered number of steps").get("iterations")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            rule = "The remembered number of steps must be a whole number of at least 1"
            raise OsasisError(rule, found=f"{steps!r} in {path}", remedy="Delete the file, or leave --resume out.")
        return steps

    iterations = group.from_main(remembered)
    if iterations is None:
        iterations = steps_for(preset, args.minutes, channels=channels, device=device)
        if group.is_main:
            atomic_write_json(path, {"iterations": iterations})
    return replace(preset, pretrain=override(preset.pretrain, iterations=iterations))


def main(argv: list[str] | None = None) -> None:
    """Parse, build, print where the stylizer is and how to use it."""
    began = time.monotonic()
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.images is not None and args.d is not None:
        parser.error("give --images or -d, not both")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from nnunet_osasis.runtime.distributed import joined

    config = _config(args)
    with joined(config.device) as group:
        if not group.is_main:
            logging.getLogger().setLevel(logging.WARNING)
        _build(args, config, group, began)


def _lender(args: argparse.Namespace, size: int) -> OSASISStylizer | None:
    """Load ``--from-stylizer``, whose networks must have the size of the preset."""
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

    if args.from_stylizer is None:
        return None
    lender = OSASISStylizer.from_pretrained(args.from_stylizer)
    if lender.has_networks and lender.size != size:
        raise OsasisError(
            "--from-stylizer must have the size of the preset",
            found=f"{lender.size} px for --preset {args.preset}",
            remedy="Give the --preset it was made with.",
        )
    return lender


def _build(args: argparse.Namespace, config: BuildConfig, group: Processes, began: float) -> None:
    """Read the images and make the stylizer, with the other processes if there are any."""
    from nnunet_osasis.gate.calibration import EvenlySpaced
    from nnunet_osasis.images.intensity import IntensityRange
    from nnunet_osasis.maps.field_of_view import spaced
    from nnunet_osasis.runtime.locks import output_lock
    from nnunet_osasis.training.build import WORK, StylizerBuild, lent_calibrator, stage_plan
    from nnunet_osasis.training.sources import load_counterpart, load_reference, load_sources

    size = config.preset.model["sample_size"]
    data, lender = _data(args), _lender(args, size)
    output = data.output
    lends = lender is not None and lender.has_networks
    if lender is not None and not lends and args.stop_after != "maps":
        print(f"{args.from_stylizer} has no networks yet: they are pretrained here.")
    intensity = lender.config.intensity if lender is not None and lends else None
    if args.intensity_range:
        intensity = IntensityRange("fixed", *args.intensity_range)
    details: list = []
    spread, thinned = EvenlySpaced(), EvenlySpaced(spaced)
    sources, intensity = load_sources(
        data.arrays, size, intensity=intensity, schemes=data.schemes, window=data.window, max_images=args.max_images,
        details=details, gate_images=spread, frame_images=thinned,
    )  # fmt: skip
    channels = sources.shape[1]
    if lender is not None and lender.in_channels != channels:
        raise OsasisError(
            "--from-stylizer must have the images' channels", found=f"{lender.in_channels} for {channels}"
        )
    references = [
        load_reference(array, channels, intensity, name=f"the reference {name}")
        for array, name in zip(data.styles, args.style, strict=True)
    ]
    counterpart = None
    if args.style_source_image is not None:
        counterpart = load_counterpart(args.style_source_image, channels, intensity, size)
    autoencoder = lender.autoencoder if lender is not None and lends else None

    def on_maps(stylizer: OSASISStylizer) -> None:
        readout = stylizer.config.readout
        waits = "" if readout == args.readout else f" with the read-out {readout} ({args.readout} needs the networks)"
        print(f"The stylizer can be used now{waits}, {time.monotonic() - began:.0f} s after the start:\n  {data.usage}")

    with group.on_main(lambda: output_lock(output, "osasis-pretrain-stylizer")):
        group.from_main(lambda: _prepare_output(args, output))
        asked = args.minutes is not None and "iterations" not in settings_for(args, "pretrain")
        if asked and args.stop_after != "maps":
            config = replace(config, preset=_timed(args, config.preset, output, config.device, channels))
        build = StylizerBuild(
            config, sources, references[0], intensity, output,
            more_references=references[1:],
            details=details,
            gate_images=spread.kept,
            frame_images=thinned.kept,
            autoencoder=autoencoder,
            calibrator=lent_calibrator(lender, sources),
            counterpart=counterpart,
            tensorboard=output / WORK / "tensorboard" if args.tensorboard else None,
        )  # fmt: skip
        if group.is_main:
            print("\n".join(stage_plan(build, stop_after=args.stop_after)))
        stylizer = build.run(resume=args.resume, stop_after=args.stop_after, on_maps=on_maps)
    if group.is_main:
        _report(stylizer, output)


def _prepare_output(args: argparse.Namespace, output: Path) -> None:
    """Clear what ``--overwrite`` replaces; raise ``OsasisError`` for an output that this run may not write to."""
    from nnunet_osasis.runtime.storage import ensure_writable, remove_stale_temporaries
    from nnunet_osasis.training.build import WORK, saved_stage

    remove_stale_temporaries(output.parent)
    if args.overwrite:
        if (output / WORK).is_dir():
            shutil.rmtree(output / WORK)
        (output / "stylizer.json").unlink(missing_ok=True)
    saved_stage(output, resume=args.resume)
    ensure_writable(output)


def _report(stylizer: OSASISStylizer, output: Path) -> None:
    """Print where the stylizer and its pictures are, and which read-outs are one pass."""
    from nnunet_osasis.maps.field_of_view import NO_FRAME
    from nnunet_osasis.stylizer.one_pass import one_pass_facts
    from nnunet_osasis.training.build import WORK

    one_pass = ", ".join(one_pass_facts(stylizer.state)["readouts"]) or "no read-out"
    print(f"Stylizer: {output}\nPictures: {output / WORK / 'grid_stylized.png'}\nIn one pass: {one_pass}")
    print(f"Frame: {stylizer.frame or NO_FRAME}")
    if not stylizer.has_networks:
        print(
            "The networks are not trained yet: the same command with --resume, without --stop-after, goes on to them."
        )


def entry() -> None:
    """Console entry point."""
    cli.run_command(main)


if __name__ == "__main__":
    entry()
