import math

import pytest
import torch

from pocketprune.common.errors import UserError
from pocketprune.training.schedules import (
    POCKETFLOW_RECIPES,
    Constant,
    Cosine,
    Exponential,
    Piecewise,
    set_rates,
    start_rate,
)


def test_start_rate_is_linear_in_the_batch():
    assert start_rate(0.1, 128, 128) == 0.1
    assert start_rate(0.1, 512, 128) == pytest.approx(0.4)
    assert start_rate(0.045, 32, 96) == pytest.approx(0.015)


@pytest.mark.parametrize(("rate", "batch", "norm"), [(0, 1, 1), (0.1, 0, 1), (0.1, 1, 0), (math.nan, 1, 1)])
def test_start_rate_refuses_what_is_not_positive(rate, batch, norm):
    with pytest.raises(UserError, match="must be positive"):
        start_rate(rate, batch, norm)


def test_pocketflow_cifar_rates_by_epoch():
    schedule, per_epoch = POCKETFLOW_RECIPES["cifar"].schedule, 390
    total = 250 * per_epoch
    for epoch, factor in [(0, 1), (99, 1), (100, 0.1), (149, 0.1), (150, 0.01), (200, 0.001), (249, 0.001)]:
        assert schedule(epoch * per_epoch, total) == pytest.approx(factor)
    assert schedule(100 * per_epoch - 1, total) == 1


def test_piecewise_keeps_its_shape_when_the_training_is_scaled():
    schedule = Piecewise((0.4, 0.6, 0.8))
    assert [schedule(step, 10) for step in range(10)] == pytest.approx([1] * 4 + [0.1] * 2 + [0.01] * 2 + [0.001] * 2)


def test_mobilenet_v2_rate_falls_by_98_percent_an_epoch_in_stairs_of_two_and_a_half():
    schedule, total = POCKETFLOW_RECIPES["mobilenet_v2"].schedule, 412 * 100
    for epoch in (0, 2.4, 2.6, 10.1, 400.0):
        assert schedule(round(epoch * 100), total) == pytest.approx((0.98**2.5) ** math.floor(epoch / 2.5))


def test_cosine_by_formula():
    schedule = Cosine(warmup=0.1, final=0.05)
    assert [schedule(step, 100) for step in range(10)] == pytest.approx([(step + 1) / 10 for step in range(10)])
    for step in (10, 37, 55, 99):
        expected = 0.05 + 0.95 * (1 + math.cos(math.pi * (step - 10) / 90)) / 2
        assert schedule(step, 100) == pytest.approx(expected)
    assert schedule(100, 100) == pytest.approx(0.05)
    assert Cosine()(0, 1) == 1.0


@pytest.mark.parametrize(
    "build",
    [
        lambda: Piecewise((0.6, 0.4)),
        lambda: Piecewise((0.5, 0.5)),
        lambda: Piecewise((0.0,)),
        lambda: Piecewise((1.0,)),
        lambda: Piecewise((0.5,), decay=0),
        lambda: Cosine(warmup=1.0),
        lambda: Cosine(final=-1),
        lambda: Exponential(0, 2),
        lambda: Exponential(0.5, 0),
    ],
)
def test_values_out_of_range_are_refused(build):
    with pytest.raises(UserError):
        build()


def test_rates_are_the_start_rate_times_the_factor_in_every_group():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    schedule, rates = Piecewise((0.5,)), []
    for step in range(4):
        if step == 1:
            optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.3})
        set_rates(optimizer, schedule(step, 4))
        rates += [group["lr"] for group in optimizer.param_groups]
        optimizer.step()
    assert rates == pytest.approx([0.4, 0.4, 0.3, 0.04, 0.03, 0.04, 0.03])
    assert Constant()(3, 4) == 1.0
