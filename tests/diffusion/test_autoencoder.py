"""The networks are DiffAE's, and the known failures of home-made DiffAEs are not in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from specimens import randomise
from torch.nn import functional as F

from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder, EncoderBlock
from nnunet_osasis.diffusion.spn import StructurePreservingNetwork
from nnunet_osasis.diffusion.unet import AdaGNProjection
from nnunet_osasis.training.presets import PRESETS


def small(**changes: object) -> DiffusionAutoencoder:
    config = {
        **PRESETS["tiny"].model,
        "sample_size": 32,
        "block_out_channels": (16, 16, 32),
        "encoder_block_out_channels": (16, 16, 32, 32),
    }
    return DiffusionAutoencoder(**config | changes)


def test_residual_block_equals_diffae_formula() -> None:
    torch.manual_seed(0)
    model = randomise(small()).unet.eval()
    block = model.unet.down_blocks[0].resnets[0]
    assert isinstance(block, ResnetBlock2D)
    h, time, z = torch.randn(2, 16, 8, 8), torch.randn(2, 128), torch.randn(2, 128)
    projection: AdaGNProjection = block.time_emb_proj
    found = block(h, torch.cat([time, z, z], dim=1))
    # DiffAE: h <- (1 + z_s) * ((1 + t_s) * GN(conv1(SiLU(GN(h)))) + t_b), then SiLU, conv2, skip
    t_s, t_b = projection.time(F.silu(time)).chunk(2, dim=1)
    z_s = projection.z(F.silu(z))
    inner = block.norm2(block.conv1(F.silu(block.norm1(h))))
    inner = (1 + z_s[:, :, None, None]) * ((1 + t_s[:, :, None, None]) * inner + t_b[:, :, None, None])
    torch.testing.assert_close(found, h + block.conv2(F.silu(inner)), rtol=1e-5, atol=1e-5)


def test_whole_forward_equals_a_unet_whose_blocks_are_conditioned_by_hand() -> None:
    torch.manual_seed(0)
    model = randomise(small()).unet.eval()
    x, t, z = torch.randn(2, 3, 32, 32), torch.tensor([10, 700]), torch.randn(2, 128)
    expected = model(x, t, z)
    emb_time = model.unet.time_embedding.inner(model.unet.time_proj(t))

    def by_hand(module: ResnetBlock2D, args: tuple) -> torch.Tensor:
        h = args[0]
        skip, inner = h, F.silu(module.norm1(h))
        if module.upsample is not None:
            skip, inner = F.interpolate(h, scale_factor=2.0), F.interpolate(inner, scale_factor=2.0)
        if module.downsample is not None:
            skip, inner = F.avg_pool2d(h, 2), F.avg_pool2d(inner, 2)
        t_s, t_b = module.time_emb_proj.time(F.silu(emb_time))[:, :, None, None].chunk(2, dim=1)
        z_s = module.time_emb_proj.z(F.silu(z))[:, :, None, None]
        inner = (1 + z_s) * ((1 + t_s) * module.norm2(module.conv1(inner)) + t_b)
        if module.conv_shortcut is not None:
            skip = module.conv_shortcut(skip)
        return skip + module.conv2(F.silu(inner))

    hooks = [
        block.register_forward_hook(lambda m, args, out: by_hand(m, args))
        for block in model.modules()
        if isinstance(block, ResnetBlock2D)
    ]
    torch.testing.assert_close(model(x, t, z), expected, rtol=1e-4, atol=1e-5)
    assert len(hooks) > 8


def test_encoder_block_has_one_convolution_and_a_skip() -> None:
    block = randomise(EncoderBlock(16, 32, groups=16, down=True))
    x = torch.randn(2, 16, 8, 8)
    h = F.avg_pool2d(F.silu(block.norm(x)), 2)
    torch.testing.assert_close(block(x), block.skip(F.avg_pool2d(x, 2)) + block.conv(h))


def test_untrained_network_predicts_zero_and_training_opens_the_gradient_to_z() -> None:
    torch.manual_seed(0)
    model = small()
    x, t = torch.randn(4, 3, 32, 32), torch.full((4,), 300)
    assert model(x, t, x).abs().max() == 0
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        (model(x, t, x) - x).square().mean().backward()
        optimizer.step()
    z = model.semantic_encoder(x).detach().requires_grad_()
    model.unet(x, t, z).square().sum().backward()
    assert z.grad is not None
    assert (z.grad.abs().sum(dim=1) > 0).all()
    assert not torch.allclose(model.unet(x, t, z), model.unet(x, t, z.roll(1, 0)))


def test_fine_and_coarse_codes_reach_their_levels() -> None:
    torch.manual_seed(0)
    unet = randomise(small(fine_levels=(0,))).unet.eval()
    x, t, a, b = torch.randn(1, 3, 32, 32), torch.tensor([5]), torch.randn(1, 128), torch.randn(1, 128)
    plain = unet(x, t, a)
    torch.testing.assert_close(unet(x, t, a, a), plain)
    assert not torch.allclose(unet(x, t, a, b), plain)
    unet.set_fine_levels(())
    torch.testing.assert_close(unet(x, t, a, b), plain)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_any_number_of_channels(channels: int) -> None:
    model = small(in_channels=channels)
    assert (
        model(torch.randn(1, channels, 32, 32), torch.tensor([3]), torch.randn(1, channels, 32, 32)).shape[1]
        == channels
    )


def test_saved_and_loaded_gives_the_same_output(tmp_path: Path) -> None:
    model = randomise(small()).eval()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").is_file()
    assert not list(tmp_path.glob("*.bin"))
    again = DiffusionAutoencoder.from_pretrained(tmp_path).eval()
    x, t = torch.randn(1, 3, 32, 32), torch.tensor([3])
    torch.testing.assert_close(again(x, t, x), model(x, t, x))


def test_base_preset_has_diffaes_parameter_counts() -> None:
    with torch.device("meta"):
        model = DiffusionAutoencoder(**PRESETS["base"].model)
    millions = {n: sum(p.numel() for p in m.parameters()) / 1e6 for n, m in model.named_children()}
    # the official ffhq256 autoencoder: UNet 138.34 M, encoder 30.2 M
    assert millions["unet"] == pytest.approx(138.34, abs=0.01)
    assert millions["semantic_encoder"] == pytest.approx(30.2, abs=0.1)


def test_spn_adds_nothing_before_training_and_looks_at_single_pixels() -> None:
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([100, 200])
    assert StructurePreservingNetwork()(x, t).abs().max() == 0
    assert StructurePreservingNetwork(zero_init=False)(x, t).abs().max() > 0
    kernels = {m.kernel_size for m in StructurePreservingNetwork().modules() if isinstance(m, torch.nn.Conv2d)}
    assert kernels == {(1, 1)}
    spn = StructurePreservingNetwork(zero_init=False).eval()
    order = torch.randperm(256)
    shuffled = x.flatten(2)[:, :, order].view_as(x)
    torch.testing.assert_close(spn(shuffled, t).flatten(2), spn(x, t).flatten(2)[:, :, order], rtol=1e-4, atol=1e-5)


def test_official_spn_has_the_published_size() -> None:
    spn = StructurePreservingNetwork(hidden_channels=(128, 256), time_dim=512)
    assert sum(p.numel() for p in spn.parameters()) / 1e6 == pytest.approx(0.873, abs=0.001)
