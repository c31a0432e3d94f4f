"""PraNet and UNet++ inside nnU-Net on real colonoscopy: that they train, with and without stylized images.

    python benchmarks/networks/run.py --work /tmp/polyp --output benchmarks/networks

Takes the image folders and the stylizer that benchmarks/polyp/run.py leaves (ClinicDB to ColonDB), and runs the demo's
experiment with three networks, without and with OSASIS, one short training each: it says nothing about which network
is better.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

from nnunet_osasis.evaluation.demo import DemoSettings, own_experiment
from nnunet_osasis.evaluation.experiment.config import NetworkSpec
from nnunet_osasis.evaluation.experiment.runner import Options, run_experiment
from nnunet_osasis.evaluation.report.report import write_report


def main() -> None:
    """Run what is missing; copy results.json, rows.csv and report.md, without pictures, to the output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--length", default="5epochs", help="suffix of the trainers")
    args = parser.parse_args()
    work = args.work.resolve()
    settings = DemoSettings(
        output=work / "networks", source=work / "source", target=work / "target", source_test=work / "source_test",
        own_side=96, patch=96, batch=8, features=(16, 32, 64, 128), trainer_length=args.length, repeats=1,
    )  # fmt: skip
    data, experiment = own_experiment(settings)
    experiment = replace(
        experiment,
        networks=tuple(NetworkSpec(name=name) for name in ("unet", "pranet", "unetpp")),
        methods=tuple(method for method in experiment.methods if method.kind in ("none", "osasis")),
    )
    outcome = run_experiment(experiment, data, Options(settings.output, 2, pretrained=work / "stylizer"))
    write_report(experiment, outcome, settings.output, command=["benchmarks/networks/run.py"], with_images=False)
    args.output.mkdir(parents=True, exist_ok=True)
    for name in ("results.json", "rows.csv", "report.md"):
        shutil.copy(settings.output / name, args.output / name)


if __name__ == "__main__":
    main()
