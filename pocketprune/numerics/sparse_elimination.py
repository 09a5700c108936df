"""Single weights of a layer removed in closed form, from its moments: optimal brain surgeon on each output.

With P = (A + lambda I)^-1 and the refitted weight w = P (b + lambda w0) of one output, removing weight i costs
w_i^2 / P_ii, and the others become w - P_:i w_i / P_ii (Hassibi and Stork 1993). The exact way does so for each
output, weight by weight or few by few (`output_elimination`). For wide layers all outputs pass the inputs in one order
and share one factor of P, in blocks of inputs (Frantar and Alistarh 2023, "SparseGPT").

A weight is a matrix (d, n) as in `Moments`: d patch values, channel-major, times n outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pocketprune.numerics.moments import Moments
from pocketprune.numerics.output_elimination import output_by_output
from pocketprune.numerics.reconstruction import damped_cholesky, damping_of
from pocketprune.numerics.weight_patterns import Pattern, lowest

BLOCK = 32
"""Inputs among which the blocked way chooses at once; SparseGPT's 128 lost up to a quarter more on layers of 24 to 288
inputs."""

EXACT_LIMIT = 5e10
"""Multiply-adds up to which outputs are treated one by one, and the weights that stay refitted exactly: a minute."""


def eliminate(
    moments: Moments,
    weight: Tensor,
    taps: int,
    pattern: Pattern,
    pieces: int,
    *,
    output_weight: Tensor | None = None,
    exact: bool | None = None,
    ridge: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Return where to mask a weight, and the refitted weight with zeros there.

    Args:
        moments: of patches (d) and targets (n), centred or about zero.
        weight: the original (d, n).
        taps: patch values of one input channel.
        pattern: what is masked together; a block is masked by the sum of its weights' costs.
        pieces: how many pieces of the pattern are masked.
        output_weight: (n,) how much the error of each output counts; None for all alike.
        exact: whether each output is treated on its own, weight by weight: n times as much work; None: where that is
            affordable.
        ridge: relative to the mean diagonal of A.

    Returns:
        A boolean (d, n) with exactly that many pieces, and the weight (d, n) in float64.
    """
    order = _taps_first(weight.shape[0], taps).to(moments.A.device)  # n:m counts neighbouring channels of one tap
    A, B, W0 = moments.A[order[:, None], order], moments.B[order], weight.detach().to(moments.A)[order]
    scale = _scale(output_weight, B)
    B, W0 = B * scale, W0 * scale
    factor, damping = damped_cholesky(A, damping_of(A, ridge))
    start = torch.cholesky_solve(B + damping * W0, factor)
    P = torch.cholesky_inverse(factor)
    chosen = _chosen(start.square() / P.diagonal()[:, None], taps, pattern, pieces)
    affordable = A.shape[0] ** 3 * W0.shape[1] / 2 <= EXACT_LIMIT
    alone = pattern.rows == 1 and (pattern.stay > 0 or pattern.columns == 1)  # blocks are left to the other way
    if alone and (affordable if exact is None else exact):
        masked = output_by_output(P, start, chosen, pattern)
        W = start.masked_fill(masked, 0)
    else:
        W, masked = _in_blocks(start, _upper_factor(A, damping), chosen, pattern)
    if affordable:
        W = fit_support(A, B, W0, masked, damping)
    back = order.argsort()
    return masked[back], (W / scale)[back]


def refit_masked(moments: Moments, weight: Tensor, masked: Tensor, ridge: float = 1e-6) -> Tensor:
    """Return the least-squares weight (d, n) with zeros where it is masked, or the masked weight where that is costly.

    Args are those of `eliminate`, and masked is a boolean (d, n).
    """
    W0 = weight.detach().to(moments.A)
    if moments.A.shape[0] ** 3 * W0.shape[1] / 2 > EXACT_LIMIT:
        return W0.masked_fill(masked, 0)
    damping = damped_cholesky(moments.A, damping_of(moments.A, ridge))[1]
    return fit_support(moments.A, moments.B, W0, masked, damping)


def fit_support(A: Tensor, B: Tensor, weight: Tensor, masked: Tensor, damping: float) -> Tensor:
    """Return the ridge solution of each output on its own support, zeros elsewhere.

    Args:
        A: (d, d).
        B: (d, n).
        weight: (d, n), towards which the ridge pulls.
        masked: boolean (d, n).
        damping: lambda.
    """
    right, W = B + damping * weight, torch.zeros_like(B)
    for output in range(W.shape[1]):
        support = (~masked[:, output]).nonzero()[:, 0]
        if len(support):
            factor = damped_cholesky(A[support[:, None], support], damping)[0]
            W[support, output] = torch.cholesky_solve(right[support, output, None], factor)[:, 0]
    return W


def _scale(output_weight: Tensor | None, B: Tensor) -> Tensor:
    """Return what to multiply outputs by; never nothing, so that outputs that do not count are fitted too."""
    if output_weight is None or not bool(output_weight.any()):
        return torch.ones_like(B[0])
    root = output_weight.to(B).sqrt()
    return root.clamp(min=1e-3 * float(root.max()))


def _taps_first(d: int, taps: int) -> Tensor:
    return torch.arange(d).view(-1, taps).T.flatten()


def _chosen(costs: Tensor, taps: int, pattern: Pattern, pieces: int) -> Tensor:
    """Return the weights (d, n), taps first, of the pieces that are cheapest by themselves: of n:m, whole groups."""
    d, n = costs.shape
    shaped = costs.T.reshape(n, taps, d // taps).transpose(1, 2)
    cheapest = lowest([pattern.scores(shaped)], pieces)[0]
    whole = Pattern(pattern.rows, pattern.columns)  # of n:m the whole group, of which the caller masks a part
    return whole.masked(shaped, cheapest).transpose(1, 2).reshape(n, d).T


def _upper_factor(A: Tensor, damping: float) -> Tensor:
    """Return the upper triangular U with U^T U = (A + lambda I)^-1, without a factor of the inverse."""
    reversed_factor = damped_cholesky(A.flip(0, 1), damping)[0].flip(0, 1)
    eye = torch.eye(len(A), dtype=A.dtype, device=A.device)
    found: Tensor = torch.linalg.solve_triangular(reversed_factor, eye, upper=True)
    return found


def _in_blocks(start: Tensor, U: Tensor, chosen: Tensor, pattern: Pattern) -> tuple[Tensor, Tensor]:
    """Pass the inputs in order; each error is made up for by the inputs after it. Return the weight and its mask."""
    W, masked = start.clone(), torch.zeros_like(chosen)
    decide = _decision(chosen, pattern)
    width = pattern.columns if pattern.stay else BLOCK
    for first in range(0, len(W), width):
        rows = slice(first, min(first + width, len(W)))
        own = U[rows, rows]
        masked[rows] = decide(rows, W[rows].square() / own.diagonal()[:, None].square())
        errors = torch.zeros_like(W[rows])
        for i in range(len(errors)):
            errors[i] = W[first + i].masked_fill(~masked[first + i], 0) / own[i, i]
            W[rows] -= own[i, :, None] * errors[i]
        W[rows.stop :] -= U[rows, rows.stop :].T @ errors
    return W.masked_fill(masked, 0), masked


def _decision(chosen: Tensor, pattern: Pattern) -> Callable[[slice, Tensor], Tensor]:
    """Return what says which weights of some rows are masked, given the costs there."""

    def groups(rows: slice, costs: Tensor) -> Tensor:
        least = torch.zeros_like(costs, dtype=torch.bool)
        least.scatter_(0, costs.sort(dim=0, stable=True).indices[: pattern.size], True)
        return least & chosen[rows]

    def cheapest(rows: slice, costs: Tensor) -> Tensor:
        return lowest([costs], int(chosen[rows].sum()))[0].view(costs.shape)

    if pattern.stay:
        return groups
    return cheapest if pattern.size == 1 else lambda rows, _: chosen[rows]
