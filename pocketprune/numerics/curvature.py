"""The curvature of a network's divergence from itself: what a small change of its outputs costs, without labels.

For a classifier with probabilities p, a change dz of the logits costs the Kullback-Leibler divergence
1/2 dz^T F dz to second order, with F = diag(p) - p p^T. F is the covariance of the gradient of log p_y for labels y
drawn from p itself (Martens 2020, "New insights and perspectives on the natural gradient method"), so that one
backward pass gives an unbiased estimate. Outputs of another form count by their squared change over their variance.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def divergence_probe(outputs: Sequence[Tensor], seeds: Sequence[int]) -> Tensor:
    """Return a random number whose gradient g satisfies E[(g^T d)^2] / 2 = the divergence of a small change d.

    The divergence is that of each example. A gradient's product with a change must therefore be squared for each
    example by itself.

    Args:
        outputs: those of the network for a batch, differentiable. A single output (N, classes) counts as logits.
        seeds: of the draws for each example (N,). An example's draw does not depend on the batch that it is in.
    """
    if len(outputs) == 1 and outputs[0].dim() == 2 and outputs[0].shape[1] > 1:
        logs = outputs[0].float().nan_to_num().log_softmax(1)
        drawn = torch.cat([torch.rand(1, generator=_seeded(seed), dtype=torch.float64) for seed in seeds])
        below = logs.detach().double().exp().cumsum(1) < drawn.to(logs.device)[:, None]
        return logs.gather(1, below.sum(1, keepdim=True).clamp_max(logs.shape[1] - 1)).sum()
    total = outputs[0].new_zeros(())
    for output in outputs:
        deviation = output.detach().double().std(correction=0).clamp_min(torch.finfo(output.dtype).tiny)
        rows = output.reshape(len(seeds), -1)
        signs = torch.stack([torch.randint(0, 2, rows.shape[1:], generator=_seeded(seed)) for seed in seeds])
        total = total + (rows * (signs.to(rows) * 2 - 1)).sum() / deviation.to(output.dtype)
    return total


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
