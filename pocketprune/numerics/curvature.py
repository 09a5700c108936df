"""The curvature of a network's divergence from itself: what a small change of its outputs costs, without labels.

For a classifier with probabilities p, a change dz of the logits costs the Kullback-Leibler divergence
1/2 dz^T F dz to second order, with F = diag(p) - p p^T (Martens 2020, "New insights and perspectives on the natural
gradient method"). F is the covariance of the gradient of the sum over y of s_y sqrt(p_y) log p_y with random signs s.
One backward pass therefore gives an unbiased estimate. So would a label drawn from p, but almost all labels that are
drawn for a confident network say nothing, and few others make the estimate. Outputs of another form count by their
squared change over their variance.
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
        return (_signs(logs, seeds) * logs.detach().exp().sqrt() * logs).sum()
    total = outputs[0].new_zeros(())
    for output in outputs:
        deviation = output.detach().double().std(correction=0).clamp_min(torch.finfo(output.dtype).tiny)
        rows = output.reshape(len(seeds), -1)
        total = total + (rows * _signs(rows, seeds)).sum() / deviation.to(output.dtype)
    return total


def _signs(rows: Tensor, seeds: Sequence[int]) -> Tensor:
    """Return random signs like rows (N, n), those of each row from its own seed."""
    drawn = [torch.randint(0, 2, rows.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn).to(rows) * 2 - 1
