"""``osasis-evaluate``: score predicted masks against true ones, one method or several side by side."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.metrics.protocol import PROTOCOLS, choose_protocol
from nnunet_osasis.runtime.command import command_parser, positive_int, run_command, unit_interval

EXAMPLES = """examples:
  osasis-evaluate -p predictions -r masks -o scores
  osasis-evaluate -p plain=predicted_a -p stylized=predicted_b -r masks -o scores --images images
  osasis-evaluate -p predictions -r labelsTs -o scores --classes 1 2 --tolerance 3 -np 4
  osasis-evaluate -p maps -r masks -o scores --protocol paper

Reads PNG, JPEG, TIFF, NIfTI, MHA and nnU-Net's prediction folders; files are paired by name without suffix. Writes
cases.csv, summary.json, table.md, table.tex, radar and grid (PNG and SVG); of several methods also
differences: each against the first -p, paired over cases, with 95 % intervals. docs/evaluation.md defines all
metrics."""


def make_parser() -> argparse.ArgumentParser:
    """All options of the command."""
    parser = command_parser("osasis-evaluate", __doc__.split(": ", 1)[1], EXAMPLES)
    parser.add_argument(
        "-p", metavar="[NAME=]DIR", required=True, action="append", help="folder of predictions; repeat it to compare"
    )
    parser.add_argument("-r", metavar="DIR", required=True, type=Path, help="folder of reference masks or label maps")
    parser.add_argument("-o", metavar="DIR", required=True, type=Path, help="folder for the results")
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default="standard",
        help="standard (default); paper: what the columns of the OSASIS segmentation paper hold; pysodmetrics",
    )  # fmt: skip
    parser.add_argument(
        "--classes", nargs="+", default=["auto"], help="labels to score; auto: told from the references"
    )
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="compute only these, for example dice hd95")
    parser.add_argument("--threshold", type=unit_interval, help="foreground from this value on (default 0.5)")
    parser.add_argument("--tolerance", type=float, help="of the surface distance, mm or pixels (default 2)")
    parser.add_argument("--lesion-overlap", type=unit_interval, help="share to be covered (default 0.1; 0: one pixel)")
    parser.add_argument(
        "--normalize", action="store_true", default=None,
        help="stretch each map by its own minimum and maximum first, as PySODMetrics does",
    )  # fmt: skip
    parser.add_argument("--scale", choices=("auto", "1", "255"), default="auto", help="largest value of the maps")
    parser.add_argument("--probabilities", action="store_true", help="read nnU-Net's .npz files (--save_probabilities)")
    parser.add_argument("--allow-missing", action="store_true", help="score only the cases that all sides have")
    parser.add_argument("--images", metavar="DIR", type=Path, help="pictures to show in the grid")
    parser.add_argument("-np", metavar="N", type=positive_int, default=2, help="processes (default 2)")
    return parser


def named_folders(texts: list[str]) -> dict[str, Path]:
    """The folders of the ``-p`` options by name; a folder without a name is called by its own.

    Raises:
        OsasisError: two folders have one name.
    """
    folders: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.rpartition("=") if "=" in text and not Path(text).is_dir() else ("", "", text)
        name = name or Path(folder).resolve().name
        if name in folders:
            raise OsasisError("Each method needs a name of its own", found=f"{name} twice", remedy="Use -p NAME=DIR.")
        folders[name] = Path(folder)
    return folders


def chosen_classes(texts: list[str]) -> list[int] | None:
    """The labels of ``--classes``, or None for ``auto``."""
    if texts == ["auto"]:
        return None
    if not all(text.isdecimal() and int(text) > 0 for text in texts):
        raise OsasisError("Classes must be labels above 0, or auto", found=" ".join(texts), remedy="--classes 1 2")
    return sorted({int(text) for text in texts})


def main(argv: list[str] | None = None) -> None:
    """Parse, score, write, print the table."""
    args = make_parser().parse_args(argv)
    from nnunet_osasis.evaluation.metrics.folder import score_folder
    from nnunet_osasis.evaluation.metrics.pairing import describe_left_out, pair_files
    from nnunet_osasis.evaluation.metrics.results import images_by_case, write_results
    from nnunet_osasis.evaluation.metrics.tables import markdown_table
    from nnunet_osasis.runtime.folders import require_apart
    from nnunet_osasis.runtime.storage import ensure_writable

    folders, classes = named_folders(args.p), chosen_classes(args.classes)
    protocol = choose_protocol(
        args.protocol,
        threshold=args.threshold,
        tolerance=args.tolerance,
        lesion_overlap=args.lesion_overlap,
        normalize=args.normalize,
    )
    inputs = [*folders.values(), args.r, *([args.images] if args.images else [])]
    require_apart(args.o, inputs)
    pairs = pair_files(folders, args.r, probabilities=args.probabilities, allow_missing=args.allow_missing)
    for text in describe_left_out(pairs.left_out):
        print(f"Warning: INCOMPLETE, not scored: {text}", file=sys.stderr)
    images = images_by_case(args.images, list(pairs.references)) if args.images else None
    ensure_writable(args.o)
    scores = score_folder(
        folders,
        args.r,
        protocol=protocol,
        metrics=args.metrics,
        classes=classes,
        probabilities=args.probabilities,
        scale=None if args.scale == "auto" else int(args.scale),
        allow_missing=args.allow_missing,
        processes=args.np,
    )
    print(markdown_table(write_results(scores, args.o, images=images)))
    print(f"Results are in {args.o}")


def entry() -> None:
    """Console entry point."""
    run_command(main)


if __name__ == "__main__":
    entry()
