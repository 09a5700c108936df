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


def divergence_probe(outputs: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """Return a random number whose gradient g satisfies E[(g^T d)^2] / 2 = the divergence of a small change d.

    The divergence is that of each example. A gradient's product with a change must therefore be squared for each
    example by itself.

    Args:
        outputs: those of the network for a batch, differentiable. A single output (N, classes) counts as logits.
        generator: source of the random draws, on the CPU.
    """
    if len(outputs) == 1 and outputs[0].dim() == 2 and outputs[0].shape[1] > 1:
        logs = outputs[0].float().nan_to_num().log_softmax(1)
        drawn = torch.multinomial(logs.detach().double().exp().cpu(), 1, generator=generator).to(logs.device)
        return logs.gather(1, drawn).sum()
    total = outputs[0].new_zeros(())
    for output in outputs:
        deviation = output.detach().double().std(correction=0).clamp_min(torch.finfo(output.dtype).tiny)
        signs = torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1
        total = total + (output * signs).sum() / deviation.to(output.dtype)
    return total
