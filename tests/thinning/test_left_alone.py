"""Nothing that looks at a network changes it or the caller's inputs, whatever its forward does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pocketprune
from tests.structure.oracle import outputs


class Net(nn.Module):
    """Two layers; the first thing that happens to an input is `meddle`."""

    def __init__(self, meddle: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
        self.register_buffer("seen", torch.zeros(()))
        self.calls, self.kept, self.maps = 0, None, []
        self.meddle = meddle

    def forward(self, x: Tensor) -> Tensor:
        self.meddle(self, x)
        return self.b(self.norm(self.a(x)).relu()).mean((2, 3))


def count(net: nn.Module, x: Tensor) -> None:
    net.seen += 1
    net.calls += 1


def keep(net: nn.Module, x: Tensor) -> None:
    net.kept = net.a(x)
    net.maps.append(net.kept)


def renormalise(net: nn.Module, x: Tensor) -> None:
    net.a.weight.data = torch.renorm(net.a.weight.data, 2, 0, 0.1)


def update(net: nn.Module, x: Tensor) -> None:
    F.batch_norm(x, net.seen.new_zeros(3), net.seen.new_ones(3), training=True)
    net.norm.running_mean.copy_(0.9 * net.norm.running_mean + 0.1)


MEDDLERS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "subtracts in place": lambda net, x: x.sub_(0.5),
    "clips in place": lambda net, x: F.hardtanh(x, -0.5, 0.5, inplace=True),
    "writes a slice": lambda net, x: x[:, 0].mul_(2),
    "counts": count,
    "trains its norm": lambda net, x: net.norm.train(),
    "keeps its maps": keep,
    "renormalises a weight": renormalise,
    "updates a buffer": update,
}


def remove(net: nn.Module, x: Tensor, folder: Path) -> None:
    group = next(g for g in pocketprune.find_channel_groups(net, x) if g.prunable)
    pocketprune.remove_channels(net, x, {group.name: range(group.size // 2)})


LOOKS: dict[str, Callable[[nn.Module, Tensor, Path], Any]] = {
    "find_channel_groups": lambda net, x, folder: pocketprune.find_channel_groups(net, x),
    "list_layers": lambda net, x, folder: pocketprune.list_layers(net, x),
    "remove_channels": remove,
    "count_macs": lambda net, x, folder: pocketprune.count_macs(net, x),
    "measure_latency": lambda net, x, folder: pocketprune.measure_latency(net, x, repeats=3),
    "export_pt2": lambda net, x, folder: pocketprune.export_pt2(folder / "net.pt2", net, x, repeats=2),
    "prune_channels": lambda net, x, folder: pocketprune.prune_channels(net, [x], 0.5),
}


def images() -> Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.3


def attributes(net: nn.Module) -> dict[tuple[str, str], Any]:
    """Plain values as they are, tensors and others by who they are."""
    plain = (bool, int, float, str, tuple, list)
    return {
        (path, name): list(value) if isinstance(value, list) else value if isinstance(value, plain) else id(value)
        for path, module in net.named_modules()
        for name, value in vars(module).items()
    }


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("meddler", MEDDLERS)
def test_network_and_inputs_are_left_alone(meddler: str, look: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = Net(MEDDLERS[meddler]).eval(), images()
    state, known = {k: v.clone() for k, v in net.state_dict().items()}, attributes(net)
    if meddler == "renormalises a weight" and look != "measure_latency":
        with pytest.raises(pocketprune.UserError):
            LOOKS[look](net, x, tmp_path)
    else:
        LOOKS[look](net, x, tmp_path)
    assert torch.equal(x, images())
    assert [name for name, t in net.state_dict().items() if not torch.equal(t, state[name])] == []
    assert attributes(net) == known


@pytest.mark.parametrize("meddler", ["subtracts in place", "clips in place", "writes a slice", "trains its norm"])
def test_what_such_networks_are_thinned_to_computes_the_same(meddler: str) -> None:
    torch.manual_seed(0)
    net = Net(MEDDLERS[meddler]).eval()
    thin = pocketprune.remove_channels(net, images(), {"a": range(2, 8)})
    with torch.no_grad():
        net.b.weight[:, :2] = 0
    for made, expected in zip(outputs(thin, images()), outputs(net, images()), strict=True):
        assert torch.allclose(made, expected, atol=1e-6)


def test_an_exported_network_may_work_in_place(tmp_path: Path) -> None:
    net = Net(MEDDLERS["subtracts in place"]).eval()
    assert pocketprune.export_pt2(tmp_path / "net.pt2", net, images(), repeats=2).max_difference < 1e-5


def test_recording_hooks_see_nothing_but_numbers_of_the_callers_own_network() -> None:
    net = Net(lambda net, x: None).eval()
    maps: list[Tensor] = []

    def record(module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        maps.append(output)
        module.last = output

    handle = net.a.register_forward_hook(record)
    expected = net.a(images()).detach()
    for look in ("find_channel_groups", "remove_channels", "count_macs"):
        LOOKS[look](net, images(), Path())
    assert all(type(seen) is Tensor and torch.equal(seen, expected) for seen in maps)
    assert type(net.a.last) is Tensor
    assert torch.equal(net.a.last, expected)
    handle.remove()
    assert not net.a._forward_hooks


def test_recording_hooks_go_on_recording_on_the_thinned_network() -> None:
    net, widths = Net(lambda net, x: None).eval(), []
    net.a.register_forward_hook(lambda module, args, output: widths.append(output.shape[1]))
    thin = pocketprune.remove_channels(net, images(), {"a": range(5)})
    del widths[:]
    thin(images())
    assert widths == [5]


@pytest.mark.parametrize("returns", [True, False])
def test_a_hook_that_takes_part_is_part_of_the_network(returns: bool) -> None:
    def double(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor | None:
        doubled = output.mul_(1 if returns else 2)
        return doubled * 2 if returns else None

    torch.manual_seed(0)
    net = Net(lambda net, x: None).eval()
    net.b.register_forward_hook(double)
    thin = pocketprune.remove_channels(net, images(), {"a": range(2, 8)})
    with torch.no_grad():
        net.b.weight[:, :2] = 0
    assert torch.allclose(outputs(thin, images())[0], outputs(net, images())[0], atol=1e-6)
