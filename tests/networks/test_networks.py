"""One contract for every segmentation network, and what only one of them promises."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from specimens import randomise
from torch.nn import functional as F

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.networks import PraNet, StructureLoss, UNetPlusPlus
from nnunet_osasis.networks.padding import crop_to, pad_to_multiple
from nnunet_osasis.networks.pranet_blocks import reverse_attention

NARROW = (8, 8, 8, 8, 8, 8)
NETWORKS = {
    "PraNet": (partial(PraNet, backbone="test_resnet"), (64, 64)),
    "UNet++ 2D": (partial(UNetPlusPlus, features=NARROW), (32, 32)),
    "UNet++ 3D": (partial(UNetPlusPlus, spatial_dims=3, features=NARROW), (32, 32, 32)),
}


@pytest.fixture(params=NETWORKS, ids=str)
def case(request):
    """A builder of the network, and a size it needs no padding for."""
    torch.manual_seed(0)
    return NETWORKS[request.param]


def test_four_full_size_maps_or_the_first_of_them(case):
    build, size = case
    network = build(3, 2).eval()
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        maps = network(images)
        assert [tuple(logits.shape) for logits in maps] == [(2, 2, *size)] * 4
        network.deep_supervision = False
        alone = network(images)
    assert isinstance(alone, torch.Tensor)
    torch.testing.assert_close(alone, maps[0])
    assert isinstance(build(3, 2, deep_supervision=False).train()(images), torch.Tensor)


@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (2, 2), (4, 4)])
def test_any_number_of_channels_and_classes(case, channels, classes):
    build, size = case
    assert build(channels, classes).eval()(torch.rand(1, channels, *size))[0].shape == (1, classes, *size)


@pytest.mark.parametrize("sides", [(37, 50, 33), (5, 19, 2), (1, 1, 1)], ids=["odd", "smaller-than-the-unit", "single"])
def test_any_size_comes_back_whole_even_while_training_on_one_image(case, sides):
    build, size = case
    sides = sides[: len(size)]
    for logits in build(1, 2).train()(torch.rand(1, 1, *sides)):
        assert logits.shape[2:] == sides
        assert logits.isfinite().all()


@pytest.mark.parametrize("deep_supervision", [True, False])
def test_the_loss_reaches_every_weight_it_should(case, deep_supervision):
    build, size = case
    network = randomise(build(2, 2, deep_supervision=deep_supervision)).train()
    maps = network(torch.rand(2, 2, *size))
    sum(logits.square().mean() for logits in (maps if deep_supervision else [maps])).backward()
    unused = tuple(f"heads.seg_layers.{i}" for i in range(3)) if not deep_supervision else ()
    for name, parameter in network.named_parameters():
        # DistributedDataParallel waits for a gradient of every weight, used or not.
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if name.startswith(unused):
            assert not parameter.grad.any(), name
        else:
            assert parameter.ndim == 1 or parameter.grad.abs().sum() > 0, name


def test_a_batch_is_predicted_as_its_images_alone(case):
    build, size = case
    network = build(1, 2, deep_supervision=False).eval()
    images = torch.rand(3, 1, *size)
    with torch.no_grad():
        together = network(images)
        for image, logits in zip(images, together, strict=True):
            torch.testing.assert_close(network(image[None])[0], logits, rtol=1e-4, atol=1e-5)


def test_saved_weights_give_the_same_answer_whatever_the_supervision(case, tmp_path):
    build, size = case
    first, second = build(1, 2).eval(), build(1, 2, deep_supervision=False).eval()
    save_file(first.state_dict(), tmp_path / "model.safetensors")
    second.load_state_dict(load_file(tmp_path / "model.safetensors"))
    image = torch.rand(1, 1, *size)
    with torch.no_grad():
        torch.testing.assert_close(second(image), first(image)[0])


@pytest.mark.parametrize("deep_supervision", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_torch_compile_takes_the_whole_graph(case, deep_supervision):
    build, size = case
    network = build(1, 2, deep_supervision=deep_supervision).eval()
    image = torch.rand(1, 1, *(side - 3 for side in size))
    with torch.no_grad():
        compiled = torch.compile(network, fullgraph=True, backend="eager")(image)
        torch.testing.assert_close(compiled, network(image), rtol=1e-4, atol=1e-5)
    torch.compiler.reset()


def test_a_single_image_can_be_learned(case):
    build, size = case
    size = tuple(side - 4 for side in size)
    grid = torch.stack(torch.meshgrid(*(torch.linspace(-1, 1, side) for side in size), indexing="ij"))
    label = ((grid**2).sum(0) < 0.4).long()[None, None]
    image = label + 0.3 * torch.randn(1, 1, *size)
    network = build(1, 2).train()
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    loss = StructureLoss() if len(size) == 2 else lambda maps, y: sum(F.cross_entropy(m, y[:, 0]) for m in maps)
    for _ in range(48):
        optimizer.zero_grad()
        maps = network(image)
        loss(maps, label).backward()
        optimizer.step()
        predicted = maps[0].argmax(1)
        dice = 2 * (predicted * label[:, 0]).sum() / (predicted.sum() + label.sum())
        if dice > 0.9:
            return
    pytest.fail(f"Dice is {dice:.2f} only")


def test_the_default_backbone_is_res2net50():
    network = PraNet().eval()
    assert sum(p.numel() for p in network.encoder.parameters()) == 23_650_120
    with torch.no_grad():
        assert [tuple(m.shape) for m in network(torch.rand(1, 3, 70, 45))] == [(1, 1, 70, 45)] * 4


def test_the_kind_of_channels_travels_with_the_weights():
    assert PraNet(3, 2, backbone="test_resnet").exclusive
    assert not PraNet(3, 1, backbone="test_resnet").exclusive
    trained = PraNet(3, 2, backbone="test_resnet", exclusive=False).eval()
    rebuilt = PraNet(3, 2, backbone="test_resnet").eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        rebuilt.load_state_dict(trained.state_dict())
        torch.testing.assert_close(rebuilt(image), trained(image))
        rebuilt.set_exclusive(True)
        assert not torch.allclose(rebuilt(image)[0], trained(image)[0])


def test_reverse_attention_is_what_the_coarser_map_left_over():
    logits = torch.randn(2, 3, 4, 5)
    classes = reverse_attention(logits, torch.tensor(True))
    torch.testing.assert_close(classes[:, 0], logits.softmax(1)[:, 0])
    regions = reverse_attention(logits, torch.tensor(False))
    torch.testing.assert_close(regions[:, 0], 1 - logits.sigmoid().amax(1))


def test_nested_nodes_are_monais_own():
    network = UNetPlusPlus(2, 3, features=NARROW).eval()
    images = torch.rand(1, 2, 32, 48)
    with torch.no_grad():
        maps = network(images)
        for j, head in enumerate(network.heads.seg_layers, start=1):
            setattr(network.nested, f"final_conv_0_{j}", head)  # where MONAI's own forward looks for it
        torch.testing.assert_close(maps, network.nested(images)[::-1])


def test_thin_volumes_are_not_padded_to_twice_their_size():
    network, seen = UNetPlusPlus(1, 2, spatial_dims=3, features=NARROW).train(), []
    network.nested.conv_0_0.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    network(torch.rand(1, 1, 14, 40, 33))
    network(torch.rand(1, 1, 3, 5, 9))
    assert seen == [(16, 48, 48), (32, 32, 32)]


def test_images_of_another_kind_are_refused(case):
    build, size = case
    for shape in ((1, 2, *size), (3, *size), (1, 3, *size, 8)):
        with pytest.raises(OsasisError, match=r"takes \(B, 3, H, W"):
            build(3, 2)(torch.rand(*shape))


def test_a_model_of_other_classes_can_be_fine_tuned_by_nnunet(case, tmp_path):
    """`nnUNetv2_train -pretrained_weights` takes everything but the output layers."""
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    build, _ = case
    trained, network = build(3, 5), build(3, 2)
    torch.save({"network_weights": trained.state_dict()}, tmp_path / "checkpoint.pth")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    load_pretrained_weights(network, str(tmp_path / "checkpoint.pth"))
    outputs = [name for name in before if ".seg_layers." in name]
    assert outputs
    for name, value in network.state_dict().items():
        assert torch.equal(value, (before if name in outputs else trained.state_dict())[name]), name


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: PraNet(backbone="resnet5000"), "resnet5000"),
        (lambda: PraNet(backbone="hf-hub:timm/resnet18"), "installed timm"),  # and not fetched
        (lambda: PraNet(backbone="test_vit"), "strides 8, 16 and 32"),
        (lambda: PraNet(3, 1, backbone="test_resnet", exclusive=True), "one output channel"),
        (lambda: UNetPlusPlus(spatial_dims=1), "spatial_dims=1"),
        (lambda: UNetPlusPlus(features=(8, 8)), r"\(8, 8\)"),
    ],
)
def test_what_cannot_be_built_is_refused(build, named):
    with pytest.raises(OsasisError, match=named):
        build()


@pytest.mark.parametrize("sides", [(33, 40), (3, 64), (1, 7, 130)])
def test_padding_is_symmetric_and_undone(sides):
    image = torch.rand(2, 1, *sides)
    padded = pad_to_multiple(image, 32, minimum=64)
    assert all(side % 32 == 0 and side >= 64 for side in padded.shape[2:])
    torch.testing.assert_close(crop_to(padded, sides), image)
    assert padded.min() == image.min() and padded.max() == image.max()
    assert pad_to_multiple(padded, 32, minimum=64) is padded


def test_padding_reflects_where_the_image_is_long_enough():
    row = torch.arange(6.0).view(1, 1, 1, 6).expand(1, 1, 6, 6)
    assert pad_to_multiple(row, 10)[0, 0, 0].tolist() == [2, 1, 0, 1, 2, 3, 4, 5, 4, 3]
    assert pad_to_multiple(row[..., :2], 6)[0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1]


def test_importing_the_package_loads_none_of_this():
    code = "import sys, nnunet_osasis; assert not {'timm', 'monai', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
