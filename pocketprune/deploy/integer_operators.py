"""The project's operators on integer codes, for other runtimes: as ONNX's, and as PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pocketprune.numerics.integers import dequantize, top_code

UINT8 = 2  # ONNX's number of the type


def onnx_operators() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return operator -> what writes it as QuantizeLinear and DequantizeLinear, which runtimes fuse into kernels."""
    import onnxscript

    op: Any = onnxscript.opset18

    def weight(codes: Any, scale: Any) -> Any:
        return op.DequantizeLinear(codes, scale, axis=0)

    def activation(x: Any, scale: Any, zero: Any, top: int) -> Any:
        scale, zero = op.Squeeze(scale), op.Squeeze(zero)
        if top < top_code(8):  # its type has codes beyond the largest one
            first = op.Cast(zero, to=1)
            ends = op.Mul(op.Neg(first), scale), op.Mul(op.Sub(op.Constant(value_float=float(top)), first), scale)
            x = op.Clip(x, *ends)
        codes = op.Cast(zero, to=UINT8)
        return op.DequantizeLinear(op.QuantizeLinear(x, scale, codes), scale, codes)

    operators = torch.ops.pocketprune
    return {operators.dequantize.default: weight, operators.requantize.default: activation}


def plain_operators() -> dict[Any, Callable[..., Any]]:
    """Return operator -> the same of PyTorch's own."""

    def activation(x: Tensor, scale: Tensor, zero: Tensor, top: int) -> Tensor:
        codes = (torch.round(x / scale) + zero).clamp(0, top)
        return (codes - zero) * scale

    operators = torch.ops.pocketprune
    return {operators.dequantize.default: dequantize, operators.requantize.default: activation}
