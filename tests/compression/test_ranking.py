"""How many channels are masked at a level: exact counts, floors, targets met from both sides."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compression.costs import GroupCosts
from pocketprune.compression.ranking import (
    entries_for_channels,
    entries_for_cost,
    entries_for_share,
    global_order,
    kept_of,
    lower_counts,
    uniform_order,
)
from pocketprune.numerics.paths import RankedPath
from pocketprune.structure.channel_groups import analyse
from pocketprune.structure.cost import count_macs, count_params
from pocketprune.thinning.recipes import recipe_for
from pocketprune.thinning.removal import thin
from tests.structure.families import CONVOLUTIONAL


def masked(sizes: list[int], level: float, multiple: int = 1) -> list[int]:
    order = uniform_order(sizes, multiple)
    kept = order.kept(entries_for_share(order, level))
    return [size - count for size, count in zip(sizes, kept, strict=True)]


@pytest.mark.parametrize(
    ("size", "level", "multiple", "expected"),
    [(20, 0.2, 8, 4), (20, 0.1, 2, 2), (20, 0.1, 5, 0), (20, 0.5, 8, 4), (16, 0.1, 1, 1), (100, 0.29, 1, 29)],
)
def test_counts_of_nncf_and_distiller(size: int, level: float, multiple: int, expected: int) -> None:
    assert masked([size], level, multiple) == [expected]


@pytest.mark.parametrize("multiple", [1, 3])
def test_counts_are_exact_at_every_level_and_never_below_one(multiple: int) -> None:
    sizes = [1, 2, 7, 16]
    for level in [0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.999]:
        for size, gone in zip(sizes, masked(sizes, level, multiple), strict=True):
            counts = [size, *lower_counts(size, multiple)]
            assert size - gone == min(c for c in counts if c >= size * (1 - level) - 1e-9)
            assert size - gone >= 1


def test_a_global_order_follows_the_scores_down_to_the_floor() -> None:
    scores = [torch.tensor([3.0, 1.0, 2.0, 9.0]), torch.tensor([0.5, 4.0, 5.0, 6.0])]
    order = global_order(scores, floor=0.5)
    assert order.groups.tolist() == [1, 0, 0, 1]
    assert order.counts.tolist() == [3, 3, 2, 2]
    assert [order.kept(entries_for_channels(order, level)) for level in (0, 0.125, 0.3, 0.5)] == [
        [4, 4],
        [4, 3],
        [3, 3],
        [2, 2],
    ]
    with pytest.raises(UserError, match=r"^target: 0\.6 given; 0 to 0\.500 can be reached$"):
        entries_for_channels(order, 0.6)


def test_a_global_order_in_multiples_keeps_them() -> None:
    order = global_order([torch.rand(20), torch.rand(9)], multiple=4)
    assert all(count % 4 == 0 for count in order.counts)
    for entries in range(len(order.groups)):
        before, after = order.kept(entries), order.kept(entries + 1)
        assert sum(b != a for b, a in zip(before, after, strict=True)) == 1
        assert all(b >= a for b, a in zip(before, after, strict=True))


def test_a_cost_is_met_from_the_nearer_side() -> None:
    order = uniform_order([100])
    for level, count in ((0.504, 50), (0.506, 49), (0, 100), (0.99, 1)):
        assert order.kept(entries_for_cost(order, level, lambda kept: kept[0], 100)) == [count]
    with pytest.raises(UserError, match=r"^target: 0\.9 given; 0 to 0\.500 can be reached$"):
        entries_for_cost(uniform_order([100], floor=0.5), 0.9, lambda kept: kept[0], 100)


def test_what_is_gone_does_not_come_back() -> None:
    path = RankedPath(torch.tensor([3, 1, 0, 2]))  # 2 is kept longest
    gone = torch.tensor([False, False, True, False])
    assert [kept_of(path, count, gone) for count in (1, 2, 3, 4)] == [[0], [0, 1], [0, 1, 3], [0, 1, 3]]


@pytest.mark.parametrize("name", ["resnet_padded", "mobilenet_v3", "densenet", "shufflenet_v1"])
def test_costs_are_those_of_the_thinned_network(name: str) -> None:
    torch.manual_seed(0)
    net: nn.Module = CONVOLUTIONAL[name]()
    example = torch.randn(2, 3, 16, 16)
    structure = analyse(net, example)
    groups = [g for g in structure.groups if g.prunable]
    costs = GroupCosts(structure, groups)
    kept = {group.name: max(1, group.size - 1 - number % 3) for number, group in enumerate(groups)}
    thinned = thin(structure, recipe_for(structure, {name: range(count) for name, count in kept.items()}))
    assert costs.macs(kept) == count_macs(thinned, example)
    assert costs.params(kept) == count_params(thinned)
    assert (costs.macs({}), costs.params({})) == (costs.dense_macs, costs.dense_params)
