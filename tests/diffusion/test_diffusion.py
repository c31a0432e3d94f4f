"""The DDIM functions say what the equations say, in both directions."""

from __future__ import annotations

from itertools import pairwise

import diffusers
import pytest
import torch

from nnunet_osasis.diffusion.ddim import add_noise, ddim_step, decode, encode, linear_alpha_bar, predict_x0, time_grid
from nnunet_osasis.errors import OsasisError

ALPHA_BAR = linear_alpha_bar()


def linear_model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A smooth stand-in network."""
    return 0.3 * x + 0.1 * torch.sin(3 * x) + (t.float() / 1000)[:, None, None, None]


def gaussian_model(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The perfect network for data drawn from N(0, 0.3^2)."""
    a = ALPHA_BAR[t][:, None, None, None]
    return (1 - a).sqrt() * x / (a * 0.09 + 1 - a)


def test_alpha_bar_is_diffusers_linear_schedule_with_a_clean_level_zero() -> None:
    reference = diffusers.DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear").alphas_cumprod
    assert ALPHA_BAR[0] == 1
    torch.testing.assert_close(ALPHA_BAR[1:], reference[1:], rtol=1e-5, atol=1e-7)
    assert ALPHA_BAR[500].item() == pytest.approx(0.0778, abs=1e-4)


def test_step_to_level_zero_is_the_predicted_clean_image() -> None:
    x, eps = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(ddim_step(x, eps, ALPHA_BAR[300], ALPHA_BAR[0]), predict_x0(x, eps, ALPHA_BAR[300]))


def test_step_there_and_back_with_the_same_noise_is_the_identity() -> None:
    x, eps = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    there = ddim_step(x, eps, ALPHA_BAR[100], ALPHA_BAR[400])
    torch.testing.assert_close(ddim_step(there, eps, ALPHA_BAR[400], ALPHA_BAR[100]), x, rtol=1e-4, atol=1e-5)


def test_added_noise_is_undone_by_the_right_prediction() -> None:
    x0, noise = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(
        predict_x0(add_noise(x0, noise, ALPHA_BAR[700]), noise, ALPHA_BAR[700]), x0, atol=1e-4, rtol=1e-4
    )


def test_decoding_equals_diffusers_ddim_scheduler() -> None:
    scheduler = diffusers.DDIMScheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=False, set_alpha_to_one=True,
        timestep_spacing="leading", steps_offset=0,
    )  # fmt: skip
    scheduler.set_timesteps(50)
    x = start = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    steps = [int(t) for t in scheduler.timesteps if t <= 480 and t > 0]
    for t in steps:
        x = scheduler.step(linear_model(x, torch.full((2,), t)), t, x).prev_sample
    # diffusers' last step goes from t = 20 to t = 0, whose alpha_bar is not yet 1; compare before it
    grid = [*sorted(steps)]
    ours = decode(linear_model, start, ALPHA_BAR, grid)
    x_before = start
    for t in steps[:-1]:
        x_before = scheduler.step(linear_model(x_before, torch.full((2,), t)), t, x_before).prev_sample
    torch.testing.assert_close(ours, x_before, rtol=1e-4, atol=1e-5)


def test_ancestral_step_equals_diffusers_eta_one() -> None:
    scheduler = diffusers.DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False)
    scheduler.set_timesteps(10)
    x, eps, noise = (torch.randn(1, 1, 4, 4) for _ in range(3))
    theirs = scheduler.step(eps, 500, x, eta=1.0, variance_noise=noise).prev_sample
    ours = ddim_step(x, eps, ALPHA_BAR[500], ALPHA_BAR[400], eta=1.0, noise=noise)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("t0", [300, 500])
def test_round_trip_error_falls_with_steps_and_with_the_quadratic_grid(t0: int) -> None:
    x0 = 0.3 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))

    def error(steps: int, power: float) -> float:
        grid = time_grid(t0, steps, power)
        back = decode(gaussian_model, encode(gaussian_model, x0, ALPHA_BAR, grid), ALPHA_BAR, grid)
        return (back - x0).abs().mean().item()

    assert error(40, 2) < error(20, 2) < error(10, 2)
    assert error(20, 2) < error(20, 1)


def test_decode_without_network_noise_returns_the_image() -> None:
    x0 = torch.randn(1, 3, 8, 8)
    grid = time_grid(300, 10)
    zero = lambda x, t: torch.zeros_like(x)  # noqa: E731
    torch.testing.assert_close(decode(zero, encode(zero, x0, ALPHA_BAR, grid), ALPHA_BAR, grid), x0)


def test_injection_is_added_before_every_reverse_step_with_the_real_timestep() -> None:
    seen: list[int] = []

    def inject(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(int(t[0]))
        return torch.zeros_like(x)

    decode(linear_model, torch.randn(1, 1, 4, 4), ALPHA_BAR, [0, 10, 40], inject=inject)
    assert seen == [40, 10]


@pytest.mark.parametrize(
    ("t0", "steps", "power"), [(300, 20, 2), (500, 20, 2), (20, 20, 2), (5, 5, 3), (999, 1, 2), (500, 25, 1)]
)
def test_grid_rises_strictly_from_zero_to_t0(t0: int, steps: int, power: float) -> None:
    grid = time_grid(t0, steps, power)
    assert grid[0] == 0
    assert grid[-1] == t0
    assert len(grid) == steps + 1
    assert all(a < b for a, b in pairwise(grid))


def test_quadratic_grid_is_the_formula_where_levels_are_far_apart() -> None:
    assert time_grid(400, 4, 2) == [0, 25, 100, 225, 400]


def test_more_steps_than_levels_is_refused_with_the_rule() -> None:
    with pytest.raises(OsasisError, match="steps <= t0"):
        time_grid(5, 10)


@pytest.mark.parametrize("steps", [10, 20])
def test_the_second_order_goes_there_and_back_more_nearly_at_the_same_cost(steps: int) -> None:
    x = 0.3 * torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    grid = time_grid(300, steps)
    errors = []
    for order in (1, 2):
        back = decode(
            gaussian_model, encode(gaussian_model, x, ALPHA_BAR, grid, order=order), ALPHA_BAR, grid, order=order
        )
        errors.append((back - x).abs().mean().item())
    assert errors[1] < errors[0] / 3


def test_halving_the_steps_quarters_the_error_of_the_second_order() -> None:
    """Against the path of the perfect network, which is known: ``x_t = x_0 * sqrt(variance_t / variance_0)``."""
    x = 0.3 * torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = x * ((ALPHA_BAR[300] * 0.09 + 1 - ALPHA_BAR[300]) / 0.09).sqrt()
    alpha_bar = ALPHA_BAR.double()
    error = {}
    for order in (1, 2):
        for steps in (20, 40):
            found = encode(gaussian_model, x, alpha_bar, time_grid(300, steps), order=order)
            error[order, steps] = (found - exact).abs().mean().item()
    assert 1.7 < error[1, 20] / error[1, 40] < 2.4
    assert error[2, 20] / error[2, 40] > 3.3
    assert error[2, 20] < error[1, 20] / 5


def test_both_orders_agree_where_the_noise_does_not_change() -> None:
    x, eps = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    grid = time_grid(300, 7)
    first, second = (encode(lambda *_: eps, x, ALPHA_BAR, grid, order=order) for order in (1, 2))
    torch.testing.assert_close(first, second)


def test_another_order_is_refused_with_the_rule() -> None:
    with pytest.raises(OsasisError, match="order must be 1 or 2"):
        encode(linear_model, torch.zeros(1, 1, 4, 4), ALPHA_BAR, [0, 10], order=3)
