"""``osasis-report``: learn from one command whether stylization helps on your scanner, with controls and seeds."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.command import add_gray, command_parser, positive_int, run_command

if TYPE_CHECKING:
    from nnunet_osasis.evaluation.experiment.config import Experiment

EXAMPLES = """examples:
  osasis-report --source site_a --target site_b -o report              folders with images/ and masks/ in each
  osasis-report --source site_a --target site_b -o report --groups "^patient\\d+"     patients stay on one side
  osasis-report experiment.json --data /data -o report -np 2           an experiment file
  osasis-report experiment.json --data /data -o report -device cuda:0,cuda:1 -np 4
The same command again goes on from what is finished.

Target masks are opened for scoring only; methods see one target image, chosen without masks."""


def make_parser() -> argparse.ArgumentParser:
    """All options of the command."""
    parser = command_parser("osasis-report", __doc__.split(": ", 1)[1], EXAMPLES)
    parser.add_argument("experiment", nargs="?", metavar="FILE", help="experiment file (JSON), see docs/evaluation.md")
    parser.add_argument("--data", metavar="DIR", help="folder that the file's paths start from (default: the file's)")
    parser.add_argument("--source", metavar="DIR", help="instead of a file: folder with images/ and masks/")
    parser.add_argument("--target", metavar="DIR", help="the other site's folder with images/ and masks/")
    parser.add_argument("--source-test", metavar="DIR", help="in-domain test set (default: a quarter of the source)")
    parser.add_argument("--groups", default="", metavar="REGEX", help="what names the patient in a file name")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="workspace and report")
    parser.add_argument(
        "-np", type=positive_int, metavar="N", help="trainings side by side (default: one per core or GPU)"
    )
    parser.add_argument("-device", default="auto", help="cpu, cuda, mps, or several: cuda:0,cuda:1 (default: auto)")
    parser.add_argument("--from-stylizer", metavar="DIR", help="take the autoencoder pretrained on the same images")
    parser.add_argument("--iterations", type=positive_int, help="training steps (with --source; default: 400)")
    parser.add_argument("--side", type=positive_int, help="longer side of the images (with --source; default: 96)")
    add_gray(parser)
    parser.add_argument("--without-images", action="store_true", help="draw no picture of the data set")
    return parser


def _experiment(args: argparse.Namespace, parser: argparse.ArgumentParser) -> tuple[Experiment, Path]:
    from nnunet_osasis.evaluation.experiment.config import Budget, load_experiment
    from nnunet_osasis.evaluation.experiment.from_folders import folders_experiment
    from nnunet_osasis.runtime.records import override

    if args.experiment is not None:
        if args.source or args.target:
            parser.error("give an experiment file, or --source and --target, not both")
        if args.iterations or args.side or args.gray:
            parser.error("--iterations, --side and --gray belong into the experiment file")
        data = Path(args.data) if args.data else Path(args.experiment).resolve().parent
        if not data.is_dir():
            raise OsasisError("The data folder must exist", found=f"no folder {data}", remedy="Give --data.")
        return load_experiment(args.experiment), data
    if args.source is None or args.target is None:
        parser.error("give an experiment file, or --source and --target")
    folders = [Path(p).resolve() for p in (args.source, args.target, args.source_test) if p is not None]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        raise OsasisError("The folders must exist", found=f"no {missing[0]}", remedy="Check the path.")
    data = Path(args.data) if args.data else Path(os.path.commonpath(folders))
    side = args.side or Budget().side
    patch = max(32, min(side, Budget().patch) // 32 * 32)  # a multiple of what the networks reduce by
    budget = override(Budget(), iterations=args.iterations, side=args.side, patch=patch)
    test = folders[2] if args.source_test else None
    source, target = folders[:2]
    return folders_experiment(
        source, target, data, source_test=test, groups=args.groups, budget=budget, gray=args.gray
    ), data


def main(argv: list[str] | None = None) -> None:
    """Parse, run what is not done yet, write the report, say the verdict."""
    parser = make_parser()
    args = parser.parse_args(argv)
    from nnunet_osasis.runtime.compute import resolve_device

    devices = tuple(resolve_device(name) for name in args.device.split(","))
    experiment, data = _experiment(args, parser)
    from nnunet_osasis.evaluation.experiment.datasets import folders_of
    from nnunet_osasis.evaluation.experiment.runner import COMMAND, LOCK, Options, run_experiment
    from nnunet_osasis.evaluation.report.report import write_report
    from nnunet_osasis.runtime.folders import claim, require_apart
    from nnunet_osasis.runtime.locks import output_lock
    from nnunet_osasis.stylizer.serialization import is_stylizer_folder

    pretrained = Path(args.from_stylizer).resolve() if args.from_stylizer else None
    if pretrained is not None and not is_stylizer_folder(pretrained):
        raise OsasisError("--from-stylizer must name a stylizer folder", found=pretrained)
    output = Path(args.output).resolve()
    workers = args.np or (os.cpu_count() or 1 if devices == ("cpu",) else len(devices))
    require_apart(output, folders_of(experiment, data))
    claim(output, COMMAND)
    with output_lock(output, COMMAND, name=LOCK):
        outcome = run_experiment(experiment, data, Options(output, workers, devices, pretrained))
        command = [COMMAND, *(sys.argv[1:] if argv is None else argv)]
        results = write_report(experiment, outcome, output, command=command, with_images=not args.without_images)
    for verdict in results["verdicts"]:
        print(f"{verdict['network']} on {verdict['target']}: {verdict['title']}")
    print(f"Report: {output / 'report.html'}")


def entry() -> None:
    """Console entry point."""
    run_command(main)


if __name__ == "__main__":
    entry()
