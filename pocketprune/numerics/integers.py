"""Integers in place of real numbers: scales, ranges, codes, and the round trip that training sees.

A weight of b bits has symmetric codes from -(2^(b-1) - 1) to 2^(b-1) - 1 and one scale for each output channel. An
activation has codes from 0 to 2^b - 1, one scale and one zero point, so that the real number 0 is exactly one of its
codes. Both are what the integer kernels of ONNX Runtime and OpenVINO compute with.

In training, rounding passes its gradient on unchanged, and the gradients of scales and ranges are those of Esser et
al., "Learned Step Size Quantization" (arXiv 1902.08153).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

TINY = 1e-8
"""The least scale: of channels whose weights are all zero."""
SHRINKINGS = 24
"""Clipped ranges that are tried, between the whole range and a share of it."""

_OPERATORS = torch.library.Library("pocketprune", "DEF")
_OPERATORS.define("dequantize(Tensor codes, Tensor scale) -> Tensor")
_OPERATORS.define("requantize(Tensor x, Tensor scale, Tensor zero, int top) -> Tensor")


def dequantize(codes: Tensor, scale: Tensor) -> Tensor:
    """Return codes (n, ...) times the scale (n,) of their row."""
    return codes.to(scale.dtype) * scale.view(-1, *[1] * (codes.dim() - 1))


def requantize(x: Tensor, scale: Tensor, zero: Tensor, top: int) -> Tensor:
    """Return `x` rounded to the nearest of the codes 0 to `top` with this scale and zero point, both (1,)."""
    # In place, because memory costs more than arithmetic here: torch's own operator takes six times as long.
    codes = x.div(scale).round_().add_(zero).clamp_(0, top)
    return codes.sub_(zero).mul_(scale).to(x.dtype)


# As operators, they stay whole in an exported graph, where each has a counterpart in ONNX.
_OPERATORS.impl("dequantize", dequantize, "CompositeExplicitAutograd")
_OPERATORS.impl("requantize", requantize, "CompositeExplicitAutograd")
torch.library.register_fake("pocketprune::dequantize", dequantize, lib=_OPERATORS)
torch.library.register_fake("pocketprune::requantize", lambda x, *_: torch.empty_like(x), lib=_OPERATORS)


def largest_code(bits: int) -> int:
    """Return the largest code of a weight."""
    return int(2 ** (bits - 1) - 1)


def top_code(bits: int) -> int:
    """Return the largest code of an activation."""
    return int(2**bits - 1)


def rounded(x: Tensor) -> Tensor:
    """Return the nearest whole numbers. Their gradient is taken for that of `x`."""
    return x.detach().round() + (x - x.detach())


def with_gradient_share(x: Tensor, share: float) -> Tensor:
    """Return `x`, its gradient multiplied by `share`."""
    return x.detach() + (x - x.detach()) * share


def weight_scales(weight: Tensor, bits: int) -> Tensor:
    """Return the scale of each output channel (n,) whose codes lie nearest to the weight (n, ...), in least squares.

    Clipping the largest weights is tried; it is of use below 8 bits.
    """
    rows = weight.detach().flatten(1)
    whole = rows.abs().amax(1)
    best, least = whole, torch.full_like(whole, torch.inf)
    for shrinking in torch.linspace(1, 0.3, SHRINKINGS).tolist():
        limit = whole * shrinking
        error = (_weight_round_trip(rows, _scale(limit, bits), bits) - rows).square().sum(1)
        best, least = torch.where(error < least, limit, best), torch.minimum(error, least)
    return _scale(best, bits)


def _scale(limit: Tensor, bits: int) -> Tensor:
    return (limit / largest_code(bits)).clamp_min(TINY)


def _weight_round_trip(rows: Tensor, scale: Tensor, bits: int) -> Tensor:
    return dequantize(weight_codes(rows, scale, bits), scale)


def weight_codes(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Return the codes of a weight (n, ...) with a scale for each row (n,), as int8."""
    top = largest_code(bits)
    return (
        (weight.detach() / scale.detach().view(-1, *[1] * (weight.dim() - 1))).clamp(-top, top).round().to(torch.int8)
    )


def quantized_weight(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Return a weight (n, ...) after the round trip through its codes, differentiable in weight and scale (n,)."""
    top = largest_code(bits)
    share = (top * weight[0].numel()) ** -0.5
    step = with_gradient_share(scale.clamp_min(TINY), share).view(-1, *[1] * (weight.dim() - 1))
    return rounded((weight / step).clamp(-top, top)) * step


def scale_and_zero(low: Tensor, high: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return the scale and the zero point, whole but real-valued, of a range that 0 lies in; all are of shape (1,)."""
    scale = ((high - low) / top_code(bits)).clamp_min(TINY)
    return scale, rounded(-low / scale).clamp(0, top_code(bits))


def quantized_activation(x: Tensor, low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Return `x` after the round trip through its codes, differentiable in `x` and its range, `low` and `high` (1,)."""
    top = top_code(bits)
    share = (top * x[0].numel()) ** -0.5
    scale, zero = scale_and_zero(with_gradient_share(low, share), with_gradient_share(high, share), bits)
    made: Tensor = _RoundTrip.apply(x.to(scale.dtype), scale, zero, top)  # type: ignore[no-untyped-call]
    return made


class _RoundTrip(torch.autograd.Function):
    """`requantize`, whose gradients see no rounding.

    It is written out because the same, left to autograd, takes three times as many passes over each activation.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, top: int) -> Tensor:
        made = requantize(x, scale, zero, top)
        ctx.save_for_backward(x, made, scale, zero)
        ctx.top = top
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        (gradient,) = gradients
        x, made, scale, zero = ctx.saved_tensors
        inside = (x >= -zero * scale) & (x <= (ctx.top - zero) * scale)
        passed = torch.where(inside, gradient, 0.0)
        # Inside, made = scale * (x / scale + rounding), whose rounding is constant; outside, made = scale * constant.
        by_scale = (gradient * made).addcmul_(passed, x, value=-1).sum().view(1) / scale
        by_zero = (passed.sum() - gradient.sum()).view(1) * scale
        return passed, by_scale, by_zero, None


def clipped_range(samples: Tensor, bits: int) -> tuple[float, float]:
    """Return the range (low, high) whose codes lie nearest to the samples (n,), in least squares; 0 lies in it.

    The whole range is shrunk step by step. At 8 bits that leaves out rare large values, where there are any.
    """
    samples = samples.detach().float()
    low, high = samples.min().clamp_max(0), samples.max().clamp_min(0)
    best, least = (float(low), float(high)), torch.inf
    for shrinking in torch.linspace(1, 0.3, SHRINKINGS).tolist():
        scale, zero = scale_and_zero(low * shrinking, high * shrinking, bits)
        codes = (samples / scale + zero).clamp(0, top_code(bits)).round()
        error = float(((codes - zero) * scale - samples).double().square().sum())
        if error < least:
            best, least = (float(low) * shrinking, float(high) * shrinking), error
    return best


def codebook(weight: Tensor, bits: int, init: str) -> Tensor:
    """Return 2^bits numbers for a weight to be rounded to, rising: (2^bits,).

    Args:
        weight: the weight.
        bits: of a code.
        init: "quantile" (as many weights are nearest to each) or "uniform" (evenly spaced).
    """
    count, flat = 2**bits, weight.detach().flatten()
    if init == "uniform":
        return torch.linspace(0, 1, count, device=flat.device) * (flat.max() - flat.min()) + flat.min()
    places = ((torch.arange(count, device=flat.device) + 0.5) / count * len(flat)).long()
    return flat.sort().values[places]


def codebook_codes(weight: Tensor, numbers: Tensor) -> Tensor:
    """Return for each weight the index of the nearest of the numbers (c,), as uint8."""
    rising, order = numbers.detach().sort()
    borders = (rising[1:] + rising[:-1]) / 2
    return order[torch.bucketize(weight.detach(), borders)].to(torch.uint8)
