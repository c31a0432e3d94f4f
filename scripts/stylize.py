"""``osasis-stylize``: restyle a folder of images with a trained stylizer."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_osasis.cli import add_device, resolve_device, run_command, unit_interval
from nnunet_osasis.readout_names import READOUTS

EXAMPLES = """examples:
  osasis-stylize -i site_a/images -o site_a_as_b --stylizer stylizer
  osasis-stylize -i site_a/images -o site_a_as_b --stylizer stylizer --masks site_a/masks --strength 0.7
  osasis-stylize -i site_b/images -o site_b_as_a --stylizer stylizer --direction target_to_source

Sizes, data types and NIfTI geometry stay; JPEG comes out as PNG. A second run makes only what is missing."""


def make_parser() -> argparse.ArgumentParser:
    """All options of the command."""
    parser = argparse.ArgumentParser(
        prog="osasis-stylize",
        description=__doc__.split(": ", 1)[1],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-i", metavar="DIR", required=True, type=Path, help="folder of images")
    parser.add_argument("-o", metavar="DIR", required=True, type=Path, help="folder for the results")
    parser.add_argument("--stylizer", metavar="DIR", required=True, help="made by osasis-pretrain-stylizer")
    parser.add_argument("--masks", metavar="DIR", type=Path, help="copied unchanged to the output's masks/")
    parser.add_argument("--strength", type=unit_interval, help="0 keeps the image, 1 is full style (default)")
    parser.add_argument("--readout", help=f"{', '.join(READOUTS)}; default: the stylizer's")
    parser.add_argument("--detail", action="store_true", help="also carry over sharpness and noise")
    parser.add_argument(
        "--direction", choices=("source_to_target", "target_to_source"), default="source_to_target",
        help="target_to_source harmonises new images for a model that is already trained",
    )  # fmt: skip
    add_device(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parse, stylize, print how much was done."""
    args = make_parser().parse_args(argv)
    from nnunet_osasis.stylize_folder import stylize_folder
    from nnunet_osasis.stylizer import OSASISStylizer

    stylizer = OSASISStylizer.from_pretrained(args.stylizer, device=resolve_device(args.device))
    if args.readout is not None:
        stylizer = stylizer.configured(readout=args.readout)
    if args.detail:
        stylizer = stylizer.configured(detail=True)
    made = stylize_folder(stylizer, args.i, args.o, strength=args.strength, direction=args.direction, masks=args.masks)
    print(f"{made} image(s) stylized into {args.o}")


def entry() -> None:
    """Console entry point."""
    run_command(main)


if __name__ == "__main__":
    entry()
