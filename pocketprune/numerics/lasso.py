"""Choosing input channels with the Lasso, from moments alone.

He, Zhang, Sun 2017 (eq. 2): minimise 1/2 ||Y - sum_i beta_i X_i W_i||^2 + alpha ||beta||_1 over one scalar per channel.
On moments this is 1/2 beta^T G beta - g^T beta + alpha ||beta||_1, and the LARS path (Efron et al. 2004) over alpha
holds a support for every count: no search for alpha, no tolerance on the count.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.linear_model import lars_path_gram
from torch import Tensor

_DEAD = 1e-14  # a channel whose diagonal is below this share of the largest carries no signal


def channel_gram(A: Tensor, B: Tensor, weight: Tensor, block: int,
                 output_weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The Lasso's Gram matrix G (c, c) and correlations g (c,): G_ij = <A_ij, W_i M W_j^T>, g_i = <B_i, W_i M>.

    A (d, d), B (d, n), weight (d, n) with d = c * block; output_weight: the diagonal of M (n,), None for ones.
    Several consumers of the same channels add their G and g.
    """
    d, n = weight.shape
    if block < 1 or d % block:
        raise ValueError(f"block must divide the {d} rows of the weight, got {block}")
    weight = weight.to(A)
    scaled = weight if output_weight is None else weight * output_weight.to(A)
    G = A.new_empty(d // block, d // block)
    step = max(1, 4_000_000 // (d * block))  # channels at a time: W M W^T is never held whole
    for i in range(0, d // block, step):
        rows = slice(i * block, (i + step) * block)
        products = (scaled[rows] @ weight.T).mul_(A[rows])
        G[i:i + step] = products.view(-1, block, d // block, block).sum((1, 3))
    g = (B * scaled).view(-1, block * n).sum(1)
    return (G + G.T) / 2, g


def lasso_path(G: Tensor, g: Tensor) -> list[Tensor]:
    """The kept channels for every count: entry k is a sorted LongTensor of exactly k channels, k = 0 ... c.

    Entry k is the first active set of k channels on the LARS path. Where the path ends early (channels without
    variance, copies of others), the last active set is completed one channel at a time by the largest marginal gain
    of the least-squares fit; among equal gains the larger diagonal of G wins, then the lower index.
    """
    c = g.shape[0]
    supports = _path_supports(G, g, max_iter=8 * c)
    return [torch.tensor(sorted(s), dtype=torch.long, device=G.device) for s in _complete(supports, G, g)]


def lasso_select(G: Tensor, g: Tensor, count: int) -> Tensor:
    """The kept channels (sorted LongTensor) of exactly ``count`` channels, as ``lasso_path(G, g)[count]``."""
    if not 0 <= count <= g.shape[0]:
        raise ValueError(f"count must lie in 0 ... {g.shape[0]}, got {count}")
    return lasso_path(G, g)[count]


def _path_supports(G: Tensor, g: Tensor, max_iter: int) -> dict[int, list[int]]:
    """First active set of every size met on the LARS path, by size."""
    gram, corr = G.detach().double().cpu().numpy(), g.detach().double().cpu().numpy()
    diagonal = gram.diagonal()
    live = np.flatnonzero(diagonal > _DEAD * diagonal.max(initial=0.0))
    supports: dict[int, list[int]] = {0: []}
    if live.size == 0 or not np.abs(corr[live]).max() > 0:
        return supports
    # The solver's tolerances are absolute. Scaling G scales the problem; scaling g only scales beta.
    gram = np.ascontiguousarray(gram[np.ix_(live, live)] / diagonal[live].max())
    corr = corr[live] * (1e6 / np.abs(corr[live]).max())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # degenerate channels are expected; _complete deals with them
        _, _, coefs = lars_path_gram(corr, gram, n_samples=1, method="lasso", max_iter=max_iter)
    active = np.abs(coefs) > 1e-12 * np.abs(coefs).max()
    for knot in range(1, active.shape[1]):
        members = live[np.flatnonzero(active[:, knot - 1] | active[:, knot])]
        supports.setdefault(len(members), members.tolist())
    return supports


def _complete(supports: dict[int, list[int]], G: Tensor, g: Tensor) -> list[list[int]]:
    """A support for every count 0 ... c, filling gaps by marginal gain from the next smaller support."""
    c = g.shape[0]
    gram, corr = G.detach().double().cpu().numpy(), g.detach().double().cpu().numpy()
    full: list[list[int]] = []
    for count in range(c + 1):
        full.append(supports[count] if count in supports else [*full[-1], _best_addition(full[-1], gram, corr)])
    return full


def _best_addition(support: list[int], gram: np.ndarray, corr: np.ndarray) -> int:
    """The channel that lowers the least-squares error most when added to the support."""
    rest = np.setdiff1d(np.arange(corr.size), support)
    residual, left = corr[rest], gram.diagonal()[rest]
    if support:
        cross = gram[np.ix_(support, rest)]
        solved = np.linalg.lstsq(gram[np.ix_(support, support)], np.c_[corr[support], cross], rcond=None)[0]
        residual = residual - cross.T @ solved[:, 0]
        left = left - (cross * solved[:, 1:]).sum(0)
    scale = gram.diagonal().max(initial=0.0)
    gain = np.where(left > 1e-10 * scale, residual**2 / np.maximum(left, np.finfo(float).tiny), 0.0)
    order = np.lexsort((rest, -gram.diagonal()[rest], -gain))
    return int(rest[order[0]])
