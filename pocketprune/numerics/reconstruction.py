"""Refitting a consumer's weight on its kept channels so that its output stays what it was.

He, Zhang, Sun (2017, eq. 3), from moments:

    W_S = (A_SS + lambda I)^-1 (B_S + lambda W0_S),   b = mean_y - W_S^T mean_x_S,   lambda = ridge * mean
    diag A_SS

The ridge is anchored: it pulls towards the original weight W0, not towards zero. With every channel kept and
unpruned inputs the original weight comes back.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pocketprune.numerics.moments import Moments


def expand_blocks(kept: Tensor, block: int) -> Tensor:
    """Return the rows (|S| * block,) of the kept channels (|S|,) in a channel-major patch."""
    return (kept[:, None] * block + torch.arange(block, device=kept.device)).flatten()


def refit(
    moments: Moments, weight: Tensor, kept: Tensor, block: int, ridge: float = 1e-6, damping: float | None = None
) -> tuple[Tensor, Tensor]:
    """Return the least-squares weight and bias of the kept channels.

    Where A_SS + lambda I is not positive definite in floating point, lambda grows tenfold until it is.

    Args:
        moments: of patches (d) and targets (n).
        weight: the original (d, n).
        kept: channels that stay, a LongTensor (|S|,).
        block: patch values of a channel; d = c * block.
        ridge: rho, relative to the mean diagonal of A_SS.
        damping: lambda itself, in place of the ridge.

    Returns:
        W_S (|S| * block, n) and the bias (n,), float64.

    Raises:
        ValueError: the moments hold NaN or infinite values.
    """
    rows = expand_blocks(kept.to(moments.A.device), block)
    anchor = weight.detach().to(moments.A)[rows]
    A = moments.A[rows[:, None], rows]
    lam = damping_of(A, ridge) if damping is None else damping
    factor, lam = damped_cholesky(A, lam)
    W = torch.cholesky_solve(moments.B[rows] + lam * anchor, factor)
    return W, moments.mean_y - W.T @ moments.mean_x[rows]


def relative_error(
    moments: Moments,
    W: Tensor,
    kept: Tensor,
    block: int,
    output_weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> float:
    """Return the squared error of the kept channels' output relative to the targets' variance: 0 is exact.

    E = sigma - 2 <W, B_S> + <W, A_SS W>.

    Args:
        moments: of patches (d) and targets (n).
        W: the weight (|S| * block, n) of the kept channels.
        kept: channels that stay, a LongTensor (|S|,).
        block: patch values of a channel; d = c * block.
        output_weight: (n,) how much the error of each output counts; None for all alike.
        bias: (n,), for held-out moments: the miss of the mean is then counted too. None means the bias that is best
            on these moments.

    Returns:
        E / sigma. Targets without variance give 0.0 when met exactly, else inf.
    """
    rows = expand_blocks(kept.to(moments.A.device), block)
    W = W.detach().to(moments.A)
    explained = 2 * moments.B[rows] - moments.A[rows[:, None], rows] @ W
    error = moments.sigma - (W * explained).sum(0)
    if bias is not None:
        miss = moments.mean_y - W.T @ moments.mean_x[rows] - bias.to(moments.A)
        error = error + moments.count * miss.square()
    sigma = moments.sigma
    if output_weight is not None:
        error, sigma = error * output_weight.to(error), sigma * output_weight.to(sigma)
    return error_ratio(float(error.sum()), float(sigma.sum()))


def error_ratio(error: float, sigma: float) -> float:
    """Return error / sigma, at least 0; without variance 0.0 for no error, else inf."""
    if sigma > 0:
        return max(error, 0.0) / sigma
    return 0.0 if error <= 0 else float("inf")


def damping_of(A: Tensor, ridge: float) -> float:
    """Return lambda, the ridge times the mean diagonal of A; it is positive even where A is zero."""
    mean = float(A.diagonal().mean()) if A.shape[0] else 0.0
    return max(ridge * mean, math.sqrt(torch.finfo(torch.float64).tiny))


def damped_cholesky(A: Tensor, lam: float) -> tuple[Tensor, float]:
    """Return the lower Cholesky factor of A + lam I and the lam used: tenfold larger until the factor exists.

    Raises:
        ValueError: A holds NaN or infinite values.
    """
    if not bool(torch.isfinite(A).all()):
        raise ValueError("moments hold NaN or infinite values: the network's activations overflow")
    while True:
        damped = A.clone()
        damped.diagonal().add_(lam)
        factor, info = torch.linalg.cholesky_ex(damped)
        if int(info) == 0:
            return factor, lam
        lam = max(lam * 10, 1e-16 * float(A.diagonal().abs().mean()))
