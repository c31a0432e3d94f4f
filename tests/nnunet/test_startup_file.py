"""nnU-Net finds our trainers in an installed package, with nothing set by the user."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PTH = "nnunet_osasis_trainers.pth"
SHOW = "import os; print(os.environ.get('nnUNet_extTrainer'))"
BUILD = """
import sys
sys.path.insert(0, ".")
import osasis_build
osasis_build.build_wheel("wheel")
osasis_build.build_editable("editable")
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the repository with both kinds of wheel in it, built by the repository's own backend."""
    pytest.importorskip("setuptools", minversion="77")
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "setup.py", "osasis_build.py", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("nnunet_osasis", "monai_transforms", "scripts", "trainers"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "README.md").write_text("# nnunet-osasis\n")
    for name in ("wheel", "editable"):
        (tree / name).mkdir()
    subprocess.run([sys.executable, "-c", BUILD], cwd=tree, check=True, capture_output=True)
    return tree


@pytest.fixture(params=["wheel", "editable"])
def python(request, tree, tmp_path):
    """An interpreter that sees this one's libraries, and the package installed from a wheel: (executable, folder)."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=os.name != "nt")
    site = next((tmp_path / "venv").glob("[Ll]ib/python*/site-packages" if os.name != "nt" else "Lib/site-packages"))
    (site / "zz-libraries.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
    with zipfile.ZipFile(next((tree / request.param).glob("*.whl"))) as wheel:
        wheel.extractall(site)
    executable = next(p for p in (tmp_path / "venv").glob("[bS]*/python*") if p.stem in ("python", "python.exe"))
    home = site if request.param == "wheel" else tree
    return executable, site, home / "nnunet_osasis" / "nnunet" / "ext_trainers"


def run(executable, code, **environment):
    clean = {k: v for k, v in os.environ.items() if k != "nnUNet_extTrainer" and not k.startswith("PYTHON")}
    answer = subprocess.run(
        [executable, "-P", "-c", code], env={**clean, **environment}, check=True, capture_output=True, text=True
    )
    assert PTH not in answer.stderr  # Python reports a start-up file that fails, and goes on
    return answer.stdout.strip()


def test_the_folder_is_shown_to_nnunet_and_to_child_processes(python):
    executable, _, folder = python
    assert run(executable, SHOW) == str(folder)
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SHOW!r}], check=True)"
    assert run(executable, child) == str(folder)


def test_the_users_own_folders_stay_and_come_first(python):
    executable, _, folder = python
    assert run(executable, SHOW, nnUNet_extTrainer=f"/mine{os.pathsep}/other") == os.pathsep.join(
        ["/mine", "/other", str(folder)]
    )


def test_a_half_removed_package_leaves_the_interpreter_alone(python):
    executable, site, folder = python
    if site in folder.parents:
        shutil.rmtree(site / "nnunet_osasis" / "nnunet")
        assert run(executable, SHOW) == "None"
        shutil.rmtree(site / "nnunet_osasis")
    else:
        pth = site / PTH
        pth.write_text(pth.read_text().replace("ext_trainers", "gone"))
    # the libraries this interpreter borrows may hold an installed copy of their own, which it may then find
    assert str(folder) not in run(executable, SHOW)


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_uninstalling_removes_the_file_because_record_lists_it(tree, kind):
    with zipfile.ZipFile(next((tree / kind).glob("*.whl"))) as wheel:
        names = wheel.namelist()
        record = wheel.read(next(name for name in names if name.endswith("RECORD"))).decode().splitlines()
        text = wheel.read(PTH)
    digest = base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=").decode()
    assert f"{PTH},sha256={digest},{len(text)}" in record
    assert len(record) == len(names) == len(set(names))


def test_the_wheel_holds_the_two_folders_that_live_elsewhere_and_nothing_at_the_top(tree):
    with zipfile.ZipFile(next((tree / "wheel").glob("*.whl"))) as wheel:
        names = wheel.namelist()
    assert "nnunet_osasis/trainers/nnUNetTrainerOSASIS.py" in names
    assert any(name.startswith("nnunet_osasis/scripts/") for name in names)
    assert {name.split("/")[0] for name in names} <= {
        "monai_transforms",
        "nnunet_osasis",
        "nnunet_osasis-0.1.0.dist-info",
        PTH,
    }


@pytest.mark.slow
def test_nnunet_finds_the_trainer_by_name_alone(python):
    executable, _, _ = python
    code = (
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find; import pickle; "
        "t = find('nnUNetTrainerOSASIS'); assert pickle.loads(pickle.dumps(t)) is t; print(t.__module__)"
    )
    assert run(executable, code).splitlines()[-1] == "nnunet_osasis.trainers.nnUNetTrainerOSASIS"
