"""Ranges and bias corrections from images: what makes a network in integers usable without training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode
from pocketprune.quantization.insertion import Layer, tensor_of
from pocketprune.quantization.prepared import PreparedNet

MOST = 1 << 18
"""Values of one activation that a range is fitted to."""


@torch.no_grad()
def calibrate(prepared: PreparedNet, batches: Iterable[Tensor]) -> None:
    """Fit the range of every activation and the scales of every weight, from images without labels.

    Args:
        prepared: the network with its quantisers.
        batches: inputs of the network, (b, ...).

    Raises:
        UserError: there are no images, all of their values are equal, or an activation is not finite.
    """
    parts = prepared.quantizers.all_activations()
    net, seen = prepared.module(), 0
    lows, highs = torch.inf, -torch.inf
    with evaluation_mode(net), _observing(prepared):
        for batch in batches:
            seen += len(batch)
            if not bool(batch.isfinite().all()):
                raise UserError("images have values that are NaN or infinite", argument="batches")
            lows, highs = min(lows, float(batch.min())), max(highs, float(batch.max()))
            net(batch.clone())
        if not seen:
            raise UserError("there are none; a range is measured on images of the training split", argument="batches")
        if lows == highs:
            raise UserError(f"all values of all {seen} images are {lows:g}; no range follows", argument="batches")
        for name, part in parts.items():
            samples = torch.cat(part.samples or [])
            if not bool(samples.isfinite().all()):
                raise UserError(f"value '{name}' is not finite on the calibration images", argument="net")
            part.fit(samples[:: max(1, len(samples) // MOST)])
    for layer in prepared.layers:
        prepared.quantizers.weight(layer.key).fit(tensor_of(prepared.net, layer.weight))


@contextmanager
def _observing(prepared: PreparedNet) -> Iterator[None]:
    """Let the network compute in floats and keep what its values are."""
    parts = prepared.quantizers.all_activations().values()
    prepared.quantise_only([])
    for part in parts:
        part.samples = []
    try:
        yield
    finally:
        for part in parts:
            part.samples = None
        prepared.quantise_only(None)


@torch.no_grad()
def bias_corrections(prepared: PreparedNet, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return for each layer what rounding its weight takes from its mean output (n,): (W - W_q) times the mean input.

    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv 1906.04721), section
    4.2, with means measured on images. Padding is left out of account.

    Args:
        prepared: the network with its quantisers, calibrated.
        batches: inputs of the network.
    """
    means: dict[str, Tensor] = {}
    if not prepared.readers:
        return {}
    net, count = prepared.module(), 0
    hooks = [
        prepared.quantizers.activation(name).register_forward_hook(_mean_into(means, name))
        for name in set(prepared.readers.values())
    ]
    try:
        with evaluation_mode(net):
            for batch in batches:
                net(batch.clone())
                count += 1
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for layer in prepared.layers:
        mean = means[prepared.readers[layer.name]] / count
        shift = _shift(prepared, layer, mean)
        if shift is not None:
            found[layer.name] = shift
    return found


def _mean_into(means: dict[str, Tensor], name: str) -> Callable[[nn.Module, object, Tensor], None]:
    def add(_module: nn.Module, _inputs: object, made: Tensor) -> None:
        axes = [axis for axis in range(made.dim()) if axis != 1]
        means[name] = means.get(name, torch.zeros((), device=made.device)) + made.mean(axes)

    return add


def _shift(prepared: PreparedNet, layer: Layer, mean: Tensor) -> Tensor | None:
    """What a layer's mean output loses; None where its input is not the value that was measured, but a part of it."""
    weight = tensor_of(prepared.net, layer.weight)
    lost = (weight - prepared.quantizers.weight(layer.key)(weight)).unsqueeze(2).flatten(2).sum(2)
    inputs = lost.shape[1]
    groups = len(mean) // inputs
    if groups * inputs != len(mean) or len(lost) % groups or groups != _groups(layer):
        return None
    shift: Tensor = (lost * mean.view(groups, inputs).repeat_interleave(len(lost) // groups, 0)).sum(1)
    return shift


def _groups(layer: Layer) -> int:
    """The groups of a layer's call."""
    return int(layer.node.args[6]) if len(layer.node.args) > 6 else 1  # type: ignore[arg-type]
