"""Choosing input channels with the Lasso, from moments alone.

He, Zhang, Sun (2017, eq. 2) minimise 1/2 ||Y - sum_i beta_i X_i W_i||^2 + alpha ||beta||_1 over one scalar
per channel. On moments this is 1/2 beta^T G beta - g^T beta + alpha ||beta||_1, and the LARS path over
alpha (Efron et al. 2004) holds a support for every count: no search for alpha, no tolerance on the count.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

_DEAD = 1e-14  # a channel whose diagonal is below this share of the largest carries no signal


def channel_gram(
    A: Tensor, B: Tensor, weight: Tensor, block: int, output_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The Lasso's Gram matrix G (c, c) and correlations g (c,).

    G_ij = <A_ij, W_i M W_j^T>, g_i = <B_i, W_i M>. A (d, d), B (d, n), weight (d, n) with d = c * block;
    output_weight: the diagonal of M (n,), None for ones. Several consumers of one group add their G and g.
    Raises ValueError when block does not divide d.
    """
    d, n = weight.shape
    if block < 1 or d % block:
        raise ValueError(f"block must divide the {d} rows of the weight, got {block}")
    weight = weight.detach().to(A)
    scaled = weight if output_weight is None else weight * output_weight.to(A)
    G = A.new_empty(d // block, d // block)
    step = max(1, 4_000_000 // (d * block))  # channels at a time: W M W^T is never held whole
    for i in range(0, d // block, step):
        rows = slice(i * block, (i + step) * block)
        products = (scaled[rows] @ weight.T).mul_(A[rows])
        G[i : i + step] = products.view(-1, block, d // block, block).sum((1, 3))
    g = (B * scaled).view(-1, block * n).sum(1)
    return (G + G.T) / 2, g


def lasso_path(G: Tensor, g: Tensor) -> list[Tensor]:
    """The kept channels for every count: entry k is a sorted LongTensor of exactly k channels, k = 0 ... c.

    Entry k is the first active set of k channels on the LARS path. Where the path ends early (channels
    without variance, copies of others), its last active set is completed one channel at a time by the
    largest gain of the least-squares fit; among equal gains the larger diagonal of G wins, then the lower
    index.
    Raises ValueError when G or g hold NaN or infinite values.
    """
    c = g.shape[0]
    gram, corr = _as_arrays(G, g)
    full = _complete(_path_supports(gram, corr, 8 * c)[0], gram, corr, c)
    return [_as_kept(support, G.device) for support in full]


def lasso_select(G: Tensor, g: Tensor, count: int) -> Tensor:
    """``lasso_path(G, g)[count]``, walking no more of the path than it takes."""
    c = g.shape[0]
    if not 0 <= count <= c:
        raise ValueError(f"count must lie in 0 ... {c}, got {count}")
    gram, corr = _as_arrays(G, g)
    max_iter = count + 8
    supports, ended = _path_supports(gram, corr, max_iter)
    while count not in supports and not ended and max_iter < 8 * c:
        max_iter = min(2 * max_iter, 8 * c)
        supports, ended = _path_supports(gram, corr, max_iter)
    return _as_kept(_complete(supports, gram, corr, count)[count], G.device)


def _path_supports(gram: np.ndarray, corr: np.ndarray, max_iter: int) -> tuple[dict[int, list[int]], bool]:
    """First active set of every size in max_iter steps of the LARS path, and whether the path ended there."""
    from sklearn.linear_model import lars_path_gram  # here, as its import takes as long as that of torch

    diagonal = gram.diagonal()
    live = np.flatnonzero(diagonal > _DEAD * diagonal.max(initial=0.0))
    supports: dict[int, list[int]] = {0: []}
    if live.size == 0 or not np.abs(corr[live]).max() > 0:
        return supports, True
    # The solver's tolerances are absolute. Scaling G scales the problem; scaling g only scales beta.
    gram = np.ascontiguousarray(gram[np.ix_(live, live)] / diagonal[live].max())
    corr = corr[live] * (1e6 / np.abs(corr[live]).max())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # degenerate channels are expected; _complete deals with them
        _, _, coefs = lars_path_gram(corr, gram, n_samples=1, method="lasso", max_iter=max_iter)
    active = np.abs(coefs) > 1e-12 * np.abs(coefs).max(axis=0)  # what a drop leaves behind is rounding
    for knot in range(1, active.shape[1]):
        # Between two knots the active set is constant: what is nonzero at either end.
        members = live[np.flatnonzero(active[:, knot - 1] | active[:, knot])]
        supports.setdefault(len(members), members.tolist())
    return supports, active.shape[1] <= max_iter


def _complete(supports: dict[int, list[int]], gram: np.ndarray, corr: np.ndarray, upto: int) -> list[list[int]]:
    """A support for every count 0 ... upto: that of the path, or else the next smaller one, completed."""
    full: list[list[int]] = []
    additions: list[int] | None = None
    for count in range(upto + 1):
        if count in supports:
            full.append(supports[count])
            additions = None
        else:
            additions = _additions(full[-1], gram, corr) if additions is None else additions
            full.append([*full[-1], additions.pop(0)])
    return full


def _additions(support: list[int], gram: np.ndarray, corr: np.ndarray) -> list[int]:
    """The channels outside the support, in order of greedy marginal gain (forward selection by sweeping)."""
    rest = np.setdiff1d(np.arange(corr.size), support)
    schur, residual = gram[np.ix_(rest, rest)], corr[rest]
    if support:
        cross = gram[np.ix_(support, rest)]
        solved = np.linalg.lstsq(gram[np.ix_(support, support)], np.c_[corr[support], cross], rcond=None)[0]
        residual, schur = residual - cross.T @ solved[:, 0], schur - cross.T @ solved[:, 1:]
    # What is left of a copy of kept channels is rounding, and explains nothing.
    floor = 1e-10 * gram.diagonal()[rest]
    order: list[int] = []
    while rest.size:
        left = schur.diagonal()
        independent = left > floor
        gain = np.where(independent, residual**2, 0.0) / np.where(independent, left, 1.0)
        best = int(np.lexsort((rest, -gram.diagonal()[rest], -gain))[0])
        order.append(int(rest[best]))
        if independent[best]:
            column = schur[:, best] / left[best]
            residual = residual - column * residual[best]
            schur = schur - np.outer(column, schur[best])
        others = np.arange(rest.size) != best
        rest, residual, floor = rest[others], residual[others], floor[others]
        schur = schur[np.ix_(others, others)]
    return order


def _as_kept(support: list[int], device: torch.device) -> Tensor:
    return torch.tensor(sorted(support), dtype=torch.long, device=device)


def _as_arrays(G: Tensor, g: Tensor) -> tuple[np.ndarray, np.ndarray]:
    if not bool(torch.isfinite(G).all() and torch.isfinite(g).all()):
        raise ValueError("moments hold NaN or infinite values: the network's activations overflow")
    return G.detach().double().cpu().numpy(), g.detach().double().cpu().numpy()
