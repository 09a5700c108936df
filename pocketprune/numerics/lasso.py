"""Choosing input channels with the Lasso, from moments alone.

He, Zhang, Sun (2017, eq. 2) minimise 1/2 ||Y - sum_i beta_i X_i W_i||^2 + alpha ||beta||_1 over one scalar
per channel. On moments this is 1/2 beta^T G beta - g^T beta + alpha ||beta||_1, and the LARS path over
alpha (Efron et al. 2004) holds a support for every count: no search for alpha, no tolerance on the count.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pocketprune.numerics.paths import check_count

Array = npt.NDArray[np.float64]

_DEAD = 1e-14  # a channel whose diagonal is below this share of the largest carries no signal


def channel_gram(
    A: Tensor, B: Tensor, weight: Tensor, block: int, output_weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the Lasso's Gram matrix and correlations for one consumer. Several consumers of one group add theirs.

    G_ij = <A_ij, W_i M W_j^T>, g_i = <B_i, W_i M>.

    Args:
        A: (d, d) second moments of the patches, d = c * block.
        B: (d, n) cross moments of patches and targets.
        weight: (d, n).
        block: rows of the weight that belong to one channel.
        output_weight: the diagonal of M (n,); None for ones.

    Returns:
        G (c, c) and g (c,).

    Raises:
        ValueError: block does not divide d.
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


class LassoPath:
    """The kept channels for every count.

    Those of count k are the first active set of k channels on the LARS path. Where the path ends early (channels
    without variance, copies of others), its last active set is completed one channel at a time by the largest gain of
    the least-squares fit; among equal gains the larger diagonal of G wins, then the lower index. The path is walked no
    further than the counts asked for take.

    Attributes:
        errors: None, as the Lasso's own fit says little about that after a refit.
    """

    errors: Tensor | None = None

    def __init__(self, G: Tensor, g: Tensor) -> None:
        """Take the Gram matrix G (c, c) and the correlations g (c,).

        Raises:
            ValueError: G or g holds NaN or infinite values.
        """
        self._gram, self._corr = _as_arrays(G, g)
        self._device = G.device
        self._supports: dict[int, list[int]] = {}
        self._steps = 0  # walked so far

    def kept(self, count: int) -> Tensor:
        """Return the ``count`` channels that stay, a sorted LongTensor.

        Raises:
            ValueError: the count lies outside 0 ... c.
        """
        check_count(count, self._corr.size)
        while count not in self._supports:
            self._walk(max(count + 8, 2 * self._steps))
        return torch.tensor(sorted(self._supports[count]), dtype=torch.long, device=self._device)

    def _walk(self, steps: int) -> None:
        """Walk the path anew, up to so many steps; where it ends, every count has its support."""
        channels = self._corr.size
        self._steps = min(steps, 8 * channels)
        self._supports, ended = _path_supports(self._gram, self._corr, self._steps)
        if ended or self._steps == 8 * channels:
            self._supports = dict(enumerate(_complete(self._supports, self._gram, self._corr)))


def _path_supports(gram: Array, corr: Array, max_iter: int) -> tuple[dict[int, list[int]], bool]:
    """Return the first active set of every size in max_iter steps of the LARS path, and whether it ended there."""
    # Here, as its import takes as long as that of torch.
    from sklearn.linear_model import lars_path_gram

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


def _complete(supports: dict[int, list[int]], gram: Array, corr: Array) -> list[list[int]]:
    """Return a support for every count 0 ... c: that of the path, or else the next smaller one, completed."""
    full: list[list[int]] = []
    additions: list[int] = []
    for count in range(corr.size + 1):
        if count in supports:
            full.append(supports[count])
            additions = []
        else:
            additions = additions or _additions(full[-1], gram, corr)
            full.append([*full[-1], additions.pop(0)])
    return full


def _additions(support: list[int], gram: Array, corr: Array) -> list[int]:
    """Return the channels outside the support, by greedy marginal gain (forward selection by sweeping)."""
    rest = np.setdiff1d(np.arange(corr.size), support)
    schur, residual = gram[np.ix_(rest, rest)], corr[rest]
    if support:
        held = np.array(support)
        cross = gram[np.ix_(held, rest)]
        solved = np.linalg.lstsq(gram[np.ix_(held, held)], np.c_[corr[held], cross], rcond=None)[0]
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


def _as_arrays(G: Tensor, g: Tensor) -> tuple[Array, Array]:
    if not bool(torch.isfinite(G).all() and torch.isfinite(g).all()):
        raise ValueError("moments hold NaN or infinite values: the network's activations overflow")
    return G.detach().double().cpu().numpy(), g.detach().double().cpu().numpy()
