"""The error that a pruning reports is the error that its network makes, whatever layers share and read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import pocketprune
from pocketprune import PruningOptions
from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.measuring import output_error
from pocketprune.channel_pruning.plan import Plan
from pocketprune.channel_pruning.runner import PruningRun
from pocketprune.structure.channel_groups import analyse
from tests.channel_pruning.door import prune
from tests.structure.small import images, resnet


class Odd(nn.Module):
    """Three convolutions and a classifier, with what a test puts between them."""

    def __init__(self, between: Callable[[nn.Module, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.between = between or (lambda net, y: y)
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.c, self.head = nn.Conv2d(16, 16, 3), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(self, self.a(x).relu())
        x = self.c(self.b(x).relu()).relu()
        return self.head(x.mean((2, 3)))


class SharedNorm(nn.Module):
    """One batch norm after two convolutions."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1, bias=bias), nn.Conv2d(16, 16, 3, padding=1, bias=bias)
        self.norm, self.c, self.head = nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3), nn.Linear(16, 10)
        self.norm.running_mean.uniform_(-0.5, 0.5)
        self.norm.running_var.uniform_(0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.b(self.norm(self.a(x)).relu())).relu()
        return self.head(self.c(x).relu().mean((2, 3)))


def shared_bias() -> nn.Module:
    net = Odd()
    net.b.bias = net.a.bias
    return net


def shared_memory() -> nn.Module:
    """Two parameters in the same memory: what is written to one, the other has."""
    net = Odd()
    net.b.bias = nn.Parameter(net.a.bias.data)
    return net


def shared_weight_elsewhere() -> nn.Module:
    """A weight that a layer multiplies by, and that is an offset as well."""
    return Odd(lambda net, y: y + net.c.weight.mean((1, 2, 3)).view(1, -1, 1, 1))


def shared_bias_before_norm() -> nn.Module:
    net = SharedNorm(bias=True)
    net.b.bias = net.a.bias
    return net


class Aside(Odd):
    """The norm over channels is read by a layer that comes before the one whose input channels go."""

    def __init__(self) -> None:
        super().__init__()
        self.aside, self.early = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()
        z = self.early(self.aside(y.norm(dim=1, keepdim=True)).relu())
        x = self.c((self.b(y) + z).relu()).relu()
        return self.head(x.mean((2, 3)))


class Map(Odd):
    """Its output is a map whose mean differs from place to place."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(16, 4, 3, padding=1)
        self.place = nn.Parameter(torch.linspace(0, 3, 16).view(1, 1, 1, 16), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.b(self.a(x).relu()) + self.place).relu())


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": Odd,
    "a bias of two layers": shared_bias,
    "biases in one memory": shared_memory,
    "a weight that is read elsewhere": shared_weight_elsewhere,
    "a norm after two layers": lambda: SharedNorm(bias=False),
    "a norm after two layers with biases": lambda: SharedNorm(bias=True),
    "a bias of two layers before one norm": shared_bias_before_norm,
    "normalised over channels": lambda: Odd(lambda net, y: functional.normalize(y, dim=1)),
    "divided by a norm over channels": lambda: Odd(lambda net, y: y / (y.norm(dim=1, keepdim=True) + 0.1)),
    "a norm over channels, read first": Aside,
    "gated by a sum over channels": lambda: Odd(lambda net, y: y * torch.sigmoid(y.sum(1, keepdim=True))),
    "less its mean over channels": lambda: Odd(lambda net, y: y - y.mean(1, keepdim=True)),
    "times a softmax over channels": lambda: Odd(lambda net, y: y * y.softmax(1) * 16),
    "a map at the end": Map,
    "in place": lambda: Odd(lambda net, y: y.mul_(0.5).add_(0.1)),
}


@pytest.mark.parametrize("shared_input", ["sample", "couple"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_reported_error_is_the_measured_one(name: str, shared_input: str) -> None:
    net, calibration = NETWORKS[name]().eval(), Calibration(images(60, 20))
    options = PruningOptions(layers="all", shared_input=shared_input, points_per_layer=0)
    run = PruningRun(Plan.for_target(analyse(net, images()[0][:2]), 0.5, options), calibration)
    with torch.no_grad():
        pruned = run.prune().net
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in net.parameters())
    assert output_error(pruned, net, calibration.held_out()) == pytest.approx(run.state.promised, rel=1e-3, abs=1e-6)


def test_the_output_error_is_the_squared_difference_over_the_variance() -> None:
    net, other, batches = resnet(1), resnet(1, "projection"), images(40, 20)
    with torch.no_grad():
        expected = torch.cat([net(batch) for batch in batches]).double()
        found = torch.cat([other(batch) for batch in batches]).double()
    error = (found - expected).square().sum() / (expected - expected.mean(0)).square().sum()
    assert output_error(other, net, batches) == pytest.approx(float(error), rel=1e-6)


def test_a_network_that_breaks_its_promise_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> float:
        return 12.0

    monkeypatch.setattr("pocketprune.channel_pruning.measuring.output_error", broken)
    with pytest.warns(pocketprune.PruningWarning, match="although its last layer is off by"):
        result = prune(Odd().eval(), images(), 0.5)
    assert len(result.warnings) == 1
    assert "\n" not in result.warnings[0]
