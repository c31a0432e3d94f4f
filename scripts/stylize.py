"""``osasis-stylize``: restyle a folder of images with a trained stylizer."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

from nnunet_osasis.runtime.command import (
    add_device,
    add_gray,
    command_parser,
    positive_int,
    run_command,
    unit_interval,
    whole_number,
)
from nnunet_osasis.stylizer.names import READOUTS

EXAMPLES = """examples:
  osasis-stylize -i site_a/images -o site_a_as_b --stylizer stylizer
  osasis-stylize -i site_a/images -o site_a_as_b --stylizer stylizer --masks site_a/masks --strength 0.7
  osasis-stylize -i site_b/images -o site_b_as_a --stylizer stylizer --direction target_to_source
  osasis-stylize -i archive -o archive_as_b --stylizer stylizer --num-parts 8 --part-id 3
  accelerate launch --num_processes 4 -m nnunet_osasis.scripts.stylize -i archive -o archive_as_b --stylizer stylizer

Sizes, data types and NIfTI geometry stay; JPEG comes out as PNG. A second run makes only what is missing.
Results whose structure differs from their source's are made weaker or left as they were: see osasis_audit/ in the
output, or osasis-info --audit OUTPUT."""


def make_parser() -> argparse.ArgumentParser:
    """All options of the command."""
    parser = command_parser("osasis-stylize", __doc__.split(": ", 1)[1], EXAMPLES)
    parser.add_argument("-i", metavar="DIR", required=True, type=Path, help="folder of images")
    parser.add_argument("-o", metavar="DIR", required=True, type=Path, help="folder for the results")
    parser.add_argument("--stylizer", metavar="DIR", required=True, help="made by osasis-pretrain-stylizer")
    parser.add_argument(
        "--masks", metavar="DIR", type=Path,
        help="copied unchanged to the output's masks/; the gate looks at their lesions",
    )  # fmt: skip
    parser.add_argument("--strength", type=unit_interval, help="0 keeps the image, 1 is full style (default)")
    parser.add_argument("--readout", help=f"{', '.join(READOUTS)}; default: the stylizer's")
    parser.add_argument("--detail", action="store_true", help="also carry over sharpness and noise")
    parser.add_argument(
        "--direction", choices=("source_to_target", "target_to_source"), default="source_to_target",
        help="target_to_source harmonizes new images for a model that is already trained",
    )  # fmt: skip
    parser.add_argument("--no-gate", action="store_true", help="use every result, however its structure looks")
    parser.add_argument(
        "--segmenter", metavar="DIR", type=Path,
        help="a trained nnU-Net model folder: its answers to original and result must agree as well",
    )  # fmt: skip
    parser.add_argument(
        "--num-parts", "-num_parts", type=positive_int, default=1, metavar="N",
        help="make only every N-th image: for jobs that share one output folder, at once or one after the other",
    )  # fmt: skip
    parser.add_argument(
        "--part-id", "-part_id", type=whole_number, metavar="K", help="the first of them, from 0 to N - 1"
    )
    parser.add_argument(
        "--precision", choices=("auto", "fp32", "bf16"),
        help="of read-outs that run the networks; auto: bf16 where the hardware has it; default: the stylizer's",
    )  # fmt: skip
    parser.add_argument(
        "--compile", action="store_true",
        help="torch.compile the networks: minutes at the start, for large archives and read-outs that run them",
    )  # fmt: skip
    add_gray(parser)
    add_device(parser)
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parse, stylize, print how much was done."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.no_gate and args.segmenter is not None:
        parser.error("--segmenter is asked by the gate: leave out --no-gate")
    if args.num_parts > 1 and args.part_id is None:
        parser.error("--num-parts needs --part-id, one for each job")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    from nnunet_osasis.gate.audit import FOLDER, in_words
    from nnunet_osasis.runtime.compute import own_device, resolve_device
    from nnunet_osasis.runtime.distributed import Shard, launched
    from nnunet_osasis.stylizer.archive.run import decisions_in, on_record, stylize_folder
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

    process = launched()
    share = Shard(args.part_id or 0, args.num_parts).split(process.rank, process.count)
    device = resolve_device(own_device(args.device, process))
    stylizer = OSASISStylizer.from_pretrained(args.stylizer, device=device)
    if args.readout is not None:
        stylizer = stylizer.configured(readout=args.readout)
    if args.detail:
        stylizer = stylizer.configured(detail=True)
    if args.precision is not None:
        stylizer = stylizer.configured(sampler=replace(stylizer.config.sampler, precision=args.precision))
    if args.compile:
        stylizer.compile()
    segmenter = None
    if args.segmenter is not None:
        from nnunet_osasis.nnunet.segmenter import NnunetSegmenter

        segmenter = NnunetSegmenter(args.segmenter, device=device)
    made = stylize_folder(
        stylizer, args.i, args.o, strength=args.strength, direction=args.direction, masks=args.masks,
        gated=not args.no_gate, segmenter=segmenter, share=share, progress=process.local_rank == 0, gray=args.gray,
    )  # fmt: skip
    print(f"{made} image(s) stylized into {args.o}")
    if share.count > 1:
        done, images = on_record(args.i, args.o)
        print(f"{share} is finished; {done} of {images} images are done")
    if not args.no_gate:
        print(f"{in_words(decisions_in(args.o))}; {args.o / FOLDER} has the audit trail and the worst cases")


def entry() -> None:
    """Console entry point."""
    run_command(main)


if __name__ == "__main__":
    entry()
