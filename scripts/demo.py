"""``osasis-demo``: from nothing, or from your own two folders of images, to a report in about ten minutes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunet_osasis.runtime.command import (
    add_device,
    add_gray,
    command_parser,
    positive_int,
    positive_number,
    run_command,
    seed_number,
)

EXAMPLES = """examples:
  osasis-demo                                             rendered images of two scanners, report in osasis_demo/
  osasis-demo --quick                                     the same line in two minutes; its figures mean nothing
  osasis-demo --source site_a --target site_b --output look      your own images

--source and --target are folders with images/ and masks/ (same file names). One target image becomes the reference;
the others, with their masks, are only used to test. A run that was interrupted goes on where it was."""


def make_parser() -> argparse.ArgumentParser:
    """All options of the command."""
    parser = command_parser("osasis-demo", __doc__.split(": ", 1)[1], EXAMPLES)
    parser.add_argument("--output", metavar="DIR", type=Path, default=Path("osasis_demo"), help="default: osasis_demo")
    parser.add_argument("--source", metavar="DIR", type=Path, help="your source images: DIR/images and DIR/masks")
    parser.add_argument("--target", metavar="DIR", type=Path, help="your target images: DIR/images and DIR/masks")
    parser.add_argument(
        "--source-test", metavar="DIR", type=Path,
        help="own source images for the in-domain test, instead of a random quarter of --source (videos, patients)",
    )  # fmt: skip
    parser.add_argument("--from-stylizer", metavar="DIR", type=Path, help="take this stylizer's pretrained autoencoder")
    parser.add_argument(
        "--minutes-pretrain",
        type=positive_number,
        metavar="MIN",
        help="for making the stylizer, where a read-out runs the networks",
    )
    parser.add_argument(
        "--epochs-trainer-suffix",
        metavar="SUFFIX",
        default="5epochs",
        choices=("1epoch", "5epochs", "10epochs", "20epochs", "50epochs", "100epochs", "250epochs"),
        help="trainers' length: 5epochs (default) or 20epochs",
    )
    parser.add_argument("--repeats", type=positive_int, metavar="N", help="trainings per method (default: 2)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--seed", type=seed_number, default=0, help="of scenes, splits and stylizer (default: 0)")
    add_gray(parser)
    add_device(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parse, run, print where the report is."""
    args = make_parser().parse_args(argv)
    from nnunet_osasis.evaluation.demo import COMMAND, QUICK, DemoSettings, run_demo
    from nnunet_osasis.runtime.compute import resolve_device
    from nnunet_osasis.stylizer.serialization import read_index

    if args.from_stylizer is not None:  # a folder that is no stylizer is refused now, not when its turn comes
        read_index(args.from_stylizer)
    options = {
        **(QUICK if args.quick else {}),
        "output": args.output,
        "source": args.source,
        "target": args.target,
        "source_test": args.source_test,
        "from_stylizer": args.from_stylizer,
        "seed": args.seed,
        "gray": args.gray,
        "device": resolve_device(args.device),
        "trainer_length": args.epochs_trainer_suffix,
    }
    if args.minutes_pretrain is not None:
        options["minutes_pretrain"] = args.minutes_pretrain
    if args.repeats is not None:
        options["repeats"] = args.repeats
    command = [COMMAND, *(sys.argv[1:] if argv is None else argv)]
    report = run_demo(DemoSettings(**options), command=command, say=lambda line: print(line, flush=True))
    print(f"Report: {report}")


def entry() -> None:
    """Console entry point."""
    run_command(main)


if __name__ == "__main__":
    entry()
