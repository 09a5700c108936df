"""Single weights of a layer removed output by output, exactly: optimal brain surgeon on each row of a weight.

Each output has its own inverse P = (A + lambda I)^-1, from which every removal takes a rank-one part (Frantar and
Alistarh 2022, "Optimal Brain Compression"). The parts are kept, and P itself is shared by all outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pocketprune.numerics.weight_patterns import Pattern, lowest

AT_ONCE = 32
"""One weight in so many of those left is removed at a time."""

_CHUNK = 1 << 25  # matrix entries held at once


def output_by_output(P: Tensor, start: Tensor, chosen: Tensor, pattern: Pattern) -> Tensor:
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
    taken, used = w.new_empty(k, d, d), 0
    while bool(can_go.any()):
        costs, places = torch.where(can_go, w.square() / diagonal, torch.inf).view(k, -1, m).min(2)
        at_once = max(1, int(can_go.sum(1).max()) // max(AT_ONCE, m))
        cost, groups = costs.topk(min(at_once, d // m), dim=1, largest=False)
        i = groups * m + places.gather(1, groups)
        live = cost.isfinite()  # outputs that have done with their groups wait for the others
        u = _directions(P, taken[:, :used], i, live)
        w -= (u.transpose(1, 2) @ _amounts(u, w, i, live))[..., 0]
        diagonal -= u.square().sum(1)
        taken[:, used : used + i.shape[1]], used = u, used + i.shape[1]
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
    eye = torch.eye(i.shape[1]).to(block)
    block = torch.where(both, block, eye)
    block = block + torch.diag_embed(1e-10 * block.diagonal(dim1=1, dim2=2))  # room for rounding
    # A triangular solve of all columns takes 20 times as long as this product.
    inverse = torch.linalg.solve_triangular(torch.linalg.cholesky_ex(block).L, eye.expand_as(block), upper=False)
    found: Tensor = inverse @ (rows * live[..., None])
    return found


def _amounts(u: Tensor, w: Tensor, i: Tensor, live: Tensor) -> Tensor:
    """Return how much of each direction (outputs, s, 1) brings the weights i to zero."""
    factor = u.gather(2, i[:, None].expand(-1, i.shape[1], -1)).transpose(1, 2)  # u at i is the factor's transpose
    factor = factor.tril() + torch.diag_embed((~live).to(u))
    found: Tensor = torch.linalg.solve_triangular(factor, (w.gather(1, i) * live)[..., None], upper=False)
    return found
