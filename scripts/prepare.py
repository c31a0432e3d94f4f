"""``osasis-prepare``: bring a public dataset, or two folders of images and masks, into nnU-Net's raw format."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.prepare.layouts import LAYOUTS, Layout
from nnunet_osasis.runtime.command import add_gray, command_parser, positive_int, run_command

if TYPE_CHECKING:
    from nnunet_osasis.nnunet.prepare.pairs import Case

FOLDERS = "folders"

EXAMPLES = """examples:
  osasis-prepare --layout clinicdb -i CVC-ClinicDB -d 501 -name ClinicDB
  osasis-prepare --layout clinicdb -i CVC-ClinicDB -d 502 -name ClinicSplit --train 1-408 --val 409-503 --test 504-612
  osasis-prepare --layout drive -i DRIVE -d 503 -name Drive --outside-field ignore
  osasis-prepare --images site_a/images --masks site_a/masks -d 504 -name SiteA --group-pattern "^(patient\\d+)"
  osasis-prepare --images discs --masks maps -d 505 -name Discs --labels background=0 disc=128 cup=255

Selections are lists of numbers, ranges (the last number of a name counts) and * patterns: 1-408,500 or *_training.
Splits never separate frames of a sequence or images of a patient where a layout, --groups or --group-pattern tells.
Then: nnUNetv2_plan_and_preprocess -d 501 --verify_dataset_integrity"""


def make_parser() -> argparse.ArgumentParser:
    """All options of the command."""
    parser = command_parser("osasis-prepare", __doc__.split(": ", 1)[1], EXAMPLES)
    where = parser.add_argument_group("data")
    where.add_argument(
        "--layout",
        choices=(FOLDERS, *LAYOUTS),
        default=FOLDERS,
        help="how the source lies on the disk (default: folders)",
    )
    where.add_argument("-i", metavar="DIR", type=Path, help="source folder of a known layout")
    where.add_argument("--images", metavar="DIR", type=Path, help="layout folders: images")
    where.add_argument("--masks", metavar="DIR", type=Path, help="layout folders: masks of the same names")
    where.add_argument("--mask-suffix", default="", help="layout folders: what mask names have in addition")
    where.add_argument("-d", metavar="NUMBER", required=True, help="number of the new dataset, 1 to 999")
    where.add_argument("-name", metavar="NAME", required=True, help="its name")
    where.add_argument("-o", metavar="DIR", type=Path, help="folder of raw datasets (default: the variable nnUNet_raw)")
    where.add_argument("--overwrite", action="store_true", help="replace a dataset of that number and name")
    labels = parser.add_argument_group("channels and labels")
    labels.add_argument("--channel-names", nargs="+", help="default: rgb_to_0_1 for each color, zscore for gray")
    add_gray(labels)
    labels.add_argument("--foreground", help="name of label 1 (default: the layout's)")
    labels.add_argument("--labels", nargs="+", metavar="NAME=VALUE", help="masks of several classes, background first")
    labels.add_argument("--threshold", type=float, help="binary masks: foreground is what lies above")
    labels.add_argument(
        "--outside-field", choices=("background", "ignore"), default="background",
        help="what lies outside the field of view, where the dataset says (drive); ignore: not trained on",
    )  # fmt: skip
    splits = parser.add_argument_group("splits")
    splits.add_argument("--train", metavar="SELECTION", help="training cases (default: all that are left)")
    splits.add_argument("--val", metavar="SELECTION", help="validation cases, one fold (default: --folds)")
    splits.add_argument("--test", metavar="SELECTION", help="cases for imagesTs (default: the publishers' test set)")
    splits.add_argument("--test-groups", metavar="SELECTION", help="sequences or patients for imagesTs")
    splits.add_argument("--folds", type=positive_int, default=5, help="number of folds (default: 5)")
    splits.add_argument("--seed", type=int, default=0, help="of the draw of folds (default: 0)")
    splits.add_argument("--groups", metavar="CSV", type=Path, help="what stays together: columns case and group")
    splits.add_argument("--group-pattern", metavar="REGEX", default="", help="layout folders: likewise, from names")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Parse, find, divide, convert, print what there is now."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.labels and not (args.foreground is None and args.threshold is None):
        parser.error("--foreground and --threshold are for binary masks; leave them out beside --labels")
    from nnunet_osasis.nnunet.prepare.convert import Request, write_dataset
    from nnunet_osasis.nnunet.prepare.labels import LabelRule, parse_classes
    from nnunet_osasis.nnunet.prepare.splits import SplitRule, divide
    from nnunet_osasis.nnunet.prepare.target import Target
    from nnunet_osasis.runtime.folders import require_apart

    target = Target.of(args.d, args.name, args.o)
    inputs = [folder for folder in (args.i, args.images, args.masks) if folder is not None]
    require_apart(target.folder, inputs)
    for folder in inputs:
        require_apart(folder, [target.folder])
    target.require_free(overwrite=args.overwrite)
    layout = LAYOUTS.get(args.layout)
    cases = _find(args, layout)
    rule = SplitRule(
        train=args.train, val=args.val, test=args.test, test_groups=args.test_groups, folds=args.folds, seed=args.seed
    )
    division = divide(cases, rule)
    labels = LabelRule(
        foreground=args.foreground or (layout.foreground if layout else "foreground"),
        threshold=layout.threshold if layout and args.threshold is None else args.threshold,
        classes=parse_classes(args.labels) if args.labels else None,
        ignore_outside=args.outside_field == "ignore",
    )
    facts = {"name": layout.title, "licence": layout.terms} if layout else {"name": args.name}
    folder = write_dataset(
        target, division, Request(labels, args.channel_names, facts, args.gray), overwrite=args.overwrite
    )
    left_out = len(cases) - len(division.training) - len(division.test)
    groups = len({case.group for case in division.training})
    print(
        f"{folder}: {len(division.training)} training cases in {groups} groups, {len(division.folds)} fold(s); "
        f"{len(division.test)} test cases; {left_out} left out."
    )
    if layout:
        print(f"Terms of {layout.title}: {layout.terms}.")
        if layout.caution and groups == len(division.training):
            print(layout.caution)
    if target.splits is None:
        print(
            f"nnUNet_preprocessed is not set: copy {folder / 'splits_final.json'} to the preprocessed dataset yourself."
        )
    anew = " --clean" if args.overwrite else ""  # else nnU-Net keeps the fingerprint of the old images
    print(f"Next: nnUNetv2_plan_and_preprocess -d {target.number} --verify_dataset_integrity{anew}")


def _find(args: argparse.Namespace, layout: Layout | None) -> list[Case]:
    from nnunet_osasis.nnunet.prepare.pairs import find_folder_cases, find_layout_cases

    if layout is None:
        if args.images is None or args.masks is None or args.i is not None:
            raise OsasisError("The layout folders takes --images and --masks", remedy="-i goes with another --layout.")
        return find_folder_cases(
            args.images, args.masks, suffix=args.mask_suffix, pattern=args.group_pattern, table=args.groups
        )
    unused = [name for name in ("images", "masks", "mask_suffix", "group_pattern") if getattr(args, name)]
    if args.i is None or unused:
        raise OsasisError(
            f"The layout {args.layout} takes -i, the folder it was unpacked to",
            found=", ".join(f"--{name.replace('_', '-')}" for name in unused) or "no -i",
        )
    return find_layout_cases(args.i, layout, args.groups)


def entry() -> None:
    """Console entry point."""
    run_command(main)


if __name__ == "__main__":
    entry()
