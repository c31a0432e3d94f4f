"""What an uninstalled package left in an environment."""

from __future__ import annotations

from environment import Environment, Files

NAMES = ("nnunet_osasis", "nnunet-osasis", "monai_transforms", "osasis")
# "None None None" where neither package is installed and nnU-Net is not shown our trainers
SHOW = (
    "import os, importlib.util as u; "
    "print(os.environ.get('nnUNet_extTrainer'), u.find_spec('nnunet_osasis'), u.find_spec('monai_transforms'))"
)


def left_behind(environment: Environment, before: Files, commands: list[str]) -> dict:
    """Every value is empty when nothing is left; ``before`` is the environment without the package."""
    after = environment.files()
    broken = environment.pip("check", check=False).stdout.strip()
    seen = environment.output("python", "-P", "-c", SHOW)
    named = [
        p.relative_to(environment.folder).as_posix() for name in NAMES for p in environment.folder.rglob(f"*{name}*")
    ]
    return {
        "new_files": sorted(after.paths - before.paths),
        "files_with_our_name": sorted(set(named)),
        "packages": sorted(set(after.versions.items()) ^ set(before.versions.items())),
        "commands": [name for name in commands if (environment.bin / name).exists()],
        "in_a_new_interpreter": "" if seen == "None None None" else seen,
        "pip_check": "" if broken == "No broken requirements found." else broken,
    }
