"""What the code never does: run what it reads, ask the network, start a shell, write outside its folder."""

from __future__ import annotations

import ast
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from specimens import draw

import monai_transforms
import nnunet_osasis
from monai_transforms import OSASISStylize
from nnunet_osasis import OsasisError
from nnunet_osasis.images.headers import MAX_VALUES, VARIABLE
from nnunet_osasis.images.io import read_image
from nnunet_osasis.networks.imagenet import find_imagenet_weights, load_imagenet_weights
from nnunet_osasis.networks.pranet import PraNet
from nnunet_osasis.runtime.records import write_sealed_json
from nnunet_osasis.scripts import info, stylize
from nnunet_osasis.training.adaptation.embedders import load_clip

from .files import meta, nifti, nrrd, png_chunks, png_header

ROOTS = [Path(nnunet_osasis.__file__).parent, Path(monai_transforms.__file__).parent]
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "marshal.load", "marshal.loads", "shelve.open", "yaml.load", "yaml.unsafe_load", "joblib.load", "tempfile.mktemp",
    "subprocess.getoutput", "subprocess.getstatusoutput", "zipfile.extractall", "tarfile.open", "shutil.unpack_archive",
    "urllib.request.urlopen", "urllib.request.urlretrieve", "requests.get", "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "hf_hub_download", "huggingface_hub.hf_hub_download", "snapshot_download",
}  # fmt: skip


def _sources() -> list[Path]:
    import nnunet_osasis.scripts
    import nnunet_osasis.trainers

    elsewhere = [Path(module.__file__ or "").parent for module in (nnunet_osasis.scripts, nnunet_osasis.trainers)]
    return sorted({path for root in (*ROOTS, *elsewhere) for path in root.rglob("*.py")})


def _called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def test_no_source_runs_what_it_reads_or_starts_a_shell() -> None:
    calls = [
        (path, node)
        for path in _sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]
    assert len(calls) > 5000  # the sources are there
    for path, call in calls:
        name, given = _called(call), {word.arg: word.value for word in call.keywords}
        where = f"{path.name}:{call.lineno}: {ast.unparse(call)[:80]}"
        assert name not in CALLS, where
        assert "shell" not in given, where
        assert not name.endswith((".extractall", ".extract")), where
        if name == "torch.load":
            assert ast.unparse(given["weights_only"]) == "True", where
        if name in ("np.load", "numpy.load"):
            assert ast.unparse(given["allow_pickle"]) == "False", where
        assert ast.unparse(given.get("allow_pickle", ast.Constant(False))) == "False", where
        assert "trust_remote_code" not in given, where


def test_weights_of_a_backbone_are_never_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {tmp_path}/owned",)

    for name in ("w.pth", "w.bin", "w.safetensors"):
        torch.save({"conv1.weight": Evil()}, tmp_path / name)
        with pytest.raises(OsasisError, match="whole safetensors file"):
            load_imagenet_weights(PraNet(3, 1, backbone="resnet18"), tmp_path / name)
    assert not (tmp_path / "owned").exists()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every attempt to use a socket raises something that nobody here catches."""

    class Offline(BaseException):
        pass

    def refuse(*args: object, **options: object) -> None:
        raise Offline(f"a socket: {args}")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.mark.usefixtures("no_network")
def test_nothing_asks_the_network(stylizer_folder: Path, image_folder: Path, tmp_path: Path) -> None:
    stylize.main(
        ["-i", str(image_folder / "images"), "-o", str(tmp_path), "--stylizer", str(stylizer_folder), "-device", "cpu"]
    )
    info.main([str(stylizer_folder)])
    OSASISStylize(stylizer_folder)(draw(0))
    assert len(list(tmp_path.glob("*.png"))) == 6
    find_imagenet_weights("res2net50_26w_4s.in1k")
    for clip in ("ViT-B-32-quickgelu:openai", "hf-hub:somebody/model", "nowhere"):
        with pytest.raises(OsasisError):
            load_clip(clip, torch.nn.Identity())  # type: ignore[arg-type]


def test_importing_asks_nobody() -> None:
    code = (
        "import socket\n"
        "def refuse(*args, **options): raise SystemExit(f'a socket: {args}')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import nnunet_osasis, monai_transforms, nnunet_osasis.scripts.stylize, nnunet_osasis.scripts.report\n"
        "import nnunet_osasis.trainers, nnunet_osasis.stylizer.stylizer\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


def _limited(code: str, gigabytes: float, *arguments: str) -> subprocess.CompletedProcess:
    """Run code in a process that may take so much address space more than the libraries have taken already."""
    start = (
        "import resource, sys, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from nnunet_osasis.images.io import read_image\n"
        "from nnunet_osasis import OsasisError\n"
        "from nnunet_osasis.evaluation.metrics.reading import read_probabilities\n"
        "import PIL.Image, tifffile, SimpleITK\n"
        "taken = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"limit = taken + int({gigabytes} * 2**30)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", start + code, *arguments], capture_output=True, text=True, check=False, timeout=120
    )


BOMBS: dict[str, bytes] = {
    "a.png": png_chunks(png_header(60000, 60000), (b"IDAT", b""), (b"IEND", b"")),
    "a.bmp": b"BM" + bytes(12) + (40).to_bytes(4, "little") + (90000).to_bytes(4,
    "little") * 2 + b"\1\0\x18\0" + bytes(24),
    "a.nii": nifti((32000, 32000, 32000)), "a.mha": meta(DimSize="100000 100000 100000"),
    "b.mha": meta(ElementNumberOfChannels="1000000000"), "a.nrrd": nrrd(sizes="100000 100000 100000"),
    "b.nii": nifti((1000, 1000, 1000)), "c.nii": nifti((32767, 32767, 1)),
}  # fmt: skip


def _tiff_bombs(folder: Path) -> None:
    import struct
    import zlib

    packed = zlib.compress(bytes(2**30), 9)

    def page(width: int, height: int, rows: int, data: bytes) -> bytes:
        tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 8), (277, 3, 1),
            (278, 4, rows),
                (279, 4, len(data))]  # fmt: skip
        entries = b"".join(struct.pack("<HHII", code, kind, 1, value) for code, kind, value in tags)
        return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)

    (folder / "huge.tif").write_bytes(page(2**20, 2**20, 2**20, b"x"))
    (folder / "strip.tif").write_bytes(page(16, 16, 2**31 - 1, b"x"))
    (folder / "zlib.tif").write_bytes(page(16, 16, 16, packed))


def test_no_file_takes_more_memory_than_its_picture(tmp_path: Path) -> None:
    for name, data in BOMBS.items():
        (tmp_path / name).write_bytes(data)
    _tiff_bombs(tmp_path)
    code = (
        "refused, large = 0, []\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        found = read_image(name).array\n"
        "        large.append((name, found.shape)) if found.size > 300 else None\n"
        "    except OsasisError as error:\n"
        "        refused += 1\n"
        "        assert 'allocate' not in str(error), error\n"
        "print(refused, large)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - taken < 2**29)\n"
    )
    files = sorted(str(path) for path in tmp_path.iterdir())
    done = _limited(code, 0.75, *files)
    assert done.returncode == 0, done.stderr[-800:]
    refused, large = done.stdout.splitlines()[0].split(" ", 1)
    assert large == "[]"
    assert int(refused) >= len(files) - 1  # a small picture whose data unpack to more may be read, cut to its size


def test_the_limit_is_stated_and_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.nii").write_bytes(nifti())
    assert MAX_VALUES == 2**30
    for limit, wrong in (("100", False), ("x", True), ("-1", True), ("0", True), ("9" * 30, True)):
        monkeypatch.setenv(VARIABLE, limit)
        for name in ("a.png", "a.nii"):
            with pytest.raises(OsasisError, match=VARIABLE if wrong else "at most"):
                read_image(tmp_path / name)
    monkeypatch.setenv(VARIABLE, "600")
    assert read_image(tmp_path / "a.png").array.size == 600


def test_results_stay_in_their_folder(stylizer_folder: Path, image_folder: Path, tmp_path: Path) -> None:
    """Names in a manifest are read, never followed; a link in the output is replaced, not written through."""
    (tmp_path / "victim.png").write_bytes(b"mine")
    output = tmp_path / "out"
    output.mkdir()
    (output / "case 1.png").symlink_to(tmp_path / "victim.png")
    write_sealed_json(output / "osasis_manifest.json", {"settings": {}, "images": {"../victim.png": {"source": "0"}}})
    line = ["-i", str(image_folder / "images"), "-o", str(output), "--stylizer", str(stylizer_folder), "-device", "cpu"]
    with pytest.raises(OsasisError, match="other options"):
        stylize.main(line)
    (output / "osasis_manifest.json").unlink()
    stylize.main(line)
    assert (tmp_path / "victim.png").read_bytes() == b"mine"
    assert not (output / "case 1.png").is_symlink()


@pytest.mark.skipif(sys.platform != "linux", reason="resource limits as Linux has them")
def test_deep_json_does_not_end_the_interpreter(tmp_path: Path) -> None:
    (tmp_path / "stylizer.json").write_text("[" * 10**6)
    done = subprocess.run(
        [sys.executable, "-m", "nnunet_osasis.scripts.info", str(tmp_path)], capture_output=True, text=True,
            check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("Error: ") == 1
    assert "Traceback" not in done.stderr
