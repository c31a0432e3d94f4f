"""Maps of channel values: what they recover, what they leave alone, and how several become one."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab
from specimens import second_camera, unit_images

from nnunet_osasis import OsasisError
from nnunet_osasis.maps.agreement import Agreement, agreement, combine
from nnunet_osasis.maps.base import MAPS, MeanMap, PixelMap, map_from_json
from nnunet_osasis.maps.color import difference, from_perceptual, perceptual
from nnunet_osasis.maps.field_of_view import field_of_view, find_frame
from nnunet_osasis.maps.moments import MomentMap, moments
from nnunet_osasis.maps.parametric import TERMS, ParametricMap, feature_count, features, fit_images, places

TINY = {"ridge": 1e-9, "bend_ridge": 1e-9}
KINDS: list[tuple[str, ...]] = [(), *((term,) for term in TERMS), TERMS]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Even noise in [-1, 1]."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def drawn_map(channels: int, terms: tuple[str, ...], *, seed: int = 0, size: float = 0.03) -> ParametricMap:
    """Any map of these terms that stays near the identity."""
    rows = size * noise(channels, feature_count(channels, terms), seed=seed)
    return ParametricMap(
        tuple(tuple(row) for row in rows.tolist()), terms, (-1.0,) * channels, (1.0,) * channels
    )  # fmt: skip


def pixels(channels: int, *, reach: float = 0.8, side: int = 48, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels ``(C, N)`` of every colour and their places."""
    return reach * noise(channels, side * side, seed=seed), places(side, side).flatten(1)


def shift(by: float, channels: int = 1) -> ParametricMap:
    """``x + by``."""
    rows = tuple((*(0.0,) * channels, by) for _ in range(channels))
    return ParametricMap(rows, (), (-1.0,) * channels, (1.0,) * channels)


def everywhere(images: torch.Tensor) -> torch.Tensor:
    """A view that leaves nothing out."""
    return torch.ones_like(images[:, :1], dtype=torch.bool)


def through_json(one: PixelMap) -> PixelMap:
    """Written and read again."""
    return map_from_json(json.loads(json.dumps(one.to_json())))


# --- ParametricMap ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("terms", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_map_is_recovered_from_its_own_pixels(channels: int, terms: tuple[str, ...]) -> None:
    truth = drawn_map(channels, terms)
    before, where = pixels(channels)
    after = truth.at(before[None], where[None])[0]
    found = ParametricMap.fit(before, after, where, terms=terms, **TINY)
    probe = 0.9 * before[None]  # inside the values it was fitted on
    torch.testing.assert_close(found.at(probe, where[None]), truth.at(probe, where[None]), atol=2e-5, rtol=0)
    assert found.terms == terms
    if "tone" not in terms:  # hat functions add up to what the affine terms can do: only their sum is unique
        torch.testing.assert_close(found.coefficients, truth.coefficients, atol=1e-4, rtol=0)


def test_known_changes_get_the_coefficients_one_would_write_down() -> None:
    before, where = pixels(1)
    radius, column = where[:1], where[1:2]
    cases = {
        (): (0.7 * before + 0.1, [-0.3, 0.1]),
        ("quadratic",): (before + 0.2 * before**2, [0, 0, 0.2]),
        ("radial",): (before + 0.1 * radius - 0.2 * radius * before, [0, 0, 0.1, -0.2]),
        ("field",): (before + 0.1 * column * before, [0, 0, 0, 0.1, 0, 0]),
    }
    for terms, (after, expected) in cases.items():
        found = ParametricMap.fit(before, after, where, terms=terms, **TINY)
        torch.testing.assert_close(found.coefficients[0], torch.tensor(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("terms", KINDS)
def test_equal_pixels_give_the_identity(terms: tuple[str, ...]) -> None:
    before, where = pixels(3)
    found = ParametricMap.fit(before, before, where, terms=terms)
    assert found.coefficients.abs().max() < 1e-9
    images = unit_images(2)
    torch.testing.assert_close(found(images), images, atol=1e-6, rtol=0)


@pytest.mark.parametrize("terms", [(), ("quadratic", "radial"), ("tone", "radial", "field")])
def test_one_wild_pixel_in_ten_hardly_moves_the_fit(terms: tuple[str, ...]) -> None:
    truth = drawn_map(3, terms)
    before, where = pixels(3)
    after = truth.at(before[None], where[None])[0] + 0.01 * noise(*before.shape, seed=2)
    wild = torch.arange(before.shape[1]) % 10 == 0
    spoilt = torch.where(wild, 0.9 * torch.ones_like(after), after)

    def error(rounds: int) -> float:
        found = ParametricMap.fit(before, spoilt, where, terms=terms, rounds=rounds, **TINY)
        probe = 0.9 * before[None]
        return float((found.at(probe, where[None]) - truth.at(probe, where[None])).abs().mean())

    assert error(rounds=5) < 0.012
    assert error(rounds=5) < 0.25 * error(rounds=1)  # plain least squares follows them


def test_clipped_pixels_say_nothing() -> None:
    truth = ParametricMap(((0.6, 0.5),), (), (-1.0,), (1.0,))
    before, where = pixels(1, reach=1.0)
    after = truth.at(before[None], where[None])[0]
    clipped = after.clamp(-1, 1)
    assert (clipped != after).float().mean() > 0.2
    found = ParametricMap.fit(before, clipped, where, **TINY)
    torch.testing.assert_close(found.coefficients, truth.coefficients, atol=1e-4, rtol=0)
    there_and_back = ParametricMap.fit(clipped, before, where, **TINY)  # nor do those clipped before
    assert there_and_back.coefficients[0, 0].item() == pytest.approx(1 / 1.6 - 1, abs=1e-4)


def test_where_nearly_all_is_clipped_the_clipped_pixels_count() -> None:
    before, where = pixels(1, reach=0.5)
    found = ParametricMap.fit(before, torch.ones_like(before), where)
    assert found(torch.zeros(1, 1, 4, 4)).mean() > 0.9


@pytest.mark.parametrize("terms", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_beyond_the_values_it_saw_the_change_is_held(channels: int, terms: tuple[str, ...]) -> None:
    """Twice as far outside changes no more than once as far: nothing is drawn on into what was never shown."""
    before, where = pixels(channels, reach=0.3)
    rising = torch.tensor([0.1] * channels)[:, None] * before
    after = drawn_map(channels, terms).at(before[None], where[None])[0] + rising
    found = ParametricMap.fit(before, after, where, terms=terms, **TINY)
    place = torch.tensor([0.5, 0.8, -0.6])[None, :, None]

    def change(values: torch.Tensor) -> torch.Tensor:
        return found.at(values[None, :, None], place)[0, :, 0] - values

    for limit, direction in ((found.low, -1.0), (found.high, 1.0)):
        held = change(limit)
        for distance in (0.1, 0.2, 0.4):
            torch.testing.assert_close(change(limit + direction * distance), held, atol=1e-6, rtol=0)
    inside = [change(torch.full((channels,), v)) for v in (-0.25, 0.25)]
    assert ((inside[1] - inside[0]).abs() > 1e-3).all()
    mixed = found.high.clone()
    mixed[0] = 0.0  # one channel inside, the others beyond: every channel is held alone
    beyond = mixed.clone()
    beyond[1:] += 0.3
    torch.testing.assert_close(change(beyond), change(mixed), atol=1e-6, rtol=0)


def test_an_anchored_map_leaves_black_as_it_is() -> None:
    before, where = pixels(3, reach=0.3)
    after = before + 0.2
    black = torch.full((1, 3, 4, 4), -1.0)
    plain, little, firm = (ParametricMap.fit(before, after, where, ridge=1e-4, anchor=a) for a in (0.0, 0.25, 1e4))
    distances = [float((one(black) - black).abs().mean()) for one in (plain, little, firm)]
    assert distances[0] > 0.15
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 1e-3
    assert little.low.tolist() == firm.low.tolist() == [-1.0] * 3  # black was seen
    assert plain.low[0] > -0.31
    middle = torch.zeros(1, 3, 4, 4)
    torch.testing.assert_close(little(middle), middle + 0.2, atol=0.05, rtol=0)  # and hardly costs what was seen


def test_the_limits_are_the_values_it_saw_but_for_the_rarest() -> None:
    before, where = pixels(2, reach=0.4)
    before[1] += 0.3
    found = ParametricMap.fit(before, before, where, terms=("quadratic",))
    assert found.low.tolist() == pytest.approx((-0.4, -0.1), abs=0.02)
    assert found.high.tolist() == pytest.approx((0.4, 0.7), abs=0.02)


@pytest.mark.parametrize("terms", KINDS)
def test_a_map_comes_back_from_its_json(terms: tuple[str, ...]) -> None:
    one = drawn_map(3, terms)
    again = through_json(one)
    assert again.to_json() == one.to_json()
    assert torch.equal(again(unit_images(2)), one(unit_images(2)))


def test_maps_that_make_no_sense_are_refused() -> None:
    sound = drawn_map(2, ("quadratic",)).to_json()
    short = [row[:-1] for row in sound["coefficients"]]
    for wrong in (
        {"coefficients": short},
        {"coefficients": sound["coefficients"][:1]},
        {"terms": ()},
        {"terms": ("cubic",)},
        {"low": (0.0,)},
        {"high": (0.0, 0.0, 0.0)},
    ):
        with pytest.raises(OsasisError, match=r"coefficients|terms"):
            ParametricMap.from_json(sound | wrong)


@pytest.mark.parametrize("terms", KINDS)
def test_too_few_pixels_are_refused(terms: tuple[str, ...]) -> None:
    count = feature_count(3, terms)
    before, where = pixels(3)
    with pytest.raises(OsasisError, match=f"{count} pixels in view"):
        ParametricMap.fit(before[:, :count], before[:, :count], where[:, :count], terms=terms)
    ParametricMap.fit(before[:, : count + 1], before[:, : count + 1], where[:, : count + 1], terms=terms)


@pytest.mark.parametrize("terms", KINDS)
def test_an_image_gets_the_same_alone_and_in_a_batch(terms: tuple[str, ...]) -> None:
    one, images = drawn_map(3, terms), unit_images(3)
    alone = torch.cat([one(image[None]) for image in images])
    torch.testing.assert_close(one(images), alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("terms", KINDS)
def test_a_map_fitted_at_one_size_works_at_another(terms: tuple[str, ...]) -> None:
    """Places are relative: of a grid twice as fine, every other pixel is where it was."""
    one = drawn_map(3, terms)
    small = 0.8 * noise(1, 3, 17, 21)
    large = torch.zeros(1, 3, 33, 41)
    large[..., ::2, ::2] = small
    torch.testing.assert_close(one(large)[..., ::2, ::2], one(small), atol=1e-5, rtol=0)
    found = fit_images(small, one(small), everywhere(small), terms=terms, **TINY)
    probe = 0.8 * noise(1, 3, 50, 31, seed=5) * 0.9
    torch.testing.assert_close(found(probe), one(probe), atol=1e-3, rtol=0)


def test_only_what_is_in_view_is_fitted() -> None:
    before = 0.8 * noise(2, 3, 32, 32)
    after = 0.5 * before
    view = everywhere(before)
    view[0, :, :, :10] = False
    after[0, :, :, :10] = noise(3, 32, 10, seed=7)
    found = fit_images(before, after, view, **TINY)
    torch.testing.assert_close(found(0.9 * before), 0.45 * before, atol=1e-4, rtol=0)


@pytest.mark.parametrize("terms", [*KINDS, ("quadratic", "field")])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_map_is_the_sum_of_its_features(channels: int, terms: tuple[str, ...]) -> None:
    """Images are changed term by term, in place; the regression sees all features at once."""
    rows = 0.1 * noise(channels, feature_count(channels, terms), seed=channels)
    one = ParametricMap(rows.tolist(), terms, [-0.8] * channels, [0.7] * channels)
    images = 1.2 * noise(2, channels, 13, 18)
    kept = images.clone()
    known, where = images.clamp(-0.8, 0.7).flatten(2), places(13, 18).flatten(1)[None]
    expected = images + torch.einsum("of,bfn->bon", rows, features(known, where, terms)).view_as(images)
    torch.testing.assert_close(one(images), expected, atol=2e-6, rtol=0)
    assert torch.equal(images, kept)


# --- colour space and moments -----------------------------------------------------------------------------------------


def test_distances_are_taken_in_cielab() -> None:
    values = torch.cat([noise(1, 3, 4000), torch.tensor([[[-1.0, 1.0, -0.99]] * 3])], dim=2)
    expected = rgb2lab((values[0].T.double().numpy() + 1) / 2)
    np.testing.assert_allclose(perceptual(values)[0].T.numpy(), expected, atol=1e-2)
    torch.testing.assert_close(from_perceptual(perceptual(values)), values, atol=1e-3, rtol=0)
    black, white = torch.full((1, 3, 1), -1.0), torch.ones(1, 3, 1)
    assert difference(black, white).item() == pytest.approx(100, abs=0.01)
    assert difference(black[:, :1], white[:, :1]).item() == pytest.approx(100, abs=0.01)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_gradients_of_the_distance_are_finite(channels: int) -> None:
    values = torch.linspace(-1, 1, 50).repeat(1, channels, 1).requires_grad_()
    difference(values, values.detach()).sum().backward()
    difference(values, -values.detach()).sum().backward()
    assert torch.isfinite(values.grad).all()


def _reinhard(images: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Pooled moment matching by scikit-image: CIELAB for colour, each channel by itself otherwise."""
    sets = [np.moveaxis(v, 1, -1) for v in (images, targets)]
    views = [field_of_view(torch.from_numpy(v), find_frame(v))[:, 0].numpy() for v in (images, targets)]
    colour = images.shape[1] == 3
    values = [rgb2lab((v + 1) / 2) if colour else v for v in sets]
    (m, s), (tm, ts) = ((v[view].mean(0), v[view].std(0)) for v, view in zip(values, views, strict=True))
    moved = (values[0] - m) / s * ts + tm
    return np.clip(np.moveaxis(lab2rgb(moved) * 2 - 1 if colour else moved, -1, 1), -1, 1)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_moment_matching_is_pooled_reinhard_inside_the_view(channels: int) -> None:
    images = unit_images(6, channels=channels)
    images[..., :5] = -1
    cameras = np.stack([second_camera(((one.numpy() + 1) * 127.5).astype(np.uint8)) for one in images])
    targets = torch.from_numpy(cameras.astype(np.float32) / 127.5 - 1)
    found = MomentMap.between(images, targets, anchor=0.0)(images)
    expected = torch.from_numpy(_reinhard(images.double().numpy(), targets.double().numpy())).float()
    view = field_of_view(images, find_frame(images)).expand_as(images)
    assert 0.5 < view.float().mean() < 0.9
    torch.testing.assert_close(found[view], expected[view], atol=1e-3, rtol=0)
    assert (found - images)[view].abs().mean() > 0.05


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_way_back_undoes_moment_matching(channels: int) -> None:
    images = 0.4 * unit_images(4, channels=channels)
    one = MomentMap.between(images, 0.6 * images + 0.1)
    torch.testing.assert_close(one.inverse()(one(images)), images, atol=1e-3, rtol=0)
    assert one.inverse().inverse().to_json() == one.to_json()


def test_moments_of_one_channel_arrive() -> None:
    images = 0.5 * unit_images(4, channels=1)
    targets = 0.3 * unit_images(4, channels=1, first=20) + 0.2
    found = moments(MomentMap.between(images, targets, anchor=0.0)(images), 0.0)
    np.testing.assert_allclose(found, moments(targets, 0.0), atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_anchored_moments_are_those_with_black_pixels_mixed_in(channels: int) -> None:
    images = unit_images(3, channels=channels).clamp(min=-0.7)
    values = perceptual(images.flatten(2)).movedim(1, 0).flatten(1)
    black = perceptual(torch.full((1, channels, 1), -1.0))[0].expand(-1, values.shape[1] // 3)
    mixed = torch.cat([values, black], dim=1)
    found = moments(images, 0.25)
    np.testing.assert_allclose(found[0], mixed.mean(dim=1), atol=1e-2)
    np.testing.assert_allclose(found[1], mixed.std(dim=1), atol=1e-2)
    np.testing.assert_allclose(moments(images, 0.0)[1], values.std(dim=1), atol=1e-2)


def test_an_anchor_holds_black_down() -> None:
    """Of one bright scene, moments alone would lighten the dark pixels too."""
    images, black = 0.4 * unit_images(2, channels=1), torch.full((1, 1, 4, 4), -1.0)
    found = [float(MomentMap.between(images, 0.3 * images + 0.5, anchor=a)(black).mean()) for a in (0.0, 0.25, 0.9)]
    assert found[0] > found[1] > found[2]
    assert found[2] < -0.85


def test_moments_that_make_no_sense_are_refused() -> None:
    sound = MomentMap((0.0,), (1.0,), (0.0,), (1.0,)).to_json()
    for wrong in ({"source_std": (0.0,)}, {"target_std": (-1.0,)}, {"source_mean": (0.0, 0.0)}):
        with pytest.raises(OsasisError, match="positive deviation"):
            MomentMap.from_json(sound | wrong)
    with pytest.raises(TypeError):
        MomentMap.from_json(sound | {"skew": (0.0,)})


def test_a_flat_reference_gives_finite_values() -> None:
    found = MomentMap.between(unit_images(2), torch.full((1, 3, 32, 32), 0.2), anchor=0.0)(unit_images(2))
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, torch.full_like(found, 0.2), atol=2e-2, rtol=0)


# --- several estimates ------------------------------------------------------------------------------------------------


def test_two_shifts_shrink_as_the_formula_says() -> None:
    """Grey counts 50 units: changes of 5 and 15, mean 10, each 5 from it; the standard error of the mean is 5."""
    images = 0.5 * unit_images(2, channels=1)
    one, found = combine([shift(0.1), shift(0.3)], images, everywhere(images))
    assert found.change == pytest.approx(10, rel=1e-4)
    assert found.disagreement == pytest.approx(50**0.5, rel=1e-4)
    assert found.error == pytest.approx(5, rel=1e-4)
    assert found.confidence == pytest.approx(0.75, rel=1e-4)
    torch.testing.assert_close(one(images), images + 0.75 * 0.2, atol=1e-5, rtol=0)


def test_estimates_that_contradict_each_other_change_nothing() -> None:
    images = 0.5 * unit_images(2, channels=1)
    one, found = combine([shift(0.2), shift(-0.2)], images, everywhere(images))
    assert found.confidence == 0
    assert torch.equal(one(images), images)


@pytest.mark.parametrize("estimates", [2, 3, 5])
def test_confidence_lies_between_0_and_1_and_falls_with_disagreement(estimates: int) -> None:
    images = 0.5 * unit_images(2, channels=1)
    found = [
        agreement([shift(0.2 + apart * i) for i in range(estimates)], images, everywhere(images))
        for apart in (0.0, 0.01, 0.05)
    ]
    assert found[0].confidence == pytest.approx(1, abs=1e-6)
    assert 1 >= found[0].confidence > found[1].confidence > found[2].confidence > 0
    assert found[0].disagreement < found[1].disagreement < found[2].disagreement
    assert {one.estimates for one in found} == {estimates}
    assert all(0 <= Agreement(change, apart, 2).confidence <= 1 for change in (0.0, 1.0, 9.0) for apart in (0.0, 9.0))


def test_one_estimate_is_trusted_whole() -> None:
    images = unit_images(2)
    one, found = combine([drawn_map(3, ("radial",))], images, everywhere(images))
    assert found.confidence == 1
    torch.testing.assert_close(one(images), drawn_map(3, ("radial",))(images).clamp(-1, 1), atol=1e-6, rtol=0)


def test_the_mean_of_equal_maps_is_the_map() -> None:
    images, one = unit_images(2) * 0.8, drawn_map(3, TERMS)
    torch.testing.assert_close(MeanMap((one, one, one))(images), one(images), atol=1e-6, rtol=0)
    torch.testing.assert_close(MeanMap((one,), 0.25)(images), images + (one(images) - images) / 4, atol=1e-6, rtol=0)


def test_only_what_is_in_view_counts_for_the_agreement() -> None:
    images = torch.full((1, 1, 8, 8), 0.5)
    images[..., :4] = 0.0
    scaled = ParametricMap(((0.4, 0.0),), (), (-1.0,), (1.0,))
    view = images > 0.25
    assert agreement([scaled, scaled], images, view).change == pytest.approx(10, rel=1e-4)
    assert agreement([scaled, scaled], images, ~view).change == pytest.approx(0, abs=1e-3)


def test_every_kind_of_map_comes_back_from_json() -> None:
    images = unit_images(2)
    kinds: list[PixelMap] = [
        drawn_map(3, ("quadratic", "radial")),
        ParametricMap.affine(((0.9, 0.1, 0.0), (0.0, 1.1, 0.0), (0.0, 0.0, 0.8)), (0.1, 0.0, -0.1)),
        MomentMap.between(images, 0.5 * images),
    ]
    nested = MeanMap((MeanMap((kinds[0], kinds[1])), kinds[2]), 0.3)
    for one in (*kinds, MeanMap(tuple(kinds), 0.0), nested):
        again = through_json(one)
        assert again.to_json() == one.to_json()
        assert torch.equal(again(images), one(images))


@pytest.mark.parametrize("confidence", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_confidence_outside_0_to_1_is_refused(confidence: float) -> None:
    with pytest.raises(OsasisError, match="confidence"):
        map_from_json({"mean_of": [shift(0.1).to_json()], "confidence": confidence})


def test_a_mean_of_nothing_is_refused() -> None:
    with pytest.raises(OsasisError, match="needs maps"):
        map_from_json({"mean_of": [], "confidence": 1.0})
    with pytest.raises(OsasisError, match="at least one estimate"):
        combine([], unit_images(1), everywhere(unit_images(1)))


def test_maps_are_modules_whose_numbers_move_and_are_copied_with_them() -> None:
    images = unit_images(2)
    one = MeanMap([drawn_map(3, TERMS), MomentMap.between(images, 0.5 * images)], 0.6)
    assert all(buffer.dtype == torch.float32 for buffer in one.buffers())
    assert not list(one.parameters())
    for again in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):  # noqa: S301 (our own bytes)
        assert again.to_json() == one.to_json()
        assert torch.equal(again(images), one(images))
    assert one(images.double()).dtype == torch.float64
    assert {type(part) for part in one.modules()} - {torch.nn.ModuleList} == set(MAPS.values())


def test_numbers_are_written_as_they_were_read() -> None:
    rows = [[0.1, -1e-9, 0.3333333]]
    one = ParametricMap.from_json({"coefficients": [[*rows[0]]], "terms": ["quadratic"], "low": [-0.9], "high": [0.8]})
    assert one.to_json() == {"coefficients": rows, "terms": ["quadratic"], "low": [-0.9], "high": [0.8]}


def test_anything_else_is_no_map() -> None:
    for values in ({}, {"mean_of": [{}], "confidence": 1.0}, {"coefficients": [[0.0, 0.0]]}, {"source_mean": [0.0]}):
        with pytest.raises((KeyError, TypeError, OsasisError)):
            map_from_json(values)
