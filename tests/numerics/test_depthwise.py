"""Depthwise refits against one least-squares problem for each channel."""

from __future__ import annotations

import torch
from torch import Tensor

from pocketprune.numerics.depthwise import TapMoments, best_taps, refit_taps, tap_errors


def rows(count: int, seed: int, noise: float = 0.5) -> tuple[Tensor, Tensor]:
    """Return taps (count, 5, 4) with large means, and targets (count, 5) that depend on them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 5, 4, generator=generator, dtype=torch.float64) + 10
    weight = torch.linspace(-1, 1, 20, dtype=torch.float64).view(5, 4)
    return x, (x * weight).sum(2) + noise * torch.randn(count, 5, generator=generator, dtype=torch.float64)


def test_moments_of_parts_are_those_of_all_rows() -> None:
    x, y = rows(50, 0)
    merged = TapMoments.zeros(5, 4).merged(TapMoments.of(x[:20], y[:20])).merged(TapMoments.of(x[20:], y[20:]))
    whole = TapMoments.of(x, y)
    for one, other in zip(vars(merged).values(), vars(whole).values(), strict=True):
        assert torch.allclose(torch.as_tensor(one), torch.as_tensor(other))


def test_the_refit_is_least_squares_and_its_error_that_of_the_rows() -> None:
    x, y = rows(60, 1)
    moments = TapMoments.of(x, y)
    W, bias = refit_taps(moments, torch.zeros(5, 4), 1e-12)
    for channel in range(5):
        design = torch.cat([x[:, channel], torch.ones(60, 1, dtype=torch.float64)], 1)
        expected = torch.linalg.lstsq(design, y[:, channel]).solution
        assert torch.allclose(torch.cat([W[channel], bias[channel, None]]), expected, atol=1e-6)
    miss = (y - (x * W).sum(2) - bias).square().sum(0)
    assert torch.allclose(tap_errors(moments, W, bias), miss)


def test_no_channel_gets_worse_on_the_held_out_rows() -> None:
    """Six rows for four taps: a free fit is worse than a good old weight, which then stays."""
    x, y = rows(6, 2, noise=3.0)
    held_x, held_y = rows(500, 3, noise=3.0)
    old = torch.linspace(-1, 1, 20, dtype=torch.float64).view(5, 4)
    fit, held = TapMoments.of(x, y), TapMoments.of(held_x, held_y)
    W, bias = best_taps(fit, held, old, torch.zeros(5), [1e-6])
    assert torch.equal(W, old)
    assert torch.equal(bias, torch.zeros(5, dtype=torch.float64))
    W, bias = best_taps(fit, held, 0 * old, torch.zeros(5), [1e-6, 1.0])
    before, after = tap_errors(held, 0 * old, torch.zeros(5)), tap_errors(held, W, bias)
    assert bool((after <= before).all())
    assert float(after.sum()) < 0.1 * float(before.sum())


def test_dead_channels_keep_their_weight() -> None:
    x, y = rows(30, 4)
    x[:, 2] = 0.0
    W, bias = refit_taps(TapMoments.of(x, y), torch.ones(5, 4), 1e-6)
    assert torch.allclose(W[2], torch.ones(4, dtype=torch.float64))
    assert torch.allclose(bias[2], y[:, 2].mean())
