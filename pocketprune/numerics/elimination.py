"""Backward elimination of channels, the structured form of the optimal brain surgeon (Hassibi, Stork 1993).

With P = (A + lambda I)^-1 and V = P (B + lambda W0), dropping channel i raises the ridge objective
||Y - XV||^2 + lambda ||V - W0||^2 by exactly tr(M V_i^T P_ii^-1 V_i). The best V without it, and the P of the
others, follow by an update of rank ``block``. One pass yields the order of removal and the error of every
count.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from pocketprune.numerics.moments import Moments
from pocketprune.numerics.paths import RankedPath
from pocketprune.numerics.reconstruction import damped_cholesky, damping_of, error_ratio, expand_blocks

_DELAYED_ROWS = 144  # rows of P's update collected before one matrix product applies them


def elimination_path(
    moments: Sequence[Moments],
    weights: Sequence[Tensor],
    blocks: Sequence[int],
    *,
    output_weights: Sequence[Tensor | None] | None = None,
    ridge: float = 1e-6,
) -> RankedPath:
    """Eliminate one channel after the other, the cheapest first; costs add over the consumers.

    Args:
        moments: of each consumer.
        weights: of each consumer, (d, n) with d = c * block.
        blocks: rows of the weight that belong to one channel, for each consumer.
        output_weights: (n,) for each consumer; None for ones.
        ridge: lambda over the mean diagonal of A. The path holds lambda fixed.

    Returns:
        The order of removal. Its errors are those of the exact refit, all consumers and output weights included.

    Raises:
        ValueError: the moments hold NaN or infinite values.
    """
    weighted = output_weights if output_weights is not None else [None] * len(weights)
    consumers = [_Consumer(m, w, b, o, ridge) for m, w, b, o in zip(moments, weights, blocks, weighted, strict=True)]
    return RankedPath(*_eliminate(consumers, weights[0].shape[0] // blocks[0]))


def _eliminate(consumers: list[_Consumer], channels: int) -> tuple[Tensor, Tensor]:
    """Return the order of removal, and the relative error for every kept count."""
    sigma = sum(k.sigma for k in consumers)
    errors = torch.ones(channels + 1, dtype=torch.float64)
    places = torch.arange(channels, device=consumers[0].moments.A.device)  # channels the arrays hold
    alive = torch.ones_like(places, dtype=torch.bool)
    objective, order, solved_at = 0.0, [], 2 * channels
    for count in range(channels, 0, -1):
        if count <= solved_at // 2:  # afresh, lest rounding builds up: cheap, for half the channels each time
            places, alive, solved_at = places[alive], alive[alive], count
            objective = sum(k.solve(places) for k in consumers)
        elif any(k.delayed_rows >= _DELAYED_ROWS for k in consumers):
            for k in consumers:
                k.apply_delayed(alive)
            places, alive = places[alive], alive[alive]
        errors[count] = error_ratio(objective - sum(k.penalty() for k in consumers), sigma)
        costs = reduce(operator.add, [k.costs() for k in consumers])
        i = int(costs.masked_fill(~alive, torch.inf).argmin())
        objective += float(costs[i]) - sum(k.drop(i) for k in consumers)
        alive[i] = False
        order.append(places[i])
    errors[0] = error_ratio(sigma, sigma)
    return torch.stack(order), errors


class _Consumer:
    """One consumer's part of the elimination, on the channels that ``solve`` or ``apply_delayed`` last left.

    P is brought up to date late, many rows at a time (``_pending``); V and the diagonal blocks of P at every
    step. The output weights M are folded into V, as V M^(1/2).
    """

    def __init__(
        self, moments: Moments, weight: Tensor, block: int, output_weight: Tensor | None, ridge: float
    ) -> None:
        self.moments, self.weight, self.block = moments, weight.detach().to(moments.A), block
        self.damping = damping_of(moments.A, ridge)
        self._root = None if output_weight is None else output_weight.to(moments.A).sqrt()
        self.sigma = float(self._scaled(moments.sigma.sqrt()).square().sum())
        self._P = self._V = self._diagonal = self._anchor = moments.A.new_zeros(0)
        self._pending: list[Tensor] = []

    def solve(self, places: Tensor) -> float:
        """Start afresh with the channels ``places``, and return their ridge objective."""
        rows = expand_blocks(places, self.block)
        factor, self.damping = damped_cholesky(self.moments.A[rows[:, None], rows], self.damping)
        self._P = torch.cholesky_inverse(factor)
        self._anchor = self._scaled(self.weight[rows])
        pull = self._scaled(self.moments.B[rows]) + self.damping * self._anchor
        self._V = torch.cholesky_solve(pull, factor)
        self._read_diagonal()
        return self.sigma - float((self._V * pull).sum()) + self.damping * float(self._anchor.square().sum())

    def costs(self) -> Tensor:
        """Return what dropping each channel adds to the ridge objective, (channels,)."""
        factor = torch.linalg.cholesky_ex(self._diagonal).L
        V = self._V.view(len(factor), self.block, -1)
        half: Tensor = torch.linalg.solve_triangular(factor, V, upper=False)
        return half.square().sum((1, 2))

    def drop(self, i: int) -> float:
        """Take the channel at place i out, and return its share lambda ||W0_i||^2 of the objective's penalty."""
        rows = slice(i * self.block, (i + 1) * self.block)
        factor = torch.linalg.cholesky_ex(self._diagonal[i]).L
        current = self._P[rows] - sum(u[:, rows].T @ u for u in self._pending)
        half = torch.linalg.solve_triangular(factor, current, upper=False)
        self._pending.append(half)
        self._V -= half.T @ torch.linalg.solve_triangular(factor, self._V[rows], upper=False)
        parts = half.view(self.block, -1, self.block).transpose(0, 1)
        self._diagonal -= parts.transpose(1, 2) @ parts
        gone = self.damping * float(self._anchor[rows].square().sum())
        # The place stays, as a channel that costs nothing, until the arrays are next cut down.
        self._V[rows], self._anchor[rows] = 0.0, 0.0
        self._diagonal[i] = torch.eye(self.block).to(self._diagonal)
        return gone

    @property
    def delayed_rows(self) -> int:
        """Return how many rows of the update of P are not yet applied."""
        return len(self._pending) * self.block

    def apply_delayed(self, alive: Tensor) -> None:
        """Bring P up to date and cut the arrays down to the places ``alive``."""
        update = torch.cat(self._pending)
        rows = expand_blocks(alive.nonzero().flatten(), self.block)
        self._P = self._P.addmm_(update.T, update, alpha=-1)[rows[:, None], rows]
        self._V, self._anchor = self._V[rows], self._anchor[rows]
        self._read_diagonal()

    def penalty(self) -> float:
        """Return lambda ||V - W0||^2: what the ridge objective holds above the squared error."""
        return self.damping * float((self._V - self._anchor).square().sum())

    def _read_diagonal(self) -> None:
        c = len(self._P) // self.block
        blocks = self._P.view(c, self.block, c, self.block).diagonal(dim1=0, dim2=2)
        self._diagonal = blocks.permute(2, 0, 1).contiguous()
        self._pending = []

    def _scaled(self, values: Tensor) -> Tensor:
        return values if self._root is None else values * self._root
