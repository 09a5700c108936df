from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pocketprune.numerics.lasso import channel_gram, lasso_path
from pocketprune.numerics.moments import Moments
from pocketprune.numerics.reconstruction import refit, relative_error
from pocketprune.numerics.selection import METHODS, select
from tests.numerics.samples import make_rows, moments_of

CHANNELS, BLOCK = 10, 3


@pytest.fixture(scope="module")
def consumer() -> tuple[Moments, Tensor]:
    x, weight, y = make_rows(CHANNELS, BLOCK, 4, noise=0.5)
    return moments_of(x, y), weight


@pytest.mark.parametrize("method", METHODS)
def test_exactly_count_sorted_channels(method: str, consumer: tuple[Moments, Tensor]) -> None:
    moments, weight = consumer
    for count in range(CHANNELS + 1):
        kept = select(method, [moments], [weight], [BLOCK], count, generator=torch.Generator().manual_seed(0))
        assert kept.dtype == torch.long
        assert kept.tolist() == sorted(set(kept.tolist()))
        assert len(kept) == count


def test_magnitude_keeps_the_largest_slices_of_all_consumers() -> None:
    first = torch.tensor([[1.0], [-1.0], [3.0], [0.0]])  # two channels of two rows: 2 and 3
    second = torch.tensor([[5.0], [-1.0]])  # two channels of one row: 5 and 1
    assert select("magnitude", [], [first], [2], 1).tolist() == [1]
    assert select("magnitude", [], [first, second], [2, 1], 1).tolist() == [0]
    assert select("magnitude", [], [torch.ones(4, 2)], [1], 2).tolist() == [0, 1]


def test_random_follows_its_generator_alone() -> None:
    weight = torch.ones(50, 2)
    state = torch.random.get_rng_state()
    seeded = (torch.Generator().manual_seed(seed) for seed in (1, 1, 2))
    first, again, other = (select("random", [], [weight], [1], 20, generator=one) for one in seeded)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_lasso_adds_the_grams_of_its_consumers(consumer: tuple[Moments, Tensor]) -> None:
    moments, weight = consumer
    x, other_weight, y = make_rows(CHANNELS, 1, 6, noise=0.5, seed=3)
    other, importance = moments_of(x, y), torch.rand(6, dtype=torch.float64)
    G, g = (
        a + b
        for a, b in zip(
            channel_gram(moments.A, moments.B, weight, BLOCK),
            channel_gram(other.A, other.B, other_weight, 1, importance),
            strict=True,
        )
    )
    kept = select("lasso", [moments, other], [weight, other_weight], [BLOCK, 1], 4, output_weights=[None, importance])
    assert torch.equal(kept, lasso_path(G, g)[4])


@pytest.mark.parametrize("method", METHODS)
def test_parameters_that_ask_for_gradients_are_taken_as_they_are(method: str, consumer: tuple[Moments, Tensor]) -> None:
    moments, weight = consumer
    parameter = torch.nn.Parameter(weight.clone())
    plain, with_gradient = (
        select(method, [moments], [w], [BLOCK], 4, generator=torch.Generator().manual_seed(0))
        for w in (weight, parameter)
    )
    assert torch.equal(plain, with_gradient)
    assert not refit(moments, parameter, plain, BLOCK)[0].requires_grad


def test_reconstruction_aware_methods_beat_blind_ones() -> None:
    totals = dict.fromkeys(METHODS, 0.0)
    for seed in range(8):
        x, weight, y = make_rows(16, 2, 6, noise=0.2, seed=seed)
        moments = moments_of(x, y)
        for method in METHODS:
            kept = select(method, [moments], [weight], [2], 6, generator=torch.Generator().manual_seed(seed))
            W, _ = refit(moments, weight, kept, 2)
            totals[method] += relative_error(moments, W, kept, 2)
    assert totals["obs"] < totals["lasso"] < totals["random"]
    assert totals["lasso"] < totals["magnitude"]


def test_mistakes_are_refused(consumer: tuple[Moments, Tensor]) -> None:
    moments, weight = consumer
    with pytest.raises(ValueError, match="one of lasso, obs, magnitude, random, got 'lars'"):
        select("lars", [moments], [weight], [BLOCK], 3)
    with pytest.raises(ValueError, match=r"0 ... 10, got 11"):
        select("obs", [moments], [weight], [BLOCK], 11)
    with pytest.raises(ValueError, match="must read the same channels"):
        select("magnitude", [], [weight, weight], [BLOCK, 5], 3)
