"""Which channels to keep: Lasso, backward elimination, weight magnitude or chance, behind one door."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pocketprune.numerics.elimination import EliminationPath
from pocketprune.numerics.lasso import channel_gram, lasso_select
from pocketprune.numerics.moments import Moments

METHODS = ("lasso", "obs", "magnitude", "random")


def select(
    method: str,
    moments: Sequence[Moments],
    weights: Sequence[Tensor],
    blocks: Sequence[int],
    count: int,
    *,
    output_weights: Sequence[Tensor | None] | None = None,
    ridge: float = 1e-6,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The ``count`` channels to keep, a sorted LongTensor, of a group read by one or more consumers.

    moments, weights (d, n) with d = c * block, blocks, output_weights (n,): one entry per consumer, all
    with the same c; "magnitude" and "random" do not read the moments. method: "lasso" (He et al. 2017),
    "obs" (backward elimination), "magnitude" (the largest sums of |W| over the channel's slices, in all
    consumers; the lower index wins ties) or "random" (uniform, drawn from ``generator``).
    Raises ValueError for an unknown method, consumers that disagree on c, or a count outside 0 ... c.
    """
    if method not in METHODS:
        raise ValueError(f"selection must be one of {', '.join(METHODS)}, got {method!r}")
    channels = _channels(weights, blocks)
    if not 0 <= count <= channels:
        raise ValueError(f"count must lie in 0 ... {channels}, got {count}")
    if method == "random":
        return torch.randperm(channels, generator=generator)[:count].sort().values.to(weights[0].device)
    if method == "magnitude":
        order = magnitude_scores(weights, blocks).argsort(descending=True, stable=True)
        return order[:count].sort().values
    weighted = output_weights if output_weights is not None else [None] * len(weights)
    if method == "obs":
        path = EliminationPath.from_moments(moments, weights, blocks, output_weights=weighted, ridge=ridge)
        return path.kept(count)
    grams = [channel_gram(m.A, m.B, w, b, o) for m, w, b, o in zip(moments, weights, blocks, weighted, strict=True)]
    return lasso_select(sum(G for G, _ in grams), sum(g for _, g in grams), count)


def magnitude_scores(weights: Sequence[Tensor], blocks: Sequence[int]) -> Tensor:
    """Sum of |W| over each channel's slice (c,), added over the consumers."""
    rows = (w.detach().double().abs().sum(1) for w in weights)
    return sum(row.view(-1, block).sum(1) for row, block in zip(rows, blocks, strict=True))


def _channels(weights: Sequence[Tensor], blocks: Sequence[int]) -> int:
    counts = {w.shape[0] / b for w, b in zip(weights, blocks, strict=True)}
    channels = counts.pop() if len(counts) == 1 else 0.0
    if channels < 1 or channels != int(channels):
        shapes = [tuple(w.shape) for w in weights]
        raise ValueError(f"consumers must read the same channels, got {shapes} in blocks of {list(blocks)}")
    return int(channels)
