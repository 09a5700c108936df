"""Weights removed in closed form: against brute force, least squares, and what magnitude leaves."""

from itertools import combinations

import pytest
import torch

from pocketprune.numerics.moments import Moments
from pocketprune.numerics.sparse_elimination import eliminate, fit_support
from pocketprune.numerics.weight_patterns import Pattern, least_masked

SINGLE, TWO_OF_FOUR = Pattern(), Pattern.parse("2:4")


def layer(channels: int, taps: int, n: int, rows: int = 400) -> tuple[Moments, torch.Tensor]:
    generator = torch.Generator().manual_seed(channels + n)
    d = channels * taps
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    x = torch.randn(rows, d, generator=generator, dtype=torch.float64) @ mixing + 1.0
    weight = torch.randn(d, n, generator=generator, dtype=torch.float64)
    moments = Moments.zeros(d, n)
    moments.update(x, x @ weight + 2.0)
    return moments, weight


def error(moments: Moments, W: torch.Tensor) -> torch.Tensor:
    """The squared error of each output."""
    return moments.sigma - (W * (2 * moments.B - moments.A @ W)).sum(0)


def best_error(moments: Moments, output: int, support: tuple[int, ...]) -> float:
    S = list(support)
    w = torch.linalg.solve(moments.A[S][:, S], moments.B[S, output])
    return float(moments.sigma[output] - w @ moments.B[S, output])


@pytest.mark.parametrize("exact", [True, False])
def test_one_weight_less_is_the_best_of_all(exact):
    moments, weight = layer(6, 1, 1)
    masked, W = eliminate(moments, weight, 1, SINGLE, 1, exact=exact, ridge=1e-12)
    least = min(best_error(moments, 0, kept) for kept in combinations(range(6), 5))
    assert int(masked.sum()) == 1
    if exact:
        assert float(error(moments, W)) == pytest.approx(least, rel=1e-6)


def test_each_output_follows_the_greedy_brute_force():
    moments, weight = layer(7, 1, 3)
    for output in range(3):
        kept = tuple(range(7))
        for count in range(1, 7):
            kept = min(combinations(kept, 7 - count), key=lambda S: best_error(moments, output, S))
            one = Moments(moments.count, moments.mean_x, moments.mean_y[output : output + 1], moments.A,
                          moments.B[:, output : output + 1], moments.sigma[output : output + 1])  # fmt: skip
            masked, W = eliminate(one, weight[:, output : output + 1], 1, SINGLE, count, exact=True, ridge=1e-12)
            assert (~masked[:, 0]).nonzero().flatten().tolist() == list(kept)
            assert float(error(one, W)) == pytest.approx(best_error(moments, output, kept), rel=1e-6)


def test_the_weights_that_stay_are_the_least_squares_solution():
    moments, weight = layer(3, 4, 5)
    masked = torch.rand(12, 5) < 0.5
    W = fit_support(moments.A, moments.B, weight, masked, 1e-9)
    for output in range(5):
        S = (~masked[:, output]).nonzero().flatten()
        expected = torch.linalg.lstsq(moments.A[S][:, S], moments.B[S, output]).solution
        assert torch.allclose(W[S, output], expected, rtol=1e-5, atol=1e-7)
    assert not W[masked].any()


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("pattern", "pieces"), [(SINGLE, 71), (TWO_OF_FOUR, 36), (Pattern(2, 4), 9)])
def test_counts_are_exact_and_errors_far_below_magnitudes(pattern, pieces, exact):
    moments, weight = layer(8, 3, 6)
    masked, W = eliminate(moments, weight, 3, pattern, pieces, exact=exact)
    assert int(masked.sum()) == pieces * pattern.size
    shaped = masked.T.reshape(6, 8, 3)
    if pattern.stay:
        assert (shaped.view(6, 2, 4, 3).sum(2) == 2).all()
    if pattern.rows == 2:
        assert set(shaped.view(3, 2, 2, 4, 3).sum((1, 3)).unique().tolist()) == {0, 8}
    scores = weight.abs().T.reshape(6, 8, 3)
    level = pieces * pattern.size / 144
    by_size = weight.masked_fill(least_masked([scores], pattern, level)[0].reshape(6, 24).T, 0)
    assert error(moments, W).sum() < 0.9 * error(moments, by_size).sum()


def test_the_exact_way_is_no_worse_than_the_blocked_one():
    moments, weight = layer(16, 2, 8)
    for pattern, pieces in ((SINGLE, 180), (TWO_OF_FOUR, 64)):
        errors = [
            error(moments, eliminate(moments, weight, 2, pattern, pieces, exact=e)[1]).sum() for e in (True, False)
        ]
        assert errors[0] < errors[1]


def test_nothing_removed_is_the_weight_itself():
    moments, weight = layer(4, 2, 3)
    masked, W = eliminate(moments, weight, 2, SINGLE, 0)
    assert not masked.any()
    assert torch.allclose(W, weight, rtol=1e-6)


@pytest.mark.parametrize("exact", [True, False])
def test_dead_and_equal_inputs_do_no_harm(exact):
    x = torch.randn(300, 8, dtype=torch.float64).repeat(1, 2)
    x[:, 3] = x[:, 11] = 0.0
    weight = torch.randn(16, 4, dtype=torch.float64)
    moments = Moments.zeros(16, 4)
    moments.update(x, x @ weight)
    masked, W = eliminate(moments, weight, 1, SINGLE, 36, exact=exact)
    assert int(masked.sum()) == 36
    assert W.isfinite().all()
    assert error(moments, W).sum() < 1e-6 * moments.sigma.sum()  # seven inputs say it all
