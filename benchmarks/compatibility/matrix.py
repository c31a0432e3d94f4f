"""Install the package in a fresh environment, try what users do first, uninstall it, and see that nothing is left.

``python benchmarks/compatibility/matrix.py --set oldest`` takes the lower bound of every dependency in pyproject.toml,
``--set newest`` what pip resolves today. Both kinds of install are tried, wheel and editable, from a copy of the tree.
Needs a network and about 9 GB of disk (PyTorch's CUDA build) while it runs; writes one JSON file, without paths.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import tempfile
import time
import tomllib
from pathlib import Path

from environment import Environment, copy_tree
from residue import left_behind

ROOT = Path(__file__).resolve().parents[2]
LEAST_FREE = 12e9  # bytes; an environment takes 7e9 to 9e9

_EVERY_TRAINER = "tests/nnunet/test_every_trainer.py::test_train_validate_resume_and_predict"
_NETWORK_FILES = "tests/nnunet/export/test_networks_as_files.py"
TRIED = {
    "wheel": [
        "tests/scripts/test_commands.py::test_pretrain_then_stylize_a_folder",
        "tests/stylizer/test_stylizer.py::test_saved_and_loaded_gives_the_same_pixels_and_fingerprint",
        "tests/stylizer/test_stylizer.py::test_two_builds_with_one_seed_write_the_same_bytes",
        "tests/networks/test_networks.py::test_four_full_size_maps_or_the_first_of_them",
        "tests/images/test_image_io.py",
        "tests/monai/test_transforms.py::test_same_pixels_as_the_stylizer_bit_for_bit",
        "tests/nnunet/test_training.py::test_train_validate_resume_and_predict",
        f"{_EVERY_TRAINER}[nnUNetTrainerPraNet-Dataset901_TinyRGB-2d]",
        f"{_EVERY_TRAINER}[nnUNetTrainerUNetPlusPlus-Dataset902_TinyVolume-3d_fullres]",
        "tests/nnunet/prepare/test_command.py::test_grey_pictures_get_one_channel_and_names_can_be_chosen",
        "tests/evaluation/metrics/test_evaluate.py::test_the_same_command_writes_the_same_bytes",
        "tests/nnunet/export/test_checkpoints.py",
        "tests/nnunet/export/test_plain_models.py::test_nnunet_without_our_package_gives_identical_logits",
        f"{_NETWORK_FILES}::test_torchscript_gives_every_bit_of_the_trained_networks_logits[PraNet]",
        f"{_NETWORK_FILES}::test_onnx_gives_the_trained_networks_logits_in_another_runtime[PraNet]",
    ],
    "editable": [
        "tests/scripts/test_commands.py::test_pretrain_then_stylize_a_folder",
        "tests/nnunet/test_training.py::test_lengths_are_nnunets_own",
    ],
}
FIND_TRAINER = (
    "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find; "
    "print(find('nnUNetTrainerOSASIS').__module__)"
)


def lower_bounds(project: dict) -> list[str]:
    """``name==bound`` for every dependency and every optional one but the tools of development."""
    optional = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for extra in optional if extra != "dev" for line in optional[extra])]
    return [line.split(",")[0].replace(">=", "==").replace(" ", "") for line in wanted]


def try_install(environment: Environment, tree: Path, kind: str) -> dict:
    """Install from ``tree``, run what is to be tried, uninstall, look for remains."""
    before = environment.files()
    options = ["--editable"] if kind == "editable" else []
    environment.pip("install", *options, str(tree))
    added = sorted(environment.versions().items() - before.versions.items())
    commands = tomllib.loads((tree / "pyproject.toml").read_text())["project"]["scripts"]
    result = {
        "kind": kind,
        "packages_added": [name for name, _ in added],
        "pip_check": environment.pip("check", check=False).stdout.strip(),
        "help_works": {name: environment.runs(name, "--help") for name in sorted(commands)},
        "osasis_info": environment.runs("osasis-info"),
        "nnunet_finds": environment.output("python", "-P", "-c", FIND_TRAINER).splitlines()[-1],
    }
    started = time.monotonic()
    result["tests"] = {"tried": TRIED[kind], **environment.pytest(tree, TRIED[kind])}
    result["tests"]["minutes"] = round((time.monotonic() - started) / 60, 1)
    environment.pip("uninstall", "--yes", "nnunet-osasis")
    result["after_uninstall"] = left_behind(environment, before, list(commands))
    return result


def sound(result: dict) -> bool:
    """Everything worked, and nothing is left."""
    return (
        result["packages_added"] == ["nnunet-osasis"]
        and result["pip_check"] == "No broken requirements found."
        and all(result["help_works"].values())
        and result["osasis_info"]
        and result["nnunet_finds"] == "nnunet_osasis.trainers.nnUNetTrainerOSASIS"
        and result["tests"]["passed"] > 0
        and not result["tests"]["failed"]
        and not any(result["after_uninstall"].values())
    )


def main() -> None:
    """Run one set and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--set", choices=("oldest", "newest"), required=True)
    parser.add_argument("--python", default="python3", help="interpreter to make the environment with")
    parser.add_argument("--kinds", nargs="+", choices=tuple(TRIED), default=list(TRIED))
    parser.add_argument("-o", type=Path, help="default: results/<set>-python<version>.json beside this file")
    args = parser.parse_args()
    if (free := shutil.disk_usage(tempfile.gettempdir()).free) < LEAST_FREE:
        parser.error(f"{free / 1e9:.0f} GB are free in {tempfile.gettempdir()}, {LEAST_FREE / 1e9:.0f} are needed")
    with tempfile.TemporaryDirectory(prefix="osasis-matrix-") as work:
        tree = copy_tree(ROOT, Path(work) / "tree")
        project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
        pins = lower_bounds(project) if args.set == "oldest" else []
        environment = Environment(args.python, Path(work) / "environment", pins)
        extras = project["optional-dependencies"]
        tools = [line for line in extras["dev"] if line.startswith(("pytest", "hypothesis"))]
        environment.pip("install", *project["dependencies"], *extras["export"], *extras["tensorboard"], *tools)
        found = {
            "set": args.set,
            "pins": pins,
            "python": environment.output("python", "-c", "import platform; print(platform.python_version())"),
            "system": f"{platform.system()} {platform.machine()}",
            "versions": environment.versions(),
            "installs": [try_install(environment, tree, kind) for kind in args.kinds],
        }
    found["sound"] = all(sound(result) for result in found["installs"])
    version = ".".join(found["python"].split(".")[:2])
    output = args.o or Path(__file__).parent / "results" / f"{args.set}-python{version}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n")
    for result in found["installs"]:
        tests, left = result["tests"], {k: v for k, v in result["after_uninstall"].items() if v}
        counts = f"{tests['passed']} passed, {len(tests['failed'])} failed, {len(tests['skipped'])} skipped"
        print(f"{args.set} {found['python']} {result['kind']}: {counts}; left behind: {left or 'nothing'}")
    print("sound" if found["sound"] else "NOT sound", output.name)
    if not found["sound"]:
        raise SystemExit(1)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error}\n{(error.stderr or error.stdout or '')[-3000:]}") from error
