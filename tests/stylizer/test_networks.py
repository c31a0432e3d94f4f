"""What the networks compute: the SPN's share, half precision, compiled graphs, attention."""

from __future__ import annotations

import pytest
import torch
from specimens import unit_images

from nnunet_osasis.diffusion.sampler import SamplerConfig, decode_images, encode_images, spn_injection
from nnunet_osasis.stylizer.stylizer import OSASISStylizer


def test_what_the_spn_adds_does_not_grow_with_the_steps(stylizer: OSASISStylizer) -> None:
    image, zero = unit_images(1), torch.zeros(1, dtype=torch.long)
    sums = {}
    for held in (None, 5):
        for steps in (5, 20):
            config = SamplerConfig(decode_steps=steps, spn_steps=held)
            inject = spn_injection(stylizer.spn, image, config)
            sums[held, steps] = sum(inject(image, zero + t).abs().mean().item() for t in [100] * steps)
    assert sums[None, 5] > 0
    assert sums[5, 20] == pytest.approx(sums[5, 5], rel=1e-5)
    assert sums[None, 20] == pytest.approx(4 * sums[None, 5], rel=1e-5)


def test_half_the_precision_is_near_and_adds_up_in_full(stylizer: OSASISStylizer) -> None:
    images = unit_images(2)
    full, half = (SamplerConfig(encode_steps=4, decode_steps=4, precision=p) for p in ("fp32", "bf16"))
    with torch.inference_mode():
        code = stylizer.autoencoder.semantic_encoder(images)
        unet = stylizer.autoencoder.unet
        noise = [encode_images(unet, images, code, config) for config in (full, half)]
        back = [decode_images(unet, x, code, config) for x, config in zip(noise, (full, half), strict=True)]
    assert noise[1].dtype == back[1].dtype == torch.float32
    assert not torch.equal(back[0], back[1])
    torch.testing.assert_close(back[1], back[0], atol=0.05, rtol=0)


def test_compiled_networks_give_the_same_picture(stylizer: OSASISStylizer) -> None:
    images = unit_images(2)
    plain = stylizer.stylize(images, readout="raw")
    whole = stylizer.configured().compile(backend="eager", fullgraph=True)  # graphs without breaks, no code generated
    torch.testing.assert_close(whole.stylize(images, readout="raw"), plain, atol=1e-5, rtol=0)
    torch.compiler.reset()


def test_attention_is_torchs_own(stylizer: OSASISStylizer) -> None:
    found = [
        m for network in (stylizer.autoencoder, stylizer.decoder) for m in network.modules() if hasattr(m, "processor")
    ]
    assert found
    assert {type(module.processor).__name__ for module in found} == {"AttnProcessor2_0"}  # scaled_dot_product_attention
