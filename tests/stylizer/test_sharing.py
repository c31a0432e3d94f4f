"""What the diffusion read-outs compute once: the content's inversion, and one result for all strengths."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from specimens import unit_images

from nnunet_osasis.diffusion.sampler import SamplerConfig, decode_images, encode_images, spn_injection
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.stylizer import readouts as decoded_readouts
from nnunet_osasis.stylizer.config import identity_of
from nnunet_osasis.stylizer.readouts import DECODED
from nnunet_osasis.stylizer.stylizer import OSASISStylizer


@pytest.fixture
def other_style(stylizer: OSASISStylizer) -> OSASISStylizer:
    """Another style of the same autoencoder, as ``--from-stylizer`` makes them."""
    other = stylizer.configured()
    decoder = stylizer.autoencoder.make_unet().eval()
    decoder.load_state_dict({k: v + 0.01 for k, v in stylizer.decoder.state_dict().items()})
    other.decoder = decoder
    return other


@pytest.mark.parametrize("readout", DECODED)
def test_one_inversion_serves_every_readout_and_style(
    stylizer: OSASISStylizer, other_style: OSASISStylizer, readout: str
) -> None:
    images = unit_images(3)
    inversion = stylizer.invert(images)
    for one in (stylizer, other_style):
        shared = one.configured().stylize(images, readout=readout, inversion=inversion)
        assert torch.equal(shared, one.configured().stylize(images, readout=readout))


def test_an_inversion_is_used_and_not_made_again(stylizer: OSASISStylizer, monkeypatch: pytest.MonkeyPatch) -> None:
    images = unit_images(2)
    inversion = stylizer.invert(images)

    def again(*_: object, **__: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(decoded_readouts, "invert", again)
    stylizer.stylize(images, readout="raw", inversion=inversion)


def test_an_inversion_of_other_images_or_another_grid_is_refused(stylizer: OSASISStylizer) -> None:
    inversion = stylizer.invert(unit_images(2))
    with pytest.raises(OsasisError, match="serves the images it was made of"):
        stylizer.stylize(unit_images(2, first=5), readout="raw", inversion=inversion)
    longer = stylizer.configured(sampler=replace(stylizer.config.sampler, encode_steps=7))
    with pytest.raises(OsasisError, match="same autoencoder and grid"):
        longer.stylize(unit_images(2), readout="raw", inversion=inversion)
    with pytest.raises(OsasisError, match="same autoencoder and grid"):
        stylizer.stylize(unit_images(2), readout="raw", direction="target_to_source", inversion=inversion)


def test_a_volumes_inversion_serves_the_volume_alone(stylizer: OSASISStylizer) -> None:
    slices = unit_images(3)
    inversion = stylizer.invert(slices, joint=True)
    together = stylizer.stylize(slices, readout="raw", joint=True, inversion=inversion)
    assert torch.equal(together, stylizer.configured().stylize(slices, readout="raw", joint=True))
    apart = stylizer.stylize(slices, readout="raw")
    assert not torch.equal(apart, together)
    with pytest.raises(OsasisError, match="joint or not"):  # though the result of these slices is remembered
        stylizer.stylize(slices, readout="raw", inversion=inversion)


def test_what_cannot_be_stylized_is_not_inverted(stylizer: OSASISStylizer) -> None:
    with pytest.raises(OsasisError, match="takes images"):
        stylizer.invert(torch.zeros(1, 4, 32, 32))
    with pytest.raises(OsasisError, match="must be finite"):
        stylizer.invert(torch.full((1, 3, 32, 32), torch.nan))


def test_all_strengths_of_an_image_cost_one_run_of_the_networks(
    stylizer: OSASISStylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    inner = decoded_readouts.apply_decoded
    monkeypatch.setattr(decoded_readouts, "apply_decoded", lambda *a, **k: runs.append(1) or inner(*a, **k))
    images = unit_images(2)
    full, half = (stylizer.stylize(images, readout="local_affine", strength=s) for s in (1.0, 0.5))
    assert len(runs) == 1
    torch.testing.assert_close(half, ((images + full) / 2), atol=1e-6, rtol=0)
    stylizer.stylize(images.flip(-1), readout="local_affine")
    stylizer.stylize(images.flip(-1), readout="raw")
    assert len(runs) == 3


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


def test_a_stylizer_of_an_earlier_version_keeps_its_fingerprint(stylizer: OSASISStylizer) -> None:
    """Caches and manifests name it: what a later version added counts only where it is used."""
    earlier = stylizer.configured(sampler=SamplerConfig())
    known = {"order", "precision", "spn_steps"}
    assert not known & identity_of(earlier.config)["sampler"].keys()
    assert known & identity_of(stylizer.config)["sampler"].keys() == {"order", "spn_steps"}
    for name, value in {"order": 2, "precision": "bf16", "spn_steps": 10}.items():
        other = earlier.configured(sampler=replace(earlier.config.sampler, **{name: value}))
        assert other.fingerprint != earlier.fingerprint
