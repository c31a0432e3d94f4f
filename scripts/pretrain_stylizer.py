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
    from nnunet_osasis.training.sources import NamedArrays


MINUTES = "minutes.json"
"""File in the work folder with the pretraining steps that ``--minutes`` came to."""

FEW_STEPS = 100
"""Pretraining steps up to which timing some of them for the plan is not worth it."""


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
    import numpy as np

    from nnunet_osasis.images.gray import to_gray
    from nnunet_osasis.images.slices import read_in_slices
    from nnunet_osasis.runtime.folders import require_apart
    from nnunet_osasis.training.sources import folder_arrays

    if args.d is None:
        if args.images is None or args.output is None:
            raise OsasisError("Give --images and --output, or an nnU-Net dataset with -d", remedy="See --help.")
        require_apart(args.output, [args.images])
        reading = to_gray if args.gray else np.asarray
        styles = [reading(read_in_slices(style)) for style in args.style]
        target = f"{Path(args.images).resolve()}_stylized"
        usage = shlex.join(["osasis-stylize", "-i", args.images, "-o", target, "--stylizer", args.output])
        usage += " --gray" if args.gray else ""
        files = folder_arrays(args.images)
        return Data(lambda: ((name, reading(array)) for name, array in files()), styles, Path(args.output), usage)
    if args.gray:
        raise OsasisError(
            "--gray goes with --images", found="-d", remedy="Make the dataset with osasis-prepare --gray."
        )
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


def _remembered(args: argparse.Namespace, output: Path) -> int | None:
    """Return the pretraining steps that an earlier run with ``--minutes`` settled on, for ``--resume``."""
    from nnunet_osasis.runtime.records import read_json
    from nnunet_osasis.training.build import WORK

    path = output / WORK / MINUTES
    if not (args.resume and path.is_file()):
        return None
    steps = read_json(path, what="The remembered number of steps").get("iterations")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        rule = "The remembered number of steps must be a whole number of at least 1"
        raise OsasisError(rule, found=f"{steps!r} in {path}", remedy="Delete the file, or leave --resume out.")
    return steps


def main(argv: list[str] | None = None) -> None:
    """Parse, build, print where the stylizer is and how to use it."""
    began = time.monotonic()
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.images is not None and args.d is not None:
        parser.error("give --images or -d, not both")
    if args.minutes is not None and args.stop_after == "maps":
        parser.error("--minutes plans the training of the networks: leave it out with --stop-after maps")
    if args.minutes is not None and "iterations" in settings_for(args, "pretrain"):
        parser.error("give --minutes or --iterations, not both")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from nnunet_osasis.runtime.distributed import joined

    config = _config(args)
    with joined(config.device) as group:
        if not group.is_main:
            logging.getLogger().setLevel(logging.WARNING)
        _build(args, config, group, began)


def with_steps(config: BuildConfig, iterations: int) -> BuildConfig:
    """Return the settings with another number of pretraining steps."""
    pretrain = replace(config.preset.pretrain, iterations=iterations)
    return replace(config, preset=replace(config.preset, pretrain=pretrain))


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
    from nnunet_osasis.runtime.records import atomic_write_json
    from nnunet_osasis.training.build import WORK, StylizerBuild, lent_calibrator, stage_plan, stage_times
    from nnunet_osasis.training.sources import check_reference, load_counterpart, load_reference, load_sources

    size = config.preset.model["sample_size"]
    data, lender = _data(args), _lender(args, size)
    _, first = next(iter(data.arrays()))  # a wrong reference is refused before a thousand images are read
    for array, name in zip(data.styles, args.style, strict=True):
        check_reference(array, len(first), name=f"the reference {name}")
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
        counterpart = load_counterpart(args.style_source_image, channels, intensity, size, gray=args.gray)
    autoencoder = lender.autoencoder if lender is not None and lends else None

    def on_maps(stylizer: OSASISStylizer) -> None:
        readout = stylizer.config.readout
        waits = "" if readout == args.readout else f" with the read-out {readout} ({args.readout} needs the networks)"
        print(f"The stylizer can be used now{waits}, {time.monotonic() - began:.0f} s after the start:\n  {data.usage}")

    with group.on_main(lambda: output_lock(output, "osasis-pretrain-stylizer")):
        group.from_main(lambda: _prepare_output(args, output))
        remembered = group.from_main(lambda: _remembered(args, output))
        bounded = args.minutes is not None and remembered is None
        if remembered is not None and "iterations" not in settings_for(args, "pretrain"):
            config = with_steps(config, remembered)
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
        group.from_main(lambda: build.check_output(resume=args.resume))
        times = None
        if args.stop_after != "maps" and (bounded or config.preset.pretrain.iterations > FEW_STEPS):
            lent = build.lent_autoencoder is not None
            times = stage_times(
                config, channels=channels, sources=len(sources), references=len(references), lent=lent
            )  # fmt: skip
        if group.is_main:
            print("\n".join(stage_plan(build, stop_after=args.stop_after, times=times)))
        if bounded and times is not None:
            print(f"All of it in {args.minutes:g} minutes: the steps of pretraining are settled after the maps.")
            build.run(resume=args.resume, stop_after="maps", on_maps=on_maps)
            left = args.minutes * 60 - (time.monotonic() - began)
            steps = group.from_main(lambda: times.steps_within(left))
            if steps:
                build.config = with_steps(build.config, steps)
                group.from_main(lambda: atomic_write_json(output / WORK / MINUTES, {"iterations": steps}))
            if group.is_main and steps:
                print(f"Pretraining: {steps} steps fit into the {cli.duration(left)} that are left.")
        stylizer = build.run(
            resume=args.resume or bounded, stop_after=args.stop_after, on_maps=None if bounded else on_maps
        )
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
    """Print where the stylizer and its pictures are, which read-outs are one pass, and what it is worth."""
    from nnunet_osasis.maps.field_of_view import NO_FRAME
    from nnunet_osasis.stylizer.advice import advice
    from nnunet_osasis.stylizer.one_pass import one_pass_facts
    from nnunet_osasis.training.build import WORK

    one_pass = ", ".join(one_pass_facts(stylizer.state)["readouts"]) or "no read-out"
    print(f"Stylizer: {output}\nPictures: {output / WORK / 'grid_stylized.png'}\nIn one pass: {one_pass}")
    print(f"Frame: {stylizer.frame or NO_FRAME}")
    if not stylizer.has_networks:
        print(
            "The networks are not trained yet: the same command with --resume, without --stop-after, goes on to them."
        )
    print(f"\n{advice(stylizer.state)}")


def entry() -> None:
    """Console entry point."""
    cli.run_command(main)


if __name__ == "__main__":
    entry()
