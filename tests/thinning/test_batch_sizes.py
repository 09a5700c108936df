"""A thinned network takes the batch sizes that the dense one takes, or is refused with the node at fault."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pocketprune import UserError, remove_channels
from pocketprune.structure.batches import frozen_at, other_batch, refuse_frozen
from pocketprune.structure.channel_groups import analyse
from pocketprune.thinning.recipes import recipe_of
from tests.structure.oracle import difference, outputs
from tests.thinning.reading import without_reading

WRITTEN = 12
"""A width written into the forward of half of the networks, so that their thinner copies run as graphs."""


class Net(nn.Module):
    """Three layers with some way of handling the batch between the second and the third."""

    def __init__(self, handle: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, WRITTEN, 3, padding=1), nn.Conv2d(WRITTEN, 10, 1), nn.Conv2d(10, 5, 1)
        self.handle = handle

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.handle(self.b, self.a(x).relu()))


def measured(y: Tensor) -> Tensor:
    """The same value by way of a view with the width written down."""
    return y.flatten(2).reshape(-1, WRITTEN, y.shape[2] * y.shape[3]).unflatten(2, y.shape[2:])


def looped(layer: nn.Module, y: Tensor) -> Tensor:
    return torch.stack([layer(one[None])[0] for one in y])


def chunked(layer: nn.Module, y: Tensor) -> Tensor:
    return torch.cat([layer(part) for part in y.split(1)])


def weighed(layer: nn.Module, y: Tensor) -> Tensor:
    return layer(y) / float(y.shape[0])


def viewed(layer: nn.Module, y: Tensor) -> Tensor:
    flat = layer(y).view(len(y), -1)
    return flat.view(int(y.shape[0]), 10, *y.shape[2:])


def bounded(layer: nn.Module, y: Tensor) -> Tensor:
    return layer(y) * (2 if y.shape[0] > 3 else 1)


def free(layer: nn.Module, y: Tensor) -> Tensor:
    return layer(y) + torch.zeros(y.shape[0], 1, 1, 1)


def only_two(layer: nn.Module, y: Tensor) -> Tensor:
    return layer(y.view(2, *y.shape[1:]))


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(count))


def net_of(handle: Callable[[nn.Module, Tensor], Tensor], graph: bool) -> nn.Module:
    torch.manual_seed(0)
    return Net((lambda layer, y: handle(layer, measured(y))) if graph else handle).eval()


@pytest.mark.parametrize("handle", [looped, chunked, weighed, viewed, bounded, free])
def test_the_networks_own_code_goes_on_to_take_every_batch_size(handle: Callable[[nn.Module, Tensor], Tensor]) -> None:
    net = net_of(handle, graph=False)
    thin = remove_channels(net, images(2), {"a": range(4, WRITTEN)})
    assert recipe_of(thin).form == "module"
    for count in (1, 2, 5):
        assert difference(outputs(thin, images(count)), without_reading(net, images(count), "b", range(4))) < 1e-5


@pytest.mark.parametrize(
    ("handle", "node"), [(looped, "unbind"), (chunked, "split"), (weighed, "its code"), (bounded, "its code")]
)
def test_a_graph_that_holds_at_one_batch_size_is_refused_by_name(
    handle: Callable[[nn.Module, Tensor], Tensor], node: str
) -> None:
    with pytest.raises(UserError, match=f"network Net: .* no other batch size than 2, .*: {node}"):
        remove_channels(net_of(handle, graph=True), images(2), {"a": range(4, WRITTEN)})


@pytest.mark.parametrize("handle", [viewed, free])
def test_a_graph_is_freed_of_sizes_written_down(handle: Callable[[nn.Module, Tensor], Tensor]) -> None:
    net = net_of(handle, graph=True)
    thin = remove_channels(net, images(2), {"a": range(4, WRITTEN)})
    assert recipe_of(thin).form == "graph"
    for count in (1, 2, 7):
        assert difference(outputs(thin, images(count)), without_reading(net, images(count), "b", range(4))) < 1e-5


def test_a_network_of_one_batch_size_is_thinned_for_that_one() -> None:
    for graph in (False, True):
        net = net_of(only_two, graph)
        thin = remove_channels(net, images(2), {"a": range(4, WRITTEN)})
        assert difference(outputs(thin, images(2)), without_reading(net, images(2), "b", range(4))) < 1e-5


def test_a_graph_that_does_not_hold_elsewhere_names_its_node_before_it_is_used() -> None:
    """What a sweep over calibration batches of any size must ask first."""
    with pytest.raises(UserError, match=r"^network Net: its traced graph holds at no other batch size than 2: unbind"):
        refuse_frozen(analyse(net_of(looped, graph=False), images(2)).traced)
    for handle, node in ((looped, "unbind"), (free, ""), (viewed, "")):
        traced = analyse(net_of(handle, graph=False), images(2)).traced
        call, dense = other_batch(traced)
        assert frozen_at(traced, call, dense).startswith(node)
        assert bool(frozen_at(traced, call, dense)) == bool(node)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) + torch.randn(x.shape[0], 1, 1, 1)


def test_random_numbers_in_a_forward_are_no_frozen_batch() -> None:
    traced = analyse(Noisy().eval(), images(2)).traced
    assert frozen_at(traced, *other_batch(traced)) == ""
