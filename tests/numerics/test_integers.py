"""Codes, scales and ranges, against rounding by hand and the definition of least squares."""

from collections.abc import Callable

import pytest
import torch

from pocketprune.numerics.integers import (
    clipped_range,
    dequantize,
    quantized_activation,
    quantized_weight,
    requantize,
    rounded,
    scale_and_zero,
    top_code,
    weight_codes,
    weight_scales,
    with_gradient_share,
)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_weight_comes_back_within_half_a_step_of_each_channel(bits: int) -> None:
    weight = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1e-3, 1, 5, 0, 9]
    ).view(-1, 1, 1, 1)
    scale = weight.flatten(1).abs().amax(1).clamp_min(1e-5) / (2 ** (bits - 1) - 1)
    codes = weight_codes(weight, scale, bits)
    assert codes.dtype is torch.int8
    assert int(codes.abs().max()) <= 2 ** (bits - 1) - 1
    back = dequantize(codes, scale)
    assert bool(((back - weight).abs() <= 0.5001 * scale.view(-1, 1, 1, 1)).all())
    assert torch.equal(quantized_weight(weight, scale, bits), back)
    assert bool((back[3] == 0).all())


def test_the_scales_chosen_are_no_worse_than_the_largest_weights() -> None:
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(1)) ** 3
    for bits in (2, 3, 8):
        plain = weight.abs().amax(1) / (2 ** (bits - 1) - 1)

        def error(scale: torch.Tensor, bits: int = bits) -> torch.Tensor:
            return (dequantize(weight_codes(weight, scale, bits), scale) - weight).square().sum(1)

        chosen = error(weight_scales(weight, bits))
        assert bool((chosen <= error(plain) * (1 + 1e-5)).all())
        if bits < 4:
            assert float(chosen.sum()) < 0.9 * float(error(plain).sum())


@pytest.mark.parametrize("bits", [3, 8])
def test_zero_is_a_code_and_training_sees_what_the_kernel_computes(bits: int) -> None:
    x = torch.randn(4, 50, generator=torch.Generator().manual_seed(2))
    low, high = torch.tensor([-1.3]), torch.tensor([2.1])
    scale, zero = scale_and_zero(low, high, bits)
    assert float(zero) == round(1.3 / 3.4 * top_code(bits))
    kernel = requantize(x, scale, zero.to(torch.int32), top_code(bits))
    assert torch.allclose(quantized_activation(x, low, high, bits), kernel, atol=1e-6)
    assert len(kernel.unique()) <= 2**bits
    assert float(requantize(torch.zeros(1), scale, zero.to(torch.int32), top_code(bits))) == 0


def test_a_range_holds_zero_and_leaves_rare_large_values_out() -> None:
    samples = torch.rand(20000, generator=torch.Generator().manual_seed(3)) + 1
    low, high = clipped_range(samples, 8)
    assert (low, high) == (0.0, float(samples.max()))
    samples[0] = 3.5
    assert 1.9 < clipped_range(samples, 4)[1] < 3.5


def test_gradients_pass_rounding_and_reach_scales_and_ranges() -> None:
    weight = torch.tensor([[0.3, -0.9, 5.0]], requires_grad=True)
    scale = torch.tensor([0.5], requires_grad=True)
    quantized_weight(weight, scale, 3).sum().backward()
    assert weight.grad is not None
    assert scale.grad is not None
    assert weight.grad.tolist() == [[1.0, 1.0, 0.0]]  # 5.0 is beyond the largest code, 3
    lsq = (round(0.6) - 0.6) + (round(-1.8) + 1.8) + 3
    assert float(scale.grad) == pytest.approx(lsq / (3 * 3) ** 0.5)
    x = torch.tensor([[-3.0, 0.2, 4.0]], requires_grad=True)
    low, high = (torch.tensor([end], requires_grad=True) for end in (-1.0, 1.0))
    quantized_activation(x, low, high, 8).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, 1.0, 0.0]]
    assert low.grad is not None
    assert high.grad is not None
    assert float(low.grad) > 0
    assert float(high.grad) > 0


def test_the_gradients_of_a_round_trip_are_those_that_autograd_finds() -> None:
    x, weights = torch.randn(2, 6, 40, generator=torch.Generator().manual_seed(4)).unbind()

    def plain(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        share = (15 * x[0].numel()) ** -0.5
        scale, zero = scale_and_zero(with_gradient_share(low, share), with_gradient_share(high, share), 4)
        return (rounded((x / scale + zero).clamp(0, 15)) - zero) * scale

    def gradients(made: Callable[..., torch.Tensor]) -> tuple[torch.Tensor, ...]:
        given = [x.clone(), torch.tensor([-0.7]), torch.tensor([1.1])]
        outputs = made(*(value.requires_grad_() for value in given))
        return torch.autograd.grad((outputs * weights).sum(), given)

    found = gradients(lambda *given: quantized_activation(*given, 4))
    for mine, expected in zip(found, gradients(plain), strict=True):
        assert torch.allclose(mine, expected, rtol=1e-4, atol=1e-5)
