"""Which layers integers hurt most: each quantised alone, compared with the network in floats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pocketprune.common.modes import evaluation_mode
from pocketprune.quantization.insertion import tensor_of
from pocketprune.quantization.prepared import PreparedNet


@dataclass(frozen=True)
class Sensitivity:
    """What quantising one layer alone does.

    Attributes:
        layer: its name.
        bits: of its weight.
        divergence: mean Kullback-Leibler divergence of the outputs from those in floats, in nats.
        weight_error: squared error of the weight as a share of its squares.
        params: numbers in its weight.
    """

    layer: str
    bits: int
    divergence: float
    weight_error: float
    params: int


@torch.no_grad()
def sensitivities(prepared: PreparedNet, batches: Sequence[Tensor]) -> list[Sensitivity]:
    """Return what each layer alone does to the outputs, in forward order.

    Args:
        prepared: the network with its quantisers, calibrated.
        batches: inputs of the network, without labels.
    """
    net, found = prepared.module(), []
    try:
        with evaluation_mode(net):
            prepared.quantise_only([])
            expected = [F.log_softmax(net(batch.clone()), 1) for batch in batches]
            for layer in prepared.layers:
                prepared.quantise_only([layer.name])
                weight, quantizer = tensor_of(prepared.net, layer.weight), prepared.quantizers.weight(layer.key)
                lost = (quantizer(weight) - weight).square().sum() / weight.square().sum().clamp_min(1e-30)
                divergence = mean_divergence(expected, [net(batch.clone()) for batch in batches])
                found.append(Sensitivity(layer.name, quantizer.bits, divergence, float(lost), weight.numel()))
    finally:
        prepared.quantise_only(None)
    return found


def mean_divergence(expected: Sequence[Tensor], logits: Sequence[Tensor]) -> float:
    """Return the mean divergence of predictions from those expected, log-probabilities (b, classes), in nats."""
    total = sum(
        float(F.kl_div(F.log_softmax(mine, 1), right, reduction="sum", log_target=True).double())
        for right, mine in zip(expected, logits, strict=True)
    )
    return total / sum(map(len, expected))
