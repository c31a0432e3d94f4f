"""The options of ``osasis-pretrain-stylizer``."""

from __future__ import annotations

import argparse
from typing import Any

from nnunet_osasis.runtime import command as cli
from nnunet_osasis.stylizer.names import NETWORK_READOUTS, READOUTS, needs_networks

EXAMPLES = """examples:
  osasis-pretrain-stylizer --images site_a/images --style site_b/one.png --output stylizer
  osasis-pretrain-stylizer -d 501 -c 2d --style site_b/one.png        (for nnUNetTrainerOSASIS)
  osasis-pretrain-stylizer --images a --style b.png --output stylizer --stop-after maps   (a minute, no networks)
  osasis-pretrain-stylizer --images a --style b.png --output stylizer --resume      (go on, also after an interruption)
  osasis-pretrain-stylizer --images a --style c.png --output stylizer_c --from-stylizer stylizer
                                             (another reference, the same source images: skips pretraining)
  accelerate launch --multi_gpu --num_processes 4 -m nnunet_osasis.scripts.pretrain_stylizer --images a --style b.png \\
      --output stylizer                      (four GPUs, one batch; without GPUs it runs on the CPU)

The reference image is all that is used of the new site: no masks, no other image. Nothing is downloaded."""


OWN = "own"
"""Value of ``--distil`` without a name."""


def settings_for(args: argparse.Namespace, group: str) -> dict[str, Any]:
    """Return the options given for one group of settings, by field name.

    An option's ``dest`` is ``group.field``, with several groups joined by ``+``. Options that were not given are left
    out, so that every default stands in its dataclass alone.
    """
    settings = {}
    for dest, value in vars(args).items():
        groups, _, name = dest.rpartition(".")
        if value is not None and group in groups.split("+"):
            settings[name] = value
    if group == "distil" and settings.get("readout") == OWN:
        settings["readout"] = args.readout if needs_networks(args.readout) else "local_affine"
    return settings


def make_parser() -> argparse.ArgumentParser:
    """Make the command's parser."""
    parser = argparse.ArgumentParser(
        prog="osasis-pretrain-stylizer",
        description="make a stylizer from source images and one image of the new site.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_version(parser)
    where = parser.add_argument_group("data")
    where.add_argument("--images", metavar="DIR", help="folder of source images: PNG, JPEG, TIFF, NIfTI, MHA")
    where.add_argument(
        "--style", metavar="IMAGE", required=True, nargs="+",
        help="the one reference image of the target domain; of several, the first is adapted to and all are averaged",
    )  # fmt: skip
    where.add_argument("--output", metavar="DIR", help="stylizer folder to write (nnU-Net: where its trainer looks)")
    cli.add_gray(where)
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
    how.add_argument(
        "--losses", dest="adapt.losses", metavar="NAME", help="osasis or paper (eqs. 10-13); default: the recipe's"
    )
    how.add_argument(
        "--iterations", dest="pretrain.iterations", metavar="N", type=cli.positive_int,
        help="pretraining steps (default: the preset's)",
    )  # fmt: skip
    how.add_argument(
        "--minutes",
        type=cli.positive_number,
        help="time for the whole command: pretraining gets what the other stages leave of it",
    )
    how.add_argument(
        "--batch-size", dest="pretrain.batch_size", metavar="N", type=cli.positive_int, help="of all processes together"
    )
    how.add_argument("--learning-rate", dest="pretrain.learning_rate", metavar="RATE", type=cli.positive_number)
    how.add_argument("--adapt-iterations", dest="adapt.iterations", metavar="N", type=cli.positive_int)
    how.add_argument("--adapt-learning-rate", dest="adapt.learning_rate", metavar="RATE", type=cli.positive_number)
    how.add_argument(
        "--pair", dest="pair.maker", metavar="MAKER",
        help="how the style pair is made: prealigned_sdedit, calibrator, sdedit, nearest or file",
    )  # fmt: skip
    how.add_argument(
        "--style-source-image", metavar="IMAGE", help="with --pair file: the reference as the source shows it"
    )
    how.add_argument("--readout", default="combined", help=f"{', '.join(READOUTS)} (default: combined)")
    how.add_argument(
        "--calibrator-iterations", dest="calibrator.iterations", type=cli.whole_number, metavar="N",
        help="training steps of the calibrator; 0 leaves it out",
    )  # fmt: skip
    whether = how.add_mutually_exclusive_group()
    whether.add_argument(
        "--distil", dest="distil.readout", metavar="READOUT", nargs="?", const=OWN,
        help=f"train the one-pass student of {', '.join(NETWORK_READOUTS)} (default: of --readout if it is one of "
        "these; any other read-out is one pass by itself; without a name: of --readout, else of local_affine)",
    )  # fmt: skip
    whether.add_argument(
        "--no-distil", dest="distil.iterations", action="store_const", const=0, help="train no one-pass student"
    )
    how.add_argument(
        "--distil-iterations", dest="distil.iterations", type=cli.whole_number, metavar="N",
        help="training steps of the student",
    )  # fmt: skip
    how.add_argument("--hold-back", action="store_true", help="weaken combined as far as its estimates disagree")
    how.add_argument("--detail", action="store_true", help="the stylizer also carries over sharpness and noise")
    how.add_argument("--clip", metavar="DIR|MODEL:TAG", help="open_clip weights on this machine as the style embedder")
    how.add_argument(
        "--from-stylizer",
        metavar="DIR",
        help="take another stylizer's autoencoder and calibrator",
    )
    how.add_argument(
        "--precision",
        dest="pretrain+adapt.precision",
        metavar="NAME",
        help="auto (bf16 where the hardware has it), fp32 or bf16",
    )
    how.add_argument(
        "--recompute", dest="pretrain+adapt.recompute", metavar="WHEN",
        help="activations in the backward pass, for memory: auto (from 256 px), on or off",
    )  # fmt: skip
    how.add_argument(
        "--compile", dest="pretrain.compile", metavar="BACKEND",
        help="torch.compile for pretraining: inductor; default: off",
    )  # fmt: skip
    how.add_argument(
        "--seed", dest="pretrain+adapt+calibrator+distil.seed", metavar="N", type=cli.seed_number, default=0
    )
    cli.add_device(how)
    running = parser.add_argument_group("running")
    running.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    running.add_argument("--overwrite", action="store_true", help="replace a stylizer or an unfinished run")
    running.add_argument("--tensorboard", action="store_true", help="also write TensorBoard events")
    running.add_argument(
        "--stop-after", choices=("maps", "networks"), default="networks",
        help="maps: end with a stylizer whose read-outs are maps, such as combined; --resume goes on to the networks",
    )  # fmt: skip
    running.add_argument(
        "--checkpoint-every", dest="pretrain.checkpoint_every", metavar="N", type=cli.positive_int,
        help="pretraining steps between checkpoints",
    )  # fmt: skip
    running.add_argument(
        "--grid-every", dest="pretrain.grid_every", metavar="N", type=cli.positive_int,
        help="pretraining steps between sample grids",
    )  # fmt: skip
    return parser
