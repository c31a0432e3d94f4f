"""PraNet, UNet++ and the rest as ONNX and TorchScript: the same logits, and all that is needed to use them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from scipy.ndimage import binary_fill_holes

from nnunet_osasis import OsasisError, trainers
from nnunet_osasis.networks import portable
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.export.model_folder import read_checkpoint
from nnunet_osasis.nnunet.export.networks import build_network
from nnunet_osasis.runtime.records import read_sealed_json
from nnunet_osasis.scripts import export

from .conftest import CONFIGURATIONS, RGB, VOLUME
from .plain_prediction import logits_and_labels

ONNX = all(portable.importlib.util.find_spec(name) for name in portable.FORMS["onnx"].packages)
NEEDS_ONNX = pytest.mark.skipif(not ONNX, reason="the optional packages of the extra 'export' are not installed")
MODELS = {
    "PraNet": ("nnUNetTrainerPraNet", RGB),
    "UNet++ 2D": ("nnUNetTrainerUNetPlusPlus", RGB),
    "UNet++ 3D": ("nnUNetTrainerUNetPlusPlus", VOLUME),
    "stock": ("nnUNetTrainerOSASIS", RGB),
}


def exported(model, output, form):
    export.main(["-i", str(model), "-o", str(output), "--format", form])
    return next(output.glob(f"Dataset*/{model.name}__{form}"))


def trained_network(model, dataset):
    settings = [json.loads((model / name).read_text()) for name in ("plans.json", "dataset.json")]
    weights = read_checkpoint(model / "fold_0/checkpoint_final.pth")["network_weights"]
    return build_network(getattr(trainers, model.name.split("__")[0]), *settings, CONFIGURATIONS[dataset], weights)


def patches(folder, batch, scale=1.0):
    shape = json.loads((folder / "preprocessing.json").read_text())["input"]["shape"]
    return scale * torch.randn((batch, *shape[1:]), generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize("kind", MODELS)
def test_torchscript_gives_every_bit_of_the_trained_networks_logits(train, tmp_path, kind):
    name, dataset = MODELS[kind]
    model = train(name, dataset)
    made = exported(model, tmp_path, "torchscript")
    network, loaded = trained_network(model, dataset), torch.jit.load(made / "fold_0.pt")
    with torch.inference_mode():
        for batch, scale in ((1, 1.0), (4, 3.0), (2, 0.1)):
            given = patches(made, batch, scale)
            assert torch.equal(loaded(given), network(given))
    record = read_sealed_json(made / "osasis_export.json", what="record")
    assert record["folds"]["0"]["compared"]["max_abs_difference"] == 0.0
    assert record["form"] == "torchscript"


@NEEDS_ONNX
@pytest.mark.parametrize(
    "kind", [kind if kind == "PraNet" else pytest.param(kind, marks=pytest.mark.slow) for kind in MODELS]
)
def test_onnx_gives_the_trained_networks_logits_in_another_runtime(train, tmp_path, capsys, kind):
    import onnxruntime

    name, dataset = MODELS[kind]
    model = train(name, dataset)
    made = exported(model, tmp_path, "onnx")
    assert "largest difference" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(made / "fold_0.onnx", providers=["CPUExecutionProvider"])
    network = trained_network(model, dataset)
    for batch, scale in ((1, 1.0), (4, 3.0), (2, 0.1)):
        given = patches(made, batch, scale)
        with torch.inference_mode():
            expected = network(given).numpy()
        found = session.run(["logits"], {"image": given.numpy()})[0]
        assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())


@pytest.mark.slow
def test_nnunet_without_our_package_predicts_with_a_torchscript_network(train, images, elsewhere, tmp_path):
    model = train("nnUNetTrainerPraNet", RGB)
    made = exported(model, tmp_path / "out", "torchscript")
    ours, theirs = logits_and_labels(model, images(RGB)), elsewhere(made, images(RGB), made / "fold_0.pt")
    np.testing.assert_array_equal(theirs["logits"], ours["logits"])
    np.testing.assert_array_equal(theirs["labels"], ours["labels"])


def test_plans_of_torchscript_folders_do_not_name_our_options(train, tmp_path):
    made = exported(train("nnUNetTrainerPraNet", RGB), tmp_path, "torchscript")
    assert "osasis" not in json.loads((made / "plans.json").read_text())["configurations"]["2d"]


@pytest.mark.parametrize("dataset", [RGB, VOLUME])
def test_the_description_alone_makes_what_nnunet_feeds_the_network(train, images, tmp_path, dataset):
    """Normalized by hand from preprocessing.json, an image equals the one nnU-Net preprocessed for training."""
    made = exported(train("nnUNetTrainerOSASIS", dataset), tmp_path, "torchscript")
    described = json.loads((made / "preprocessing.json").read_text())
    setup = NnunetConfiguration.load(dataset, CONFIGURATIONS[dataset])
    data, properties = setup.plans.image_reader_writer_class().read_images(images(dataset))
    case = data.transpose(0, *(axis + 1 for axis in described["transpose_forward"])).astype(np.float32)
    inside = np.argwhere((case != 0).any(0))
    case = case[:, *(slice(low, high + 1) for low, high in zip(inside.min(0), inside.max(0), strict=True))]
    assert list(properties["spacing"])[-2:] == pytest.approx(described["spacing"][-2:])  # so nothing is resampled
    mask = binary_fill_holes((case != 0).any(0))
    for image, channel in zip(case, described["channels"], strict=True):
        if channel["normalization"] == "RGBTo01Normalization":
            image /= 255
        elif channel["normalization"] == "CTNormalization":
            image[:] = np.clip(image, channel["percentile_00_5"], channel["percentile_99_5"])
            image[:] = (image - channel["mean"]) / channel["std"]
        else:
            assert channel["normalization"] == "ZScoreNormalization"
            where = mask if channel["only_inside_the_mask"] else np.ones_like(mask)
            image[where] = (image[where] - image[where].mean()) / image[where].std()
    folder = str(setup.preprocessed_folder / setup.manager.data_identifier)
    expected = infer_dataset_class(folder)(folder).load_case("case_0")[0][:]
    np.testing.assert_allclose(case, expected, atol=1e-4)


def test_the_description_tells_shapes_and_labels(train, tmp_path):
    made = exported(train("nnUNetTrainerOSASIS", VOLUME), tmp_path, "torchscript")
    described = json.loads((made / "preprocessing.json").read_text())
    assert described["input"] == {"name": "image", "type": "float32", "shape": ["batch", 2, 24, 24, 24]}
    assert described["output"]["shape"] == ["batch", 2, 24, 24, 24]
    assert described["output"]["then"] == "softmax"
    assert described["labels"] == {"background": 0, "lesion": 1}
    assert described["mirroring_axes"] == [0, 1, 2]
    assert [channel["name"] for channel in described["channels"]] == ["T1", "CT"]
    assert "not a medical device" in described["notice"]


def test_other_networks_do_not_become_plain_models(train, tmp_path):
    with pytest.raises(
        OsasisError, match=r"nnUNetTrainerPraNet\. Export it with --format onnx or --format torchscript"
    ):
        export.main(["-i", str(train("nnUNetTrainerPraNet", RGB)), "-o", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_without_its_packages_onnx_is_refused_with_the_command_that_installs_them(train, tmp_path, monkeypatch):
    monkeypatch.setattr(portable.importlib.util, "find_spec", lambda name: None)
    run = r"no onnx.*Run: pip install onnx onnxscript onnxruntime \(or use --format torchscript"
    with pytest.raises(OsasisError, match=run):
        exported(train("nnUNetTrainerPraNet", RGB), tmp_path, "onnx")


def test_a_network_that_came_out_different_is_not_exported(train, tmp_path, monkeypatch):
    model, honest = train("nnUNetTrainerPraNet", RGB), portable.write_torchscript

    def careless(network, example, path):
        for parameter in network.parameters():
            parameter.data.mul_(1.01)
        honest(network, example, path)
        for parameter in network.parameters():
            parameter.data.div_(1.01)

    form = portable.PortableForm(".pt", 0.0, careless, portable.read_torchscript)
    monkeypatch.setitem(portable.FORMS, "torchscript", form)
    with pytest.raises(OsasisError, match=r"must give PyTorch's logits.*fold 0\. Nothing was exported"):
        exported(model, tmp_path, "torchscript")
    assert not list(tmp_path.rglob("*.pt"))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torchscript", pytest.param("onnx", marks=NEEDS_ONNX)])
def test_the_same_command_gives_the_same_bytes_and_no_paths(train, tmp_path, form):
    """In two processes: torch numbers what it traces, and counts on within one."""
    model = train("nnUNetTrainerPraNet", RGB)
    for name in ("a", "b"):
        command = [sys.executable, "-m", "nnunet_osasis.scripts.export", "-i", str(model), "-o", str(tmp_path / name)]
        subprocess.run([*command, "--format", form], check=True, capture_output=True)
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file() and path.name != ".osasis.lock":
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name
            assert b"site-packages" not in path.read_bytes()
            assert str(tmp_path).encode() not in path.read_bytes()
