from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LinearRegression

from pocketprune.numerics.reconstruction import expand_blocks, refit, relative_error
from tests.numerics.samples import make_rows, moments_of

BLOCK = 4
KEPT = torch.tensor([0, 2, 3])


def test_refit_equals_linear_regression_on_rows() -> None:
    x, weight, y = make_rows(noise=1.0)
    rows = expand_blocks(KEPT, BLOCK)
    oracle = LinearRegression().fit(x[:, rows].numpy(), y.numpy())
    W, bias = refit(moments_of(x, y), weight, KEPT, BLOCK, ridge=0.0)
    torch.testing.assert_close(W, torch.from_numpy(oracle.coef_.T), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(bias, torch.from_numpy(oracle.intercept_), rtol=1e-9, atol=1e-9)


def test_error_equals_that_of_explicit_rows() -> None:
    x, weight, y = make_rows(noise=1.0)
    moments = moments_of(x, y)
    W, bias = refit(moments, weight, KEPT, BLOCK)
    squared = (x[:, expand_blocks(KEPT, BLOCK)] @ W + bias - y).square().sum(0)
    variance = (y - y.mean(0)).square().sum(0)
    importance = torch.arange(1.0, 6.0, dtype=torch.float64)
    for scale in (None, importance):
        of_each = torch.ones(5, dtype=torch.float64) if scale is None else scale
        expected = float((of_each * squared).sum() / (of_each * variance).sum())
        assert relative_error(moments, W, KEPT, BLOCK, scale) == pytest.approx(expected, rel=1e-9)


def test_error_on_held_out_moments_counts_the_bias() -> None:
    x, weight, y = make_rows(noise=1.0, rows=600)
    W, bias = refit(moments_of(x[:400], y[:400]), weight, KEPT, BLOCK)
    x, y = x[400:] + 0.5, y[400:]
    squared = (x[:, expand_blocks(KEPT, BLOCK)] @ W + bias - y).square().sum()
    expected = float(squared / (y - y.mean(0)).square().sum())
    assert relative_error(moments_of(x, y), W, KEPT, BLOCK, bias=bias) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("ridge", [1e-6, 1e-2])
def test_all_channels_on_unpruned_inputs_return_the_original_weight(ridge: float) -> None:
    x, weight, y = make_rows()
    moments = moments_of(x, y)
    W, bias = refit(moments, weight, torch.arange(6), BLOCK, ridge)
    torch.testing.assert_close(W, weight, rtol=0, atol=1e-9)
    torch.testing.assert_close(bias, torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-9)
    assert relative_error(moments, W, torch.arange(6), BLOCK) < 1e-12


def test_dead_and_repeated_inputs_fall_back_on_the_original_weight() -> None:
    x, weight, _ = make_rows()
    x[:, :BLOCK] = 3.0
    x[:, BLOCK : 2 * BLOCK] = x[:, 2 * BLOCK : 3 * BLOCK]
    y = x @ weight
    W, bias = refit(moments_of(x, y), weight, torch.arange(6), BLOCK)
    torch.testing.assert_close(W, weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(x @ W + bias, y, rtol=0, atol=1e-6)


def test_damping_grows_until_the_system_is_positive_definite() -> None:
    x, weight, y = make_rows(rows=10)  # fewer rows than columns
    W, _ = refit(moments_of(x, y), weight, torch.arange(6), BLOCK, ridge=0.0)
    assert bool(torch.isfinite(W).all())
    assert relative_error(moments_of(x, y), W, torch.arange(6), BLOCK) < 1e-9


def test_nothing_kept_predicts_the_mean() -> None:
    x, weight, y = make_rows()
    moments = moments_of(x, y)
    W, bias = refit(moments, weight, torch.tensor([], dtype=torch.long), BLOCK)
    assert W.shape == (0, 5)
    assert torch.equal(bias, moments.mean_y)
    assert relative_error(moments, W, torch.tensor([], dtype=torch.long), BLOCK) == 1.0


def test_targets_without_variance() -> None:
    x, weight, y = make_rows()
    moments = moments_of(x, torch.zeros_like(y))
    W, _ = refit(moments, weight * 0, KEPT, BLOCK)
    assert relative_error(moments, W, KEPT, BLOCK) == 0.0
    assert relative_error(moments, W + 1, KEPT, BLOCK) == float("inf")


def test_moments_that_overflowed_are_refused() -> None:
    x, weight, y = make_rows()
    x[0, 0] = torch.inf
    with pytest.raises(ValueError, match="NaN or infinite"):
        refit(moments_of(x, y), weight, KEPT, BLOCK)
