"""Weights made by statistics over channels: such channels are never exact, say so, and stop no others from going."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from pocketprune.structure.channel_groups import analyse
from pocketprune.structure.layers import layers_of
from pocketprune.thinning.removal import remove_channels
from tests.structure.oracle import analysed, difference, outputs, randomise
from tests.thinning.reading import without_reading


class Reparametrised(nn.Conv2d):
    """A 1x1 or 3x3 convolution with a weight computed from its own."""

    def __init__(self, weigh: Callable[[Tensor], Tensor]) -> None:
        super().__init__(8, 8, 3, padding=1)
        self.weigh = weigh

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weigh(self.weight), self.bias, padding=1)


def scaled_standard(w: Tensor) -> Tensor:
    """As timm's ScaledStdConv2d: a batch norm in training mode over each row."""
    gain = torch.full((8,), 0.3, dtype=w.dtype)
    return F.batch_norm(w.reshape(1, 8, -1), None, None, gain, training=True, momentum=0.0, eps=1e-6).reshape_as(w)


def standard(w: Tensor) -> Tensor:
    """As BiT's StdConv2d."""
    var, mean = torch.var_mean(w, dim=[1, 2, 3], keepdim=True, unbiased=False)
    return (w - mean) / (var + 1e-6).sqrt()


def ternary(w: Tensor) -> Tensor:
    return w * (w.abs() > 0.7 * w.abs().mean())


def rounded(w: Tensor) -> Tensor:
    step = w.abs().max() / 127
    return (w / step).round() * step


def lipschitz(w: Tensor) -> Tensor:
    rows = w.flatten(1)
    return w / (rows @ rows.t()).abs().sum(1).sqrt()[:, None, None, None]


def row_lengths(w: Tensor) -> Tensor:
    rows = w.flatten(1)
    return w / torch.einsum("oi,oi->o", rows, rows).sqrt()[:, None, None, None]


class Net(nn.Module):
    """Four layers; the second is the one under test."""

    def __init__(self, under_test: nn.Module, flat: bool = False) -> None:
        super().__init__()
        self.a: nn.Module = nn.Linear(6, 8) if flat else nn.Conv2d(3, 8, 3, padding=1)
        self.b = under_test
        self.c: nn.Module = nn.Linear(8, 10) if flat else nn.Conv2d(8, 10, 3, padding=1)
        self.d: nn.Module = nn.Linear(10, 5) if flat else nn.Conv2d(10, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(self.c(self.b(self.a(x).relu()).relu()).relu())


class Cosine(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x), F.normalize(self.weight))


def conv() -> nn.Module:
    return nn.Conv2d(8, 8, 3, padding=1)


BOTH, INPUT, OUTPUT = {"a", "b"}, {"a"}, {"b"}
NETS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "spectral norm, hook": (lambda: Net(spectral_norm(conv())), BOTH),
    "spectral norm, hook, transposed": (lambda: Net(spectral_norm(nn.ConvTranspose2d(8, 8, 3, padding=1))), BOTH),
    "spectral norm, hook, linear": (lambda: Net(spectral_norm(nn.Linear(8, 8)), flat=True), BOTH),
    "spectral norm, parametrised": (lambda: Net(parametrizations.spectral_norm(conv())), BOTH),
    "spectral norm, parametrised, linear": (
        lambda: Net(parametrizations.spectral_norm(nn.Linear(8, 8)), flat=True),
        BOTH,
    ),
    "weight norm, hook": (lambda: Net(weight_norm(conv())), INPUT),
    "weight norm, hook, dim 1": (lambda: Net(weight_norm(conv(), dim=1)), OUTPUT),
    "weight norm, hook, dim None": (lambda: Net(weight_norm(conv(), dim=None)), BOTH),
    "weight norm, parametrised": (lambda: Net(parametrizations.weight_norm(conv())), INPUT),
    "weight norm, parametrised, dim None": (
        lambda: Net(parametrizations.weight_norm(nn.Linear(8, 8), dim=None), flat=True),
        BOTH,
    ),
    "scaled standardisation": (lambda: Net(Reparametrised(scaled_standard)), INPUT),
    "standardisation": (lambda: Net(Reparametrised(standard)), INPUT),
    "divided by its norm": (lambda: Net(Reparametrised(lambda w: w / w.norm())), BOTH),
    "divided by its largest": (lambda: Net(Reparametrised(rounded)), BOTH),
    "above its mean": (lambda: Net(Reparametrised(ternary)), BOTH),
    "softmax": (lambda: Net(Reparametrised(lambda w: w.softmax(1))), INPUT),
    "Gram matrix": (lambda: Net(Reparametrised(lipschitz)), BOTH),
    "squared rows": (lambda: Net(Reparametrised(row_lengths)), INPUT),
    "cosine": (lambda: Net(Cosine(8, 8), flat=True), INPUT),
}
"""Name -> a network and the layers whose channels a statistic is taken over."""


def built(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    net = randomise(NETS[name][0](), torch.Generator().manual_seed(1))
    return net, torch.randn(2, *((6,) if isinstance(net.a, nn.Linear) else (3, 8, 8)), dtype=torch.float64)


def writer(group: Any) -> str:
    return group.producers[0].split(".")[0]


@pytest.mark.parametrize("name", NETS)
def test_channels_under_a_statistic_stay_and_say_why(name: str) -> None:
    net, x = built(name)
    structure = analysed(net, x)
    staying = {writer(g): g.reason for g in structure.groups if not g.prunable and g.reason != "network output"}
    assert set(staying) == NETS[name][1]
    assert all(" in b" in reason and "statistics mix these channels" in reason for reason in staying.values())


@pytest.mark.parametrize("name", NETS)
def test_the_other_channels_go_exactly(name: str) -> None:
    """Dense layer by dense layer: what a consumer does not read is gone, and nothing else has changed."""
    net, x = built(name)
    readers = {"a": "b", "b": "c", "c": "d"}
    for group in analyse(net, x).groups:
        if group.prunable:
            thin = remove_channels(net, x, {group.name: range(2, group.size)})
            expected = without_reading(net, x, readers[writer(group)], [0, 1])
            assert difference(outputs(thin, x), expected) < 1e-9


@pytest.mark.parametrize("name", NETS)
def test_on_request_they_go_as_inexact_ones(name: str) -> None:
    net, x = built(name)
    structure = analyse(net, x, allow_inexact=True)
    inexact = [g for g in structure.groups if not g.exact]
    assert {writer(g) for g in inexact} == NETS[name][1]
    for group in inexact:
        assert " in b" in group.inexact_reason
        assert group.inexact_reason in str(group)
        thin = remove_channels(net, x, {group.name: range(2, group.size)}, allow_inexact=True)
        assert [t.shape for t in outputs(thin, x)] == [t.shape for t in outputs(net, x)]
        assert sum(p.numel() for p in thin.parameters()) < sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", NETS)
def test_a_list_of_ratios_never_reaches_such_a_layer(name: str) -> None:
    net, x = built(name)
    structure = analyse(net, x)
    assert "b" not in {layer.name for layer in layers_of(structure, "sample", "all")}


def test_declared_widths_follow_the_thinner_weight() -> None:
    for name in ("weight norm, hook", "weight norm, parametrised"):
        net, x = built(name)
        group = next(g for g in analyse(net, x).groups if writer(g) == "b")
        thin = remove_channels(net, x, {group.name: range(3)})
        assert (thin.b.out_channels, thin.b.in_channels, thin.b.weight.shape[0]) == (3, 8, 3)


class Tokens(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.a, self.norm, self.out = nn.Linear(6, 8), norm, nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(self.a(x)))


@pytest.mark.parametrize("norm", [nn.InstanceNorm1d(7), nn.BatchNorm1d(7, track_running_stats=False)])
def test_a_norm_with_statistics_of_its_own_over_tokens_mixes_their_channels(norm: nn.Module) -> None:
    net, x = Tokens(norm).double().eval(), torch.randn(2, 7, 6, dtype=torch.float64)
    assert "statistics" in analyse(net, x).group("a").reason
    assert not analyse(net, x, allow_inexact=True).group("a").exact


class Generated(nn.Module):
    """A weight written by a small network: its hidden channels are read by a layer like any other's."""

    def __init__(self) -> None:
        super().__init__()
        self.origin, self.hidden, self.write = nn.Parameter(torch.randn(4)), nn.Linear(4, 6), nn.Linear(6, 3)
        self.a, self.out = nn.Linear(5, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.a(x) * self.write(self.hidden(self.origin).relu()))


def test_channels_that_a_layer_makes_of_constants_go_exactly() -> None:
    net, x = Generated().double().eval(), torch.randn(2, 5, dtype=torch.float64)
    assert analyse(net, x).group("hidden").prunable
    thin = remove_channels(net, x, {"hidden": range(4)})
    assert difference(outputs(thin, x), without_reading(net, x, "write", [4, 5], axis=0)) < 1e-9
