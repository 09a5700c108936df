"""Which channels to keep: Lasso, backward elimination, weight magnitude or chance, behind one door.

Backward elimination is the structured optimal brain surgeon: with P = (A + lambda I)^-1 and V = P (B + lambda W0),
dropping channel i raises the ridge objective by exactly tr(M V_i^T P_ii^-1 V_i); the best V without it and the P of the
rest follow by a rank-``block`` update. One pass gives the error of every kept count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pocketprune.numerics.lasso import channel_gram, lasso_select
from pocketprune.numerics.moments import Moments
from pocketprune.numerics.reconstruction import damped_cholesky, damping_of, error_ratio, expand_blocks, refit

METHODS = ("lasso", "obs", "magnitude", "random")


def select(method: str, moments: Sequence[Moments], weights: Sequence[Tensor], blocks: Sequence[int], count: int, *,
           output_weights: Sequence[Tensor | None] | None = None, ridge: float = 1e-6,
           generator: torch.Generator | None = None) -> Tensor:
    """The ``count`` channels to keep (sorted LongTensor) of a group read by one or more consumers.

    moments, weights (d, n) with d = c * block, blocks, output_weights (n,): one entry per consumer.
    method: "lasso" (He et al. 2017), "obs" (backward elimination), "magnitude" (largest sum of |W| over the channel's
    slice in every consumer; the lower index wins ties) or "random" (uniform, from ``generator``).
    Raises ValueError for an unknown method or a count outside 0 ... c.
    """
    weighted = list(output_weights) if output_weights is not None else [None] * len(weights)
    channels = weights[0].shape[0] // blocks[0]
    if method not in METHODS:
        raise ValueError(f"selection must be one of {', '.join(METHODS)}, got {method!r}")
    if not 0 <= count <= channels:
        raise ValueError(f"count must lie in 0 ... {channels}, got {count}")
    if method == "random":
        return torch.randperm(channels, generator=generator)[:count].sort().values.to(weights[0].device)
    if method == "magnitude":
        order = magnitude_scores(weights, blocks).argsort(descending=True, stable=True)
        return order[:count].sort().values
    if method == "obs":
        return EliminationPath.from_moments(moments, weights, blocks, output_weights=weighted, ridge=ridge).kept(count)
    grams = [channel_gram(m.A, m.B, w, b, o)
             for m, w, b, o in zip(moments, weights, blocks, weighted, strict=True)]
    return lasso_select(sum(G for G, _ in grams), sum(g for _, g in grams), count)


def magnitude_scores(weights: Sequence[Tensor], blocks: Sequence[int]) -> Tensor:
    """Sum of |W| over each channel's slice (c,), summed over the consumers."""
    return sum(w.double().abs().sum(1).view(-1, b).sum(1) for w, b in zip(weights, blocks, strict=True))


@dataclass
class _Consumer:
    """One consumer's share of the elimination; rows of the arrays are those of the channels still alive."""

    moments: Moments
    weight: Tensor
    block: int
    scale: Tensor          # square root of the output weights (n,)
    damping: float
    P: Tensor = field(init=False)
    V: Tensor = field(init=False)
    anchor: Tensor = field(init=False)

    def restart(self, alive: Tensor) -> float:
        """Solve afresh on the channels alive; returns the weighted ridge objective without the dropped anchors."""
        rows = expand_blocks(alive, self.block)
        self.anchor = self.weight[rows] * self.scale
        factor, self.damping = damped_cholesky(self.moments.A[rows[:, None], rows], self.damping)
        self.P = torch.cholesky_inverse(factor)
        pull = self.moments.B[rows] * self.scale + self.damping * self.anchor
        self.V = torch.cholesky_solve(pull, factor)
        sigma = float((self.moments.sigma * self.scale.square()).sum())
        return sigma - float((self.V * pull).sum()) + self.damping * float(self.anchor.square().sum())

    def costs(self, alive: int) -> Tensor:
        """What dropping each channel alive costs (alive,)."""
        s = self.block
        diagonal = self.P.view(alive, s, alive, s).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        factor = torch.linalg.cholesky_ex(diagonal).L
        half = torch.linalg.solve_triangular(factor, self.V.view(alive, s, -1), upper=False)
        return half.square().sum((1, 2))

    def drop(self, i: int, keep: Tensor) -> None:
        """Take channel i (its place among those alive) out of P and V."""
        rows, keep = slice(i * self.block, (i + 1) * self.block), expand_blocks(keep, self.block)
        factor = torch.linalg.cholesky_ex(self.P[rows, rows]).L
        half = torch.linalg.solve_triangular(factor, self.P[rows], upper=False)
        self.V = (self.V - half.T @ torch.linalg.solve_triangular(factor, self.V[rows], upper=False))[keep]
        self.P = (self.P - half.T @ half)[keep[:, None], keep]
        self.anchor = self.anchor[keep]

    def pull_penalty(self) -> float:
        """lambda ||V - W0||^2 of the channels alive: what the ridge objective holds above the error."""
        return self.damping * float((self.V - self.anchor).square().sum())


@dataclass(frozen=True)
class EliminationPath:
    """The whole path of backward elimination.

    Attributes:
        order: channels in order of removal, a LongTensor (c,); the last one is the most useful.
        errors: relative squared error for every kept count 0 ... c (c + 1,), each after the exact refit.
    """

    order: Tensor
    errors: Tensor
    _consumers: tuple[tuple[Moments, Tensor, int, float], ...] = field(repr=False)

    @classmethod
    def from_moments(cls, moments: Sequence[Moments], weights: Sequence[Tensor], blocks: Sequence[int], *,
                     output_weights: Sequence[Tensor | None] | None = None, ridge: float = 1e-6) -> EliminationPath:
        """Eliminate one channel after the other, the cheapest first, over all consumers together.

        moments, weights (d, n) with d = c * block, blocks, output_weights (n,): one entry per consumer; costs add.
        """
        weighted = output_weights if output_weights is not None else [None] * len(weights)
        consumers = [_Consumer(m, w.to(m.A), b, _root(o, m), damping_of(m.A, ridge))
                     for m, w, b, o in zip(moments, weights, blocks, weighted, strict=True)]
        order, errors = _eliminate(consumers, weights[0].shape[0] // blocks[0])
        kept_state = tuple((k.moments, k.weight, k.block, k.damping) for k in consumers)
        return cls(order, errors, kept_state)

    def kept(self, count: int) -> Tensor:
        """The ``count`` channels that stay longest, a sorted LongTensor."""
        return self.order[self.order.shape[0] - count:].sort().values

    def weights(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """Exact refit for ``count`` kept channels: (W_S, bias) of every consumer, as ``refit`` gives them."""
        return [refit(m, w, self.kept(count), b, damping=damping) for m, w, b, damping in self._consumers]


def _eliminate(consumers: list[_Consumer], channels: int) -> tuple[Tensor, Tensor]:
    device = consumers[0].moments.A.device
    alive = torch.arange(channels, device=device)
    sigma = sum(float((k.moments.sigma * k.scale.square()).sum()) for k in consumers)
    objective = sum(k.restart(alive) for k in consumers)
    order, errors, fresh = [], torch.zeros(channels + 1, dtype=torch.float64), channels
    for count in range(channels, 0, -1):
        errors[count] = error_ratio(objective - sum(k.pull_penalty() for k in consumers), sigma)
        costs = sum(k.costs(count) for k in consumers)
        i = int(costs.argmin())
        order.append(int(alive[i]))
        places = torch.arange(count, device=device)
        places = places[places != i]
        alive = alive[places]
        objective += float(costs[i])
        objective -= sum(k.damping * float(k.anchor.view(count, -1)[i].square().sum()) for k in consumers)
        for k in consumers:
            k.drop(i, places)
        if 0 < count - 1 <= fresh // 2:
            fresh = count - 1
            objective = sum(k.restart(alive) for k in consumers)
    errors[0] = error_ratio(objective, sigma)
    return torch.tensor(order, dtype=torch.long, device=device), errors


def _root(output_weight: Tensor | None, moments: Moments) -> Tensor:
    if output_weight is None:
        return torch.ones_like(moments.sigma)
    return output_weight.to(moments.sigma).sqrt()
