"""DDIM as pure functions over a callable ``eps_model(x, t)``: one step, both directions, one grid.

Symbols follow the paper: ``alpha_bar`` is the cumulative product (the paper writes alpha), levels run from
0 (the clean image, ``alpha_bar = 1``) to ``T``. Level ``t >= 1`` is the noise that the network was trained
on as timestep ``t``; the clean image is shown to it as timestep 0, as in DiffAE.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch

from nnunet_osasis.errors import OsasisError

EpsModel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""``(x, t)`` to the noise in ``x``: ``(B, C, H, W)``, timesteps ``(B,)``."""

Inject = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""``(x_t, t)`` to what is added to ``x_t``: ``w * SPN(x_in, t)``."""


def linear_alpha_bar(timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> torch.Tensor:
    """``alpha_bar`` of every level for linear betas: ``(timesteps,)`` float32, entry 0 is exactly 1.

    Entry ``t >= 1`` is the cumulative product of ``1 - beta`` up to and including timestep ``t``.
    """
    betas = torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64)
    alpha_bar = torch.cumprod(1 - betas, dim=0)
    alpha_bar[0] = 1.0
    return alpha_bar.float()


def training_alpha_bar(timesteps: int = 1000) -> torch.Tensor:
    """``alpha_bar`` of training: :func:`linear_alpha_bar`, but level 0 holds the noise of DiffAE's timestep 0.

    Encoding asks the network at level 0. A clean image has no noise to predict, so it learns that level from images
    with the least noise, as DiffAE does.
    """
    alpha_bar = linear_alpha_bar(timesteps)
    alpha_bar[0] = 1 - 1e-4
    return alpha_bar


def time_grid(t0: int, steps: int, power: float = 2.0) -> list[int]:
    """``steps + 1`` rising levels from 0 to ``t0``: ``t_i = t0 * (i / steps) ** power``, rounded, all distinct.

    ``power=2`` (quadratic) spends the steps where the image is made; ``power=1`` is the reference code's grid.
    Raises ``OsasisError`` if there are more steps than levels.
    """
    if steps < 1 or t0 < steps:
        raise OsasisError(
            "A time grid needs 1 <= steps <= t0", found=f"steps={steps}, t0={t0}", remedy="Take fewer steps."
        )
    levels = [round(t0 * (i / steps) ** power) for i in range(steps + 1)]
    for i in range(1, steps + 1):
        levels[i] = max(levels[i], levels[i - 1] + 1)
    for i in range(steps, 0, -1):  # raising the early levels must not push the last ones past t0
        levels[i] = min(levels[i], t0 - (steps - i))
    return levels


def predict_x0(x: torch.Tensor, eps: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """The clean image that ``x`` at noise level ``alpha_bar`` stands for (paper eq. 3). Shapes ``(B, C, H, W)``."""
    return (x - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()


def add_noise(x0: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """The forward process in one go: ``sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) noise``."""
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise


def ddim_step(
    x: torch.Tensor,
    eps: torch.Tensor,
    alpha_bar_from: torch.Tensor,
    alpha_bar_to: torch.Tensor,
    *,
    eta: float = 0.0,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """One DDIM step between two noise levels, in either direction (paper eqs. 1, 2, 5, 6).

    Args:
        x: image at the level of ``alpha_bar_from``, ``(B, C, H, W)``.
        eps: noise predicted for ``x``, same shape.
        alpha_bar_from: scalar; larger is cleaner.
        alpha_bar_to: scalar; larger is cleaner.
        eta: 0 is deterministic DDIM, 1 ancestral sampling (only towards cleaner levels; needs ``noise``).
        noise: standard normal, the shape of ``x``.

    Nothing is clipped: a clipped prediction cannot be inverted.
    """
    x0 = predict_x0(x, eps, alpha_bar_from)
    if eta == 0.0 or noise is None:
        return alpha_bar_to.sqrt() * x0 + (1 - alpha_bar_to).sqrt() * eps
    sigma = eta * ((1 - alpha_bar_to) / (1 - alpha_bar_from) * (1 - alpha_bar_from / alpha_bar_to)).clamp(min=0).sqrt()
    direction = (1 - alpha_bar_to - sigma**2).clamp(min=0).sqrt()
    return alpha_bar_to.sqrt() * x0 + direction * eps + sigma * noise


def noise_scale(alpha_bar: torch.Tensor) -> torch.Tensor:
    """``sqrt((1 - alpha_bar) / alpha_bar)``: in it DDIM is Euler's method, ``d(x / sqrt(alpha_bar)) = eps d sigma``."""
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def extrapolate_eps(eps: torch.Tensor, before: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    """The noise in the middle of a step: what makes ``ddim_step`` second order (Adams and Bashforth, variable steps).

    Args:
        eps: noise predicted at the step's beginning.
        before: noise predicted at the beginning of the step before it.
        ratio: this step's length over the last one's, in ``noise_scale``.

    Costs no evaluation of the network. On a straight path, where ``eps`` is constant, it changes nothing.
    """
    return eps + 0.5 * ratio * (eps - before)


class _Steps:
    """The noise that each step of one path takes: the network's own, or, from the second step on, extrapolated."""

    def __init__(self, alpha_bar: torch.Tensor, order: int) -> None:
        if order not in (1, 2):
            raise OsasisError("A path's order must be 1 or 2", found=order, remedy="1 is DDIM, 2 extrapolates.")
        self.scale, self.order = noise_scale(alpha_bar), order
        self.before: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, eps: torch.Tensor, t: int, t_next: int) -> torch.Tensor:
        length = self.scale[t_next] - self.scale[t]
        before, self.before = self.before, (eps, length)
        if self.order == 1 or before is None:
            return eps
        return extrapolate_eps(eps, before[0], length / before[1])


def _level(x: torch.Tensor, t: int) -> torch.Tensor:
    return torch.full((x.shape[0],), t, dtype=torch.long, device=x.device)


def encode(
    eps_model: EpsModel, x0: torch.Tensor, alpha_bar: torch.Tensor, grid: list[int], *, order: int = 1
) -> torch.Tensor:
    """DDIM inversion: carry clean images to the noise level ``grid[-1]`` (eq. 5).

    Args:
        eps_model: predicts the noise.
        x0: ``(B, C, H, W)`` in [-1, 1].
        alpha_bar: of every level.
        grid: rising levels from 0.
        order: 1 is DDIM, 2 extrapolates (``extrapolate_eps``).

    Raises:
        OsasisError: any other order.
    """
    x, steps = x0, _Steps(alpha_bar, order)
    for t, t_next in pairwise(grid):
        eps = steps(eps_model(x, _level(x, t)), t, t_next)
        x = ddim_step(x, eps, alpha_bar[t], alpha_bar[t_next])
    return x


def decode(
    eps_model: EpsModel,
    x_t: torch.Tensor,
    alpha_bar: torch.Tensor,
    grid: list[int],
    *,
    inject: Inject | None = None,
    order: int = 1,
    eta: float = 0.0,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Run ``grid`` backwards from level ``grid[-1]`` to the clean image (eq. 6; with ``inject`` eqs. 7-9).

    Args:
        eps_model: predicts the noise.
        x_t: ``(B, C, H, W)`` at level ``grid[-1]``.
        alpha_bar: of every level.
        grid: rising levels from 0.
        inject: gives what is added to ``x_t`` before each call of the network.
        order: 1 is DDIM, 2 extrapolates (``extrapolate_eps``).
        eta: 1 samples (SDEdit); the order is then 1, because a path with noise has no direction to go on in.
        generator: of that noise, which is drawn on the CPU, so that devices agree.
    """
    x, steps = x_t, _Steps(alpha_bar, order if eta == 0 else 1)
    for t, t_next in pairwise(reversed(grid)):
        level = _level(x, t)
        if inject is not None:
            x = x + inject(x, level)
        noise = None
        if eta > 0:
            noise = torch.randn(x.shape, generator=generator).to(x)
        eps = steps(eps_model(x, level), t, t_next)
        x = ddim_step(x, eps, alpha_bar[t], alpha_bar[t_next], eta=eta, noise=noise)
    return x
