"""What a user of a stylizer relies on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from specimens import build_tiny, draw, unit_images

from nnunet_osasis import OsasisError, OSASISStylizer
from nnunet_osasis.images.intensity import IntensityRange
from nnunet_osasis.maps.field_of_view import find_frame
from nnunet_osasis.stylizer.names import NETWORK_READOUTS, READOUTS, STUDENT
from nnunet_osasis.transfer import StyleTransfer

DIRECTIONS = ("source_to_target", "target_to_source")


def test_it_is_a_style_transfer(stylizer: OSASISStylizer) -> None:
    assert isinstance(stylizer, StyleTransfer)
    assert stylizer.in_channels == 3


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("size", [(32, 32), (50, 41)])
def test_every_readout_works_in_both_directions_at_any_size(
    stylizer: OSASISStylizer, readout: str, direction: str, size: tuple[int, int]
) -> None:
    images = torch.nn.functional.interpolate(unit_images(2), size=size, mode="bilinear")
    found = stylizer.stylize(images, readout=readout, direction=direction)
    assert found.shape == images.shape
    assert torch.isfinite(found).all()
    assert found.abs().max() <= 1
    assert not torch.equal(found, images)


@pytest.mark.parametrize("readout", READOUTS)
def test_strength_zero_is_the_identity_bit_for_bit(stylizer: OSASISStylizer, readout: str) -> None:
    images = unit_images(2)
    assert torch.equal(stylizer.stylize(images, strength=0, readout=readout), images)
    array = draw(3).astype(np.float32) + 0.25
    assert np.array_equal(stylizer.stylize_array(array, strength=0), array)


def test_strength_scales_the_change_linearly(stylizer: OSASISStylizer) -> None:
    images = unit_images(1) * 0.5
    full, half = (stylizer.stylize(images, strength=s) - images for s in (1.0, 0.5))
    torch.testing.assert_close(half, full / 2, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("readout", READOUTS)
def test_a_batch_gives_what_single_images_give(stylizer: OSASISStylizer, readout: str) -> None:
    images = unit_images(3)
    together = stylizer.stylize(images, readout=readout)
    alone = torch.cat([stylizer.stylize(image[None], readout=readout) for image in images])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)


def test_the_way_back_undoes_a_colour_map(stylizer: OSASISStylizer) -> None:
    images = unit_images(4) * 0.4
    there = stylizer.stylize(images, readout="pair")
    back = stylizer.stylize(there, readout="pair", direction="target_to_source")
    assert (back - images).abs().mean() < (there - images).abs().mean()


PARAMETRIC = [readout for readout in READOUTS if readout not in (STUDENT, *NETWORK_READOUTS)]


@pytest.mark.parametrize("readout", PARAMETRIC)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_parametric_readouts_see_one_pixel_and_its_place(
    stylizer: OSASISStylizer, readout: str, direction: str
) -> None:
    """So they can move no edge: whatever all other pixels become, a pixel's result stays the same, bit for bit."""
    image = unit_images(1).clamp(-0.7, 0.9)  # all in view
    kept = torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) < 0.1
    found = stylizer.stylize(image, readout=readout, direction=direction)
    assert not torch.equal(found, image)
    shuffled = image.flatten(2)[..., torch.randperm(32 * 32, generator=torch.Generator().manual_seed(1))]
    for others in (shuffled.view_as(image), image.flip(-1), -0.5 * image, torch.full_like(image, 0.3)):
        altered = torch.where(kept, image, others)
        result = stylizer.stylize(altered, readout=readout, direction=direction)
        assert torch.equal(result[..., kept], found[..., kept])
        assert not torch.equal(result, found)


@pytest.mark.parametrize("readout", [STUDENT, *NETWORK_READOUTS])
def test_decoded_readouts_see_the_whole_picture(stylizer: OSASISStylizer, readout: str) -> None:
    """The property above is one that a read-out can lack."""
    image = unit_images(1).clamp(-0.7, 0.9)
    altered = image.clone()
    altered[..., :16] = 0.5 * image[..., :16].flip(-1)
    found = [stylizer.stylize(one, readout=readout)[..., 24:] for one in (image, altered)]
    assert not torch.equal(*found)


def test_the_frame_stays_black(stylizer: OSASISStylizer) -> None:
    images = unit_images(1)
    images[..., :6] = -1
    stylizer.frame = find_frame(images)
    assert stylizer.frame is not None
    for readout in READOUTS:
        assert torch.equal(stylizer.stylize(images, readout=readout)[..., :6], images[..., :6])


def test_saved_and_loaded_gives_the_same_pixels_and_fingerprint(stylizer_folder: Path, tmp_path: Path) -> None:
    first = OSASISStylizer.from_pretrained(stylizer_folder)
    first.save_pretrained(tmp_path / "copy")
    second = OSASISStylizer.from_pretrained(tmp_path / "copy")
    images = unit_images(2)
    for readout in READOUTS:
        assert torch.equal(first.stylize(images, readout=readout), second.stylize(images, readout=readout))
    assert first.fingerprint == second.fingerprint
    assert first.configured(strength=0.5).fingerprint != first.fingerprint
    assert first.configured(readout="raw").fingerprint == second.configured(readout="raw").fingerprint


def test_two_builds_with_one_seed_write_the_same_bytes(stylizer_folder: Path, tmp_path: Path) -> None:
    build_tiny(tmp_path / "again")
    names = sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    names = [name for name in names if name.suffix != ".jsonl"]  # logs hold seconds
    assert any(name.suffix == ".safetensors" for name in names)
    assert any(name.suffix == ".png" for name in names)
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (stylizer_folder / name).read_bytes(), name


def test_pictures_do_not_depend_on_matplotlibs_settings(tmp_path: Path) -> None:
    """nnU-Net changes them for its whole process."""
    import matplotlib

    from nnunet_osasis.images.grids import save_grid

    columns = [("source", unit_images(2))]
    plain = save_grid(tmp_path / "a.png", columns, title="one").read_bytes()
    with matplotlib.rc_context({"font.size": 25, "axes.facecolor": "red", "savefig.dpi": 50, "figure.dpi": 50}):
        assert save_grid(tmp_path / "b.png", columns, title="one").read_bytes() == plain


@pytest.mark.slow
def test_both_loss_presets_train(tmp_path: Path) -> None:
    build_tiny(tmp_path / "paper", losses="paper", statistics=0.0)
    rows = [json.loads(line) for line in (tmp_path / "paper/training/adapt.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert {"adversarial", "cycle", "spn"} <= set(rows[-1])
    assert all(np.isfinite(value) for row in rows for value in row.values())


def test_the_published_recipe_is_there_and_differs_where_the_facts_say() -> None:
    from nnunet_osasis.training.adaptation.recipes import get_recipe

    recipe = get_recipe("osasis")
    assert recipe.sampler.t0 == 500
    assert recipe.sampler.grid_power == 1
    assert recipe.sampler.level_alignment == "official"
    assert recipe.sampler.decode_grid()[-1] == 450
    assert get_recipe("default").sampler.decode_grid()[-1] == 300


@pytest.mark.parametrize("channels", [1, pytest.param(2, marks=pytest.mark.slow), 4])
def test_any_number_of_channels_and_volumes(tmp_path: Path, channels: int) -> None:
    stylizer = build_tiny(tmp_path / "s", channels=channels)
    volume = np.stack([draw(i, channels=channels) for i in range(3)], axis=1).astype(np.float32)
    found = stylizer.stylize_array(volume)
    assert found.shape == volume.shape
    assert found.dtype == np.float32
    for z in range(3):
        np.testing.assert_allclose(found[:, z], stylizer.stylize_array(volume[:, z]), atol=1e-3)


def test_a_volumes_slices_share_one_intensity_range(stylizer: OSASISStylizer) -> None:
    mr = stylizer.configured(intensity=IntensityRange("percentile", 0.5, 99.5))
    volume = np.stack([draw(0).astype(np.float32) * 10, draw(0).astype(np.float32) * 20], axis=1)
    found = mr.stylize_array(volume)
    assert not np.allclose(found[:, 0] * 2, found[:, 1], rtol=0.01)
    assert found.max() > 1000  # native units


def test_values_outside_the_range_keep_their_excess(stylizer: OSASISStylizer) -> None:
    array = draw(0).astype(np.float32)
    metal = array.copy()
    metal[:, 10, 10] = 300.0
    assert np.allclose((stylizer.stylize_array(metal) - stylizer.stylize_array(np.minimum(metal, 255)))[:, 10, 10], 45)


BAD = {
    "grey for colour": (np.zeros((1, 8, 8), np.float32), "3 channel"),
    "rank": (np.zeros((8, 8), np.float32), "axes"),
    "nan": (np.full((3, 8, 8), np.nan, np.float32), "finite"),
    "infinite": (np.full((3, 8, 8), np.inf, np.float32), "finite"),
    "empty": (np.zeros((3, 0, 8), np.float32), "numbers"),
    "text": (np.full((3, 8, 8), "a"), "numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arrays_get_the_rule(stylizer: OSASISStylizer, case: str) -> None:
    array, rule = BAD[case]
    with pytest.raises(OsasisError, match=rule):
        stylizer.stylize_array(array)


def test_bad_options_get_the_rule(stylizer: OSASISStylizer) -> None:
    images = unit_images(1)
    for options, rule in [
        ({"strength": 1.5}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"direction": "up"}, "direction"),
        ({"readout": "magic"}, "read-out"),
    ]:
        with pytest.raises(OsasisError, match=rule):
            stylizer.stylize(images, **options)
    with pytest.raises(OsasisError, match="B, 3, H, W"):
        stylizer.stylize(images[:, :1])


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        path.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    elif how == "foreign":
        path.write_bytes(b"not a tensor file")
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["truncated", "flipped", "foreign", "missing"])
@pytest.mark.parametrize(
    "name", ["decoder/diffusion_pytorch_model.safetensors", "autoencoder/config.json", "reference.safetensors"]
)
def test_a_damaged_folder_is_refused_before_use(stylizer: OSASISStylizer, tmp_path: Path, name: str, how: str) -> None:
    folder = stylizer.save_pretrained(tmp_path / "s")
    damage(folder / name, how)
    with pytest.raises(OsasisError, match=r"complete|saved with|weights of its configuration"):
        OSASISStylizer.from_pretrained(folder).stylize(unit_images(1), readout="raw")


def test_a_folder_without_stylizer_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(OsasisError, match="osasis-pretrain-stylizer"):
        OSASISStylizer.from_pretrained(tmp_path)


def test_another_format_is_refused(stylizer: OSASISStylizer, tmp_path: Path) -> None:
    folder = stylizer.save_pretrained(tmp_path / "s")
    index = json.loads((folder / "stylizer.json").read_text())
    from nnunet_osasis.runtime.records import write_sealed_json

    write_sealed_json(folder / "stylizer.json", index | {"format": 99})
    with pytest.raises(OsasisError, match="format 99"):
        OSASISStylizer.from_pretrained(folder)


def test_importing_the_package_loads_no_heavy_library() -> None:
    import subprocess
    import sys

    code = (
        "import sys, nnunet_osasis; print([m for m in ('torch', 'nnunetv2', 'monai', 'diffusers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
