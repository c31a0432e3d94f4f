"""The whole line on real colonoscopy: ClinicDB 1-178 to ColonDB, one reference image.

    OSASIS_DATA=/path/to/data python benchmarks/polyp/run.py --work /tmp/polyp --output benchmarks/polyp

Needs `polyp/clinicdb` and `polyp/colondb` (`images/`, `masks/`) below OSASIS_DATA. Trains on ClinicDB 1-178 (whole
sequences), tests in-domain on ClinicDB 504-612 (other sequences) and on all of ColonDB but the reference, chosen
without masks. Runs public commands, prints them, and copies figures, never pictures, to the output:
`results.json` (settings, versions, per-case rows, seconds), `report.md`, `stylizer_log.jsonl` (losses and seconds).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from nnunet_osasis.evaluation.demo import DemoSettings, run_demo

SPLITS = {"source": range(1, 179), "source_test": range(504, 613)}


def link_pairs(data: Path, names: list[str], folder: Path) -> None:
    """``folder/images`` and ``folder/masks`` as links into the data set; nothing is copied."""
    for part in ("images", "masks"):
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)
        by_stem = {path.stem: path for path in (data / part).iterdir()}
        for name in names:
            (folder / part / by_stem[name].name).symlink_to(by_stem[name])


def run(*command: str) -> None:
    """Print a command and run it from this interpreter's environment."""
    print("$", shlex.join(command), flush=True)
    subprocess.run([str(Path(sys.executable).parent / command[0]), *command[1:]], check=True)


def main() -> None:
    """Link the splits, make the stylizer, run the comparison, copy the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--stylizer", type=Path, help="one made from these images before, instead of half an hour")
    parser.add_argument("--length", default="5epochs", help="suffix of the trainers")
    parser.add_argument("--repeats", type=int, default=1, help="trainings per method")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--reference", default="295", help="stem of the ColonDB reference; the demo's rule chooses 295")
    args = parser.parse_args()
    data = Path(os.environ["OSASIS_DATA"]).resolve() / "polyp"
    work = args.work.resolve()
    for split, numbers in SPLITS.items():
        link_pairs(data / "clinicdb", [str(n) for n in numbers], work / split)
    link_pairs(data / "colondb", sorted(p.stem for p in (data / "colondb/images").iterdir()), work / "target")
    reference = next((work / "target/images").glob(f"{args.reference}.*"))
    stylizer = (args.stylizer or work / "stylizer").resolve()
    if args.stylizer is None:
        run(
            "osasis-pretrain-stylizer", "--images", str(work / "source/images"), "--style", str(reference),
            "--output", str(stylizer), "--preset", "tiny", "--seed", args.seed, "-device", "cpu", "--resume",
        )  # fmt: skip
    # osasis-demo --source ... --source-test ... --target ... --from-stylizer ..., with images small enough that a patch
    # of the small U-Net shows a whole one
    settings = DemoSettings(
        output=work / "demo", source=work / "source", target=work / "target", source_test=work / "source_test",
        from_stylizer=stylizer, own_side=96, patch=96, batch=8, features=(16, 32, 64, 128),
        trainer_length=args.length, repeats=args.repeats, seed=int(args.seed),
    )  # fmt: skip
    run_demo(settings)
    args.output.mkdir(parents=True, exist_ok=True)
    text = (work / "demo/results.json").read_text(encoding="utf-8").replace(str(work), "WORK")
    (args.output / "results.json").write_text(json.dumps(json.loads(text), indent=1) + "\n", encoding="utf-8")
    rows = [line for name in ("pretrain", "adapt") for line in (stylizer / f"training/{name}.jsonl").open()]
    (args.output / "stylizer_log.jsonl").write_text("".join(rows[::10]), encoding="utf-8")
    report = (work / "demo/report.md").read_text(encoding="utf-8").replace(str(work), "WORK")
    (args.output / "report.md").write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
