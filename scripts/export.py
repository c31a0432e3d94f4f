"""``osasis-export``: a model trained with one of our trainers, to be used where this package is not installed."""

from __future__ import annotations

import argparse
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.command import command_parser, run_command

DIRECTIONS = ("source_to_target", "target_to_source")  # as in stylizer.config, without its imports
EXAMPLES = """examples:
  osasis-export -d 501 -c 2d -o deployed
  osasis-export -d 501 -c 2d -f 0 1 2 3 4 -tr nnUNetTrainerOSASIS_250epochs -o deployed
  osasis-export -i nnUNet_results/Dataset501_Polyps/nnUNetTrainerFDA__nnUNetPlans__2d -f all -o deployed
  osasis-export -d 501 -c 2d -tr nnUNetTrainerOSASISPraNet -o deployed --format onnx
  osasis-export --stylizer stylizer --format onnx -o restyle.onnx

The default format, nnunet, is a plain nnU-Net model: copy deployed/DatasetXXX_Name into nnUNet_results of any machine
with nnU-Net, or name the folder to nnUNetv2_predict_from_modelfolder. Models of PraNet and UNet++ become onnx or
torchscript. A stylizer's one pass (its map, or its student) becomes onnx: any batch and image size, without torch. The
result is read back and compared with the trained model before the command ends well."""


def make_parser() -> argparse.ArgumentParser:
    """All options of the command."""
    parser = command_parser("osasis-export", __doc__.split(": ", 1)[1], EXAMPLES)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("-d", metavar="DATASET", help="id or name of the dataset in nnUNet_results")
    model.add_argument("-i", metavar="DIR", type=Path, help="the model folder itself, TRAINER__PLANS__CONFIGURATION")
    model.add_argument("--stylizer", metavar="DIR", type=Path, help="a stylizer folder instead: -o is then one file")
    parser.add_argument("--direction", choices=DIRECTIONS, help="with --stylizer (default: source_to_target)")
    parser.add_argument("--readout", help="with --stylizer: a map or student (default: the stylizer's)")
    parser.add_argument("-c", metavar="CONFIGURATION", help="with -d: 2d, 3d_fullres, ...")
    parser.add_argument("-p", metavar="PLANS", default="nnUNetPlans", help="with -d: the plans (default: %(default)s)")
    parser.add_argument(
        "-tr", metavar="TRAINER", default="nnUNetTrainerOSASIS", help="with -d: the trainer (default: %(default)s)"
    )
    parser.add_argument(
        "-f", metavar="FOLD", nargs="+", help="0 1 2 3 4 or all (the model of all cases); default: every trained fold"
    )
    parser.add_argument(
        "-chk", metavar="NAME", default="checkpoint_final.pth", help="checkpoint of each fold (default: %(default)s)"
    )
    parser.add_argument("-o", metavar="PATH", required=True, type=Path, help="output, laid out like nnUNet_results")
    parser.add_argument(
        "--format", choices=("nnunet", "onnx", "torchscript"), help="default: nnunet; of a stylizer: onnx"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an earlier export: a folder that holds one, or the ONNX file of that name",
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    """Export, and print what was compared."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.stylizer is not None:
        return _export_stylizer(parser, args)
    if args.direction or args.readout:
        parser.error("--direction and --readout go with --stylizer")
    if args.d is not None and args.c is None:
        raise OsasisError("With -d the configuration is needed", found="no -c", remedy="Such as -c 2d.")
    from nnunet_osasis.nnunet.export import export_networks, export_plain, find_model_folder, open_model_folder

    path = args.i if args.d is None else find_model_folder(args.d, args.c, args.p, args.tr)
    model = open_model_folder(path, args.f, args.chk)
    trainer = _find_trainer(model.trainer_name)
    if args.format in (None, "nnunet"):
        made, compared = export_plain(model, trainer, args.o, overwrite=args.overwrite)
    else:
        made, compared = export_networks(model, trainer, args.o, args.format, overwrite=args.overwrite)
    for fold, found in compared.items():
        verdict = "identical" if found.identical else f"largest difference {found.max_abs_difference:.2g}"
        print(f"fold {fold}: logits of random patches {verdict} (largest logit {found.largest_logit:.3g})")
    print(f"{len(compared)} fold(s) exported to {made}")
    print("Research use; not a medical device.")


def _find_trainer(name: str) -> Any:
    """The trainer class that nnU-Net finds by name. Raises ``OsasisError`` when it finds none."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        with redirect_stdout(io.StringIO()):  # nnU-Net prints where it searches
            return recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise OsasisError(
            "The trainer of the model must be one that nnU-Net finds",
            found=f"no {name} in nnU-Net and in the folders of nnUNet_extTrainer",
            remedy="Install the package that it comes from.",
        ) from error


def _export_stylizer(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.c or args.f or args.format not in (None, "onnx"):
        parser.error("--stylizer goes with --format onnx, and without -c and -f")
    from nnunet_osasis.stylizer.onnx import export_one_pass
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

    stylizer = OSASISStylizer.from_pretrained(args.stylizer)
    difference = export_one_pass(
        stylizer, args.o, direction=args.direction or DIRECTIONS[0], readout=args.readout, overwrite=args.overwrite
    )
    print(
        f"{args.readout or stylizer.config.readout}: largest difference to PyTorch {difference:.2g}, values in [-1, 1]"
    )
    print(f"exported to {args.o}")
    print("Research use; not a medical device.")


def entry() -> None:
    """Console entry point."""
    run_command(main)


if __name__ == "__main__":
    entry()
