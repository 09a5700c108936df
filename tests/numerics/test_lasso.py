from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso, lars_path
from torch import Tensor

from pocketprune.numerics.lasso import LassoPath, channel_gram
from tests.numerics.samples import make_rows, moments_of

CHANNELS, BLOCK, OUTPUTS = 6, 4, 5


def lasso_path(G: Tensor, g: Tensor) -> list[Tensor]:
    """The kept channels for every count, the largest count asked for first."""
    path = LassoPath(G, g)
    return [path.kept(count) for count in range(len(g), -1, -1)][::-1]


def design(x: Tensor, weight: Tensor, block: int) -> Tensor:
    """The Lasso's explicit rows (m * n, c): column i is vec(X_i W_i) of centred patches."""
    x = x - x.mean(0)
    columns = [x[:, i : i + block] @ weight[i : i + block] for i in range(0, len(weight), block)]
    return torch.stack([column.flatten() for column in columns], 1)


def test_gram_equals_explicit_rows() -> None:
    x, weight, y = make_rows(CHANNELS, BLOCK, OUTPUTS, noise=2.0)
    moments = moments_of(x, y)
    output_weight = torch.rand(OUTPUTS, dtype=torch.float64) + 0.1
    for scale in (None, output_weight):
        root = torch.ones(OUTPUTS, dtype=torch.float64) if scale is None else scale.sqrt()
        Z, target = design(x, weight * root, BLOCK), ((y - y.mean(0)) * root).flatten()
        G, g = channel_gram(moments.A, moments.B, weight, BLOCK, scale)
        torch.testing.assert_close(G, Z.T @ Z, rtol=1e-12, atol=1e-9)
        torch.testing.assert_close(g, Z.T @ target, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("share", [0.8, 0.3, 0.05])
def test_gram_lasso_agrees_with_scikit_learn_on_rows(share: float) -> None:
    x, weight, y = make_rows(CHANNELS, BLOCK, OUTPUTS, noise=2.0)
    moments, Z = moments_of(x, y), design(x, weight, BLOCK)
    target = (y - y.mean(0)).flatten()
    G, g = (t.numpy() for t in channel_gram(moments.A, moments.B, weight, BLOCK))
    alpha = share * np.abs(g).max() / len(Z)
    rows = Lasso(alpha=alpha, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(Z.numpy(), target.numpy())
    active = np.flatnonzero(rows.coef_)
    # The Gram problem solved on the same support, and no other channel wants to enter.
    penalty = alpha * len(Z) * np.sign(rows.coef_[active])
    beta = np.linalg.solve(G[np.ix_(active, active)], g[active] - penalty)
    np.testing.assert_allclose(beta, rows.coef_[active], rtol=1e-9)
    assert (np.abs(g - G[:, active] @ beta) <= alpha * len(Z) * (1 + 1e-9)).all()
    assert LassoPath(torch.from_numpy(G), torch.from_numpy(g)).kept(len(active)).tolist() == active.tolist()


def test_path_agrees_with_lars_on_rows() -> None:
    x, weight, y = make_rows(12, 2, 3, rows=300, noise=3.0, seed=4)
    moments, Z = moments_of(x, y), design(x, weight, 2)
    _, _, coefs = lars_path(Z.numpy(), (y - y.mean(0)).flatten().numpy(), method="lasso")
    path = lasso_path(*channel_gram(moments.A, moments.B, weight, 2))
    seen: dict[int, list[int]] = {}
    for knot in coefs.T:
        seen.setdefault(int((knot != 0).sum()), np.flatnonzero(knot).tolist())
    assert {count: path[count].tolist() for count in seen} == seen


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 14), st.integers(0, 10_000), st.booleans())
def test_every_count_is_exact_whatever_the_data(channels: int, seed: int, integers: bool) -> None:
    """Dead channels, copies and exact ties included."""
    random = np.random.default_rng(seed)
    Z = random.normal(size=(20, channels))
    Z = Z.round() if integers else Z
    Z[:, random.random(channels) < 0.2] = 0.0
    Z = Z[:, random.integers(0, channels, channels)]
    y = Z @ random.normal(size=channels) + random.normal(size=20) * random.integers(0, 2)
    G, g = torch.from_numpy(Z.T @ Z), torch.from_numpy(Z.T @ y)
    path = lasso_path(G, g)
    growing = LassoPath(G, g)
    assert len(path) == channels + 1
    for count, kept in enumerate(path):
        assert kept.dtype == torch.long
        assert kept.tolist() == sorted(set(kept.tolist()))
        assert len(kept) == count
        assert torch.equal(LassoPath(G, g).kept(count), kept)
        assert torch.equal(growing.kept(count), kept)


def test_channels_without_signal_come_last() -> None:
    x, weight, _ = make_rows(CHANNELS, BLOCK, OUTPUTS)
    x[:, 2 * BLOCK : 3 * BLOCK] = 7.0  # channel 2 is constant
    x[:, 4 * BLOCK : 5 * BLOCK] = x[:, :BLOCK]  # channel 4 repeats channel 0
    weight[4 * BLOCK : 5 * BLOCK] = weight[:BLOCK]
    moments = moments_of(x, x @ weight)
    path = lasso_path(*channel_gram(moments.A, moments.B, weight, BLOCK))
    assert 2 not in path[5].tolist()
    assert not {0, 4} <= set(path[4].tolist())


def test_without_any_signal_the_lowest_channels_are_kept() -> None:
    path = lasso_path(torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64))
    assert [kept.tolist() for kept in path] == [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_units_do_not_matter(scale: float) -> None:
    x, weight, y = make_rows(12, 2, 3, noise=3.0)
    moments = moments_of(x, y)
    G, g = channel_gram(moments.A, moments.B, weight, 2)
    for mine, scaled in zip(lasso_path(G, g), lasso_path(G * scale, g * scale), strict=True):
        assert torch.equal(mine, scaled)


def test_mistakes_are_refused() -> None:
    G, g = torch.eye(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"count must lie in 0 \.\.\. 3, got 4"):
        LassoPath(G, g).kept(4)
    with pytest.raises(ValueError, match="NaN or infinite"):
        LassoPath(G, g * torch.nan)
    with pytest.raises(ValueError, match="block must divide the 3 rows"):
        channel_gram(G, G, G, 2)
