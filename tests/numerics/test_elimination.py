from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from pocketprune.numerics import elimination
from pocketprune.numerics.elimination import elimination_path
from pocketprune.numerics.moments import Moments
from pocketprune.numerics.reconstruction import refit, relative_error
from tests.numerics.samples import make_rows, moments_of

BLOCK = 3


def sample(channels: int = 12, outputs: int = 5, noise: float = 1.0, seed: int = 0) -> tuple[Moments, Tensor]:
    x, weight, y = make_rows(channels, BLOCK, outputs, noise=noise, seed=seed)
    return moments_of(x, y), weight


def error_of(kept: Tensor, moments: Moments, weight: Tensor, output_weight: Tensor | None = None) -> float:
    W, _ = refit(moments, weight, kept, BLOCK)
    return relative_error(moments, W, kept, BLOCK, output_weight)


@pytest.mark.parametrize("delayed_rows", [1, 7, 144])
def test_errors_equal_those_of_direct_refits(delayed_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elimination, "_DELAYED_ROWS", delayed_rows)
    moments, weight = sample()
    importance = torch.rand(5, dtype=torch.float64) + 0.1
    path = elimination_path([moments], [weight], [BLOCK], output_weights=[importance])
    assert sorted(path.order.tolist()) == list(range(12))
    damping = 1e-6 * float(moments.A.diagonal().mean())
    for count in range(13):
        kept = path.kept(count)
        W, _ = refit(moments, weight, kept, BLOCK, damping=damping)
        error = relative_error(moments, W, kept, BLOCK, importance)
        assert float(path.errors[count]) == pytest.approx(error, rel=1e-9)


def test_every_step_removes_the_cheapest_channel() -> None:
    moments, weight = sample()
    path = elimination_path([moments], [weight], [BLOCK], ridge=1e-12)
    alive = list(range(12))
    for removed in path.order.tolist()[:-1]:
        without = {i: error_of(torch.tensor([a for a in alive if a != i]), moments, weight) for i in alive}
        assert removed == min(without, key=without.get)
        alive.remove(removed)


def test_errors_fall_as_more_is_kept() -> None:
    for seed in range(5):
        moments, weight = sample(noise=0.0, seed=seed)
        errors = elimination_path([moments], [weight], [BLOCK]).errors
        assert bool((errors.diff() <= 1e-12).all())
        assert float(errors[0]) == 1.0
        assert float(errors[-1]) < 1e-12


def test_close_to_the_best_subset_of_all() -> None:
    ratios = []
    for seed in range(5):
        moments, weight = sample(channels=8, seed=seed)
        kept = elimination_path([moments], [weight], [BLOCK]).kept(4)
        every = [error_of(torch.tensor(subset), moments, weight) for subset in combinations(range(8), 4)]
        ratios.append(error_of(kept, moments, weight) / min(every))
    assert sum(ratios) / len(ratios) < 1.05


def test_consumers_of_one_group_are_pruned_together() -> None:
    """Two consumers that see the same rows are one consumer with all the outputs."""
    x, weight, y = make_rows(10, BLOCK, 6, noise=1.0)
    whole = elimination_path([moments_of(x, y)], [weight], [BLOCK])
    parts = [slice(0, 2), slice(2, 6)]
    moments = [moments_of(x, y[:, part]) for part in parts]
    both = elimination_path(moments, [weight[:, part] for part in parts], [BLOCK, BLOCK])
    assert torch.equal(both.order, whole.order)
    torch.testing.assert_close(both.errors, whole.errors, rtol=1e-9, atol=1e-12)
    kept = whole.kept(4)
    joined = torch.cat([refit(m, weight[:, part], kept, BLOCK)[0] for m, part in zip(moments, parts, strict=True)], 1)
    torch.testing.assert_close(joined, refit(moments_of(x, y), weight, kept, BLOCK)[0], rtol=1e-9, atol=1e-9)


def test_consumers_may_have_kernels_of_different_size() -> None:
    samples = [make_rows(8, 3, 4, noise=1.0), make_rows(8, 1, 5, noise=1.0, seed=1)]
    moments, weights = [moments_of(x, y) for x, _, y in samples], [weight for _, weight, _ in samples]
    path = elimination_path(moments, weights, [3, 1])
    fits = [refit(m, w, path.kept(5), b)[0] for m, w, b in zip(moments, weights, [3, 1], strict=True)]
    assert [tuple(W.shape) for W in fits] == [(15, 4), (5, 5)]
    residual = sum(
        relative_error(m, W, path.kept(5), b) * float(m.sigma.sum())
        for m, W, b in zip(moments, fits, [3, 1], strict=True)
    )
    assert float(path.errors[5]) == pytest.approx(residual / sum(float(m.sigma.sum()) for m in moments), rel=1e-4)


def test_dead_and_repeated_channels_go_first() -> None:
    x, weight, _ = make_rows(8, BLOCK, 4)
    x[:, :BLOCK] = 2.0
    x[:, BLOCK : 2 * BLOCK] = x[:, 2 * BLOCK : 3 * BLOCK]
    path = elimination_path([moments_of(x, x @ weight)], [weight], [BLOCK])
    assert path.order[0] == 0
    assert path.order[1] in (1, 2)
    assert float(path.errors[6]) < 1e-6


def test_without_any_signal_there_is_still_an_order() -> None:
    nothing = moments_of(torch.zeros(5, 6, dtype=torch.float64), torch.zeros(5, 2, dtype=torch.float64))
    path = elimination_path([nothing], [torch.zeros(6, 2, dtype=torch.float64)], [BLOCK])
    assert path.order.tolist() == [0, 1]
    assert path.errors.tolist() == [0.0, 0.0, 0.0]
