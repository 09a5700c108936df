"""Single weights of a layer removed in closed form, from its moments: optimal brain surgeon on each output.

With P = (A + lambda I)^-1 and the refitted weight w = P (b + lambda w0) of one output, removing weight i costs
w_i^2 / P_ii, and the others become w - P_:i w_i / P_ii (Hassibi and Stork 1993). The exact way does so for each
output, weight by weight or few by few (Frantar and Alistarh 2022, "Optimal Brain Compression"). For wide layers all
outputs pass the inputs in one order and share one factor of P, in blocks of inputs (Frantar and Alistarh 2023,
"SparseGPT").

A weight is a matrix (d, n) as in `Moments`: d patch values, channel-major, times n outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pocketprune.numerics.moments import Moments
from pocketprune.numerics.reconstruction import damped_cholesky, damping_of
from pocketprune.numerics.weight_patterns import Pattern, lowest

BLOCK = 32
"""Inputs among which the blocked way chooses at once; SparseGPT's 128 lost up to a quarter more on layers of 24 to 288
inputs."""

EXACT_LIMIT = 5e10
"""Multiply-adds up to which outputs are treated one by one, and the weights that stay refitted exactly: a minute."""

AT_ONCE = 32
"""The exact way removes one weight in so many of those left at a time."""

_CHUNK = 1 << 25  # matrix entries held at once


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
        masked = _output_by_output(P, start, chosen, pattern)
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
    keep = (~masked).to(A).T  # (n, d)
    pull = ((B + damping * weight).T * keep)[..., None]
    found = []
    step = max(1, _CHUNK // A.numel())
    for here, right in zip(keep.split(step), pull.split(step), strict=True):
        inside = A * here[:, :, None] * here[:, None, :]
        inside.diagonal(dim1=1, dim2=2).add_(damping * here + (1 - here))
        found.append(torch.cholesky_solve(right, _factors(inside, damping))[..., 0] * here)
    return torch.cat(found).T


def _factors(matrices: Tensor, damping: float) -> Tensor:
    """Return the Cholesky factors of matrices (k, d, d), which get more damping, in place, until all have one."""
    while True:
        factors: Tensor
        factors, info = torch.linalg.cholesky_ex(matrices)
        if not bool(info.any()):
            return factors
        damping *= 10
        matrices.diagonal(dim1=1, dim2=2).add_(damping)


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


def _output_by_output(P: Tensor, start: Tensor, chosen: Tensor, pattern: Pattern) -> Tensor:
    """Return the mask (d, n) of the greedy elimination in each output; unstructured counts are divided by cost."""
    d, n = start.shape
    if not bool(chosen.any()):
        return torch.zeros_like(chosen)
    count = 0 if pattern.stay else int(chosen.sum())
    step = max(1, _CHUNK // P.numel())
    parts = zip(start.T.split(step), chosen.T.split(step), strict=True)
    spent = torch.cat([_eliminate_rows(P, w.clone(), c, pattern, count if step >= n else d * n) for w, c in parts])
    if pattern.stay:
        return spent.isfinite().T
    return lowest([spent], count)[0].view(n, d).T


def _eliminate_rows(P: Tensor, w: Tensor, chosen: Tensor, pattern: Pattern, count: int) -> Tensor:
    """Return the largest cost up to each weight's removal, (outputs, d); infinite for those that stay.

    P itself stays: each removal takes u^T u from it, and the vectors u of each output are kept instead. Of many weights
    that are left, a few go at once, at most one of each group of n:m.

    Args:
        P: (d, d).
        w: (outputs, d); overwritten.
        chosen: boolean (outputs, d), the groups of n:m that lose weights; without n:m all weights can go.
        pattern: n:m or unstructured.
        count: the elimination ends when the so many cheapest removals of all outputs are known.
    """
    (k, d), m = w.shape, pattern.columns
    can_go = chosen.clone() if pattern.stay else torch.ones_like(chosen)
    left = torch.full((k, d // m), m, device=w.device)
    spent, highest, diagonal = torch.full_like(w, torch.inf), w.new_zeros(k), P.diagonal().repeat(k, 1)
    taken = w.new_zeros(k, 0, d)
    while bool(can_go.any()):
        costs, places = torch.where(can_go, w.square() / diagonal, torch.inf).view(k, -1, m).min(2)
        at_once = max(1, int(can_go.sum(1).max()) // AT_ONCE)
        cost, groups = costs.topk(min(at_once, d // m), dim=1, largest=False)
        i = groups * m + places.gather(1, groups)
        live = cost.isfinite()  # outputs that have done with their groups wait for the others
        u = _directions(P, taken, i, live)
        w -= (u.transpose(1, 2) @ _amounts(u, w, i, live))[..., 0]
        diagonal -= u.square().sum(1)
        taken = torch.cat([taken, u], 1)
        above = torch.nextafter(highest, highest.new_tensor(torch.inf))  # what goes later is never taken before
        reached = torch.where(live, cost, 0.0).cummax(1).values.maximum(above[:, None])
        highest = reached.amax(1)
        spent.scatter_(1, i, torch.where(live, reached, spent.gather(1, i)))
        can_go.scatter_(1, i, False)
        if pattern.stay:
            left.scatter_add_(1, groups, -live.long())
            can_go &= (left > pattern.stay).repeat_interleave(m, 1)
        elif int(spent.isfinite().sum()) >= count and highest.min() >= spent.flatten().kthvalue(count).values:
            break
    return spent


def _directions(P: Tensor, taken: Tensor, i: Tensor, live: Tensor) -> Tensor:
    """Return u (outputs, s, d): removing the weights i (outputs, s) takes u^T u from P, zero for what is not live."""
    rows = P[i] - taken.gather(2, i[:, None].expand(-1, taken.shape[1], -1)).transpose(1, 2) @ taken
    block = rows.gather(2, i[:, None].expand(-1, i.shape[1], -1))
    both = live[:, :, None] & live[:, None]
    block = torch.where(both, block, torch.eye(i.shape[1]).to(block))
    block = block + torch.diag_embed(1e-10 * block.diagonal(dim1=1, dim2=2))  # room for rounding
    factor = torch.linalg.cholesky_ex(block).L
    found: Tensor = torch.linalg.solve_triangular(factor, rows * live[..., None], upper=False)
    return found


def _amounts(u: Tensor, w: Tensor, i: Tensor, live: Tensor) -> Tensor:
    """Return how much of each direction (outputs, s, 1) brings the weights i to zero."""
    factor = u.gather(2, i[:, None].expand(-1, i.shape[1], -1)).transpose(1, 2)  # u at i is the factor's transpose
    factor = factor.tril() + torch.diag_embed((~live).to(u))
    found: Tensor = torch.linalg.solve_triangular(factor, (w.gather(1, i) * live)[..., None], upper=False)
    return found
