"""Bits of each layer under a budget, as a search sees them: variables, cost, score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pocketprune.common.modes import evaluation_mode
from pocketprune.quantization.insertion import Layer, tensor_of
from pocketprune.quantization.prepared import PreparedNet
from pocketprune.quantization.sensitivity import mean_divergence
from pocketprune.search.interface import Score, Variable

LEAST, FULL = 2, 8


class BitsEnvironment:
    """The bits of each layer's weight, from 2 to 8; their cost is the bits of all weights.

    Args:
        prepared: the network with its quantisers, calibrated.
        held_out: images and labels (b,) that score it. The divergence is that from the network in floats.
    """

    def __init__(self, prepared: PreparedNet, held_out: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._prepared, self._held_out = prepared, held_out
        self._weights = [tensor_of(prepared.net, layer.weight).detach() for layer in prepared.layers]
        prepared.quantise_only([])
        self._expected = [F.log_softmax(logits, 1) for logits in self._logits()]
        prepared.quantise_only(None)
        self.variables: Sequence[Variable] = [
            Variable(layer.name, FULL, tuple(range(LEAST, FULL + 1)), features=self._features(number, layer))
            for number, layer in enumerate(prepared.layers)
        ]

    def _features(self, number: int, layer: Layer) -> tuple[float, ...]:
        weight = self._weights[number]
        rows, size = len(weight), weight[0].numel()
        return (number / len(self._weights), math.log(rows), math.log(size), math.log(weight.numel()))

    def cost(self, values: Sequence[int]) -> float:
        """Return the bits of all weights."""
        return float(sum(w.numel() * bits for w, bits in zip(self._weights, values, strict=True)))

    def error_curve(self, index: int) -> np.ndarray:
        """Return the squared error of a weight as a share of its squares, at each count of bits from 0 to 8."""
        curve, weight = np.ones(FULL + 1), self._weights[index]
        for bits in range(LEAST, FULL + 1):
            self._set(index, bits)
            with torch.no_grad():
                back = self._prepared.quantizers.weight(self._prepared.layers[index].key)(weight)
            curve[bits] = float((back - weight).square().sum() / weight.square().sum().clamp_min(1e-30))
        result: np.ndarray = np.minimum.accumulate(curve)
        return result

    def score(self, values: Sequence[int]) -> Score:
        """Return how well the network does on the held-out images with these bits, scales fitted to them."""
        for index, bits in enumerate(values):
            self._set(index, bits)
        logits = self._logits()
        labels = [labels for _, labels in self._held_out]
        images = sum(map(len, labels))
        right = sum(int((mine.argmax(1) == own).sum()) for mine, own in zip(logits, labels, strict=True))
        loss = sum(float(F.cross_entropy(mine, own, reduction="sum")) for mine, own in zip(logits, labels, strict=True))
        return Score(right / images, loss / images, mean_divergence(self._expected, logits))

    @torch.no_grad()
    def _logits(self) -> list[Tensor]:
        net = self._prepared.module()
        with evaluation_mode(net):
            return [net(images.clone()) for images, _ in self._held_out]

    def _set(self, index: int, bits: int) -> None:
        """Give a layer's weight codes of so many bits, and the scales that suit them."""
        quantizer = self._prepared.quantizers.weight(self._prepared.layers[index].key)
        if quantizer.bits != bits:
            quantizer.set_bits(bits, self._weights[index])
