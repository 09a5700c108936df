"""The step of a saved network that is in integers: which layers and values, at how many bits, never code."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.common.steps import INTEGERS
from pocketprune.deploy.steps import STEPS, StepKind
from pocketprune.quantization.conversion import convert
from pocketprune.quantization.options import BITS, FLOAT_BITS, Quantization, QuantizationOptions
from pocketprune.quantization.prepared import PreparedNet, example_of


def _read(plain: Any, source: str) -> Quantization:
    """Return the quantisation that a file's plain values stand for. Raises UserError for what is malformed."""
    fields = {field.name for field in dataclasses.fields(Quantization)}
    sound = (
        isinstance(plain, dict)
        and set(plain) == fields
        and _are_bits(plain["layers"])
        and _are_bits(plain["activations"])
        and isinstance(plain["example"], (tuple, list))
        and len(plain["example"]) == 2
        and isinstance(plain["codebook"], bool)
    )
    if not sound:
        raise UserError(f"{source}: tampered with: the step of its quantisation is malformed")
    return Quantization(**plain)


def _are_bits(values: Any) -> bool:
    return isinstance(values, Mapping) and all(isinstance(name, str) and bits in BITS for name, bits in values.items())


def _apply(net: nn.Module, data: Quantization, source: str) -> nn.Module:
    """Return a copy of a network in floats as one in integers, its numbers any."""
    try:
        example = example_of(data.example, device_of(net))
        options = QuantizationOptions(
            bits=data.layers,
            activation_bits=next(iter(data.activations.values()), FLOAT_BITS),
            only_bits=True,
            codebook=data.codebook,
        )
        prepared = PreparedNet(net, example, options)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error
    except Exception as error:  # an example that fits no network can fail anywhere
        raise UserError(
            f"{source}: its quantisation cannot be applied to dense_net ({type(error).__name__}: "
            f"{' '.join(str(error).split())})"[:400]
        ) from error
    if prepared.step.layers != data.layers or prepared.step.activations != data.activations:
        raise UserError(
            f"{source}: quantised where this PocketPrune or PyTorch would not; quantise the network again with this one"
        )
    return convert(prepared)


def register() -> None:
    """Let artifacts know this kind of step. `deploy`, which reads them, lies below this folder and cannot import it."""
    STEPS[INTEGERS] = StepKind(1, write=dataclasses.asdict, read=_read, apply=_apply)
