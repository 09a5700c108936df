"""Group tuning: the thinned network in training, and its way back into the sweep."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from pocketprune import Hooks, PruningOptions, UserError, prune_channels
from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.plan import Plan, group_ends
from pocketprune.channel_pruning.runner import PruningRun
from pocketprune.graph.execution import run as run_graph
from pocketprune.structure.channel_groups import analyse
from pocketprune.thinning.recipes import recipe_of
from tests.channel_pruning.test_pruning_state import nudge
from tests.structure.small import images, resnet, shaken


class Chunked(nn.Module):
    """Widths in its code, no norms and no biases: pruned, it is a graph with new biases."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False)
        self.c, self.d = nn.Conv2d(4, 6, 3, bias=False), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.b(self.a(x).relu()).split(4, 1)
        return self.d(self.c(left.relu() + right.relu()).view(-1, 6, 10 * 10).mean(2))


def chunked() -> nn.Module:
    torch.manual_seed(3)
    return Chunked().eval()


NETWORKS = {"module": lambda: resnet(1, "projection"), "graph": chunked}


def half_way(net: nn.Module, stops: int, shared_input: str) -> PruningRun:
    """A run stopped after some layers."""
    plan = Plan.for_target(analyse(net, images()[0][:2]), 0.5, PruningOptions(shared_input=shared_input))
    pruning = PruningRun(plan, Calibration(images()))
    with torch.no_grad():
        pruning.prune_until(stops)
    return pruning


def masked(pruning: PruningRun, x: torch.Tensor) -> torch.Tensor:
    """What the dense-shaped network computes with the run's tensors and biases."""
    done: set[object] = set()

    def with_biases(node: Any, env: dict) -> None:
        for source in node.all_input_nodes:
            if source in pruning.state.cut.biases and source not in done:
                env[source] = env[source] + pruning.state.cut.biases[source].view(-1, 1, 1)
                done.add(source)

    return run_graph(pruning.plan.structure.traced, x, pruning.state.cut.tensors, before=with_biases)


@pytest.mark.parametrize("shared_input", ["sample", "keep"])
@pytest.mark.parametrize("form", sorted(NETWORKS))
def test_expanding_a_tuned_network_gives_the_same_function(form: str, shared_input: str) -> None:
    net = NETWORKS[form]()
    pruning = half_way(net, 3, shared_input)
    small, recipe = pruning.state.cut.thinned(pruning.plan.structure)
    assert recipe_of(small).form == form
    nudge(small, 0)
    everything = set(pruning.plan.structure.traced.named_tensors())
    pruning.state.cut = pruning.state.cut.following(pruning.plan.structure, small, recipe, everything)
    x = images(seed=4)[0]
    with torch.no_grad():
        expected = small.eval()(x)
        assert torch.allclose(masked(pruning, x), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("form", sorted(NETWORKS))
def test_expanding_an_untouched_network_changes_nothing(form: str) -> None:
    pruning = half_way(NETWORKS[form](), 3, "sample")
    before = copy.deepcopy((pruning.state.cut.tensors, list(pruning.state.cut.biases.values())))
    small, recipe = pruning.state.cut.thinned(pruning.plan.structure)
    names = set(pruning.state.cut.tensors)
    pruning.state.cut = pruning.state.cut.following(pruning.plan.structure, small, recipe, names)
    assert all(torch.equal(tensor, before[0][name]) for name, tensor in pruning.state.cut.tensors.items())
    assert all(torch.equal(a, b) for a, b in zip(pruning.state.cut.biases.values(), before[1], strict=True))


@pytest.mark.parametrize("group_size", [1, 2, 1000])
@pytest.mark.parametrize("net", [lambda: resnet(2, "pad"), chunked])
def test_groups_end_with_the_same_counts(net: Any, group_size: int) -> None:
    plain = prune_channels(net(), images(), 0.5)
    tuned: list[int] = []

    def tune(small: nn.Module, number: int) -> None:
        assert torch.is_grad_enabled()
        tuned.append(number)
        nudge(small, number)

    result = prune_channels(net(), images(), 0.5, options=PruningOptions(group_size=group_size), hooks=Hooks(tune=tune))
    assert [layer.kept for layer in result.layers] == [layer.kept for layer in plain.layers]
    assert result.macs == plain.macs
    assert tuned == list(range(len(tuned)))
    assert bool(tuned) == (group_size < len(plain.layers))


def test_tuning_that_changes_nothing_changes_nothing() -> None:
    plain = prune_channels(resnet(1), images(), 0.5)
    result = prune_channels(
        resnet(1), images(), 0.5, options=PruningOptions(group_size=2), hooks=Hooks(tune=lambda *_: None)
    )
    for name, tensor in plain.net.state_dict().items():
        assert torch.equal(tensor, result.net.state_dict()[name])


def test_what_lies_before_the_next_group_stays_as_tuned_and_the_rest_starts_from_the_dense_network() -> None:
    left: dict[str, torch.Tensor] = {}

    def tune(small: nn.Module, number: int) -> None:
        nudge(small, number)
        if number == 1:
            left.update(copy.deepcopy(small.state_dict()))

    net = resnet(1)
    result = prune_channels(
        net, images(), 0.5, options=PruningOptions(shared_input="keep", group_size=3), hooks=Hooks(tune=tune)
    )
    state = result.net.state_dict()
    assert torch.equal(state["layer1.0.conv1.weight"], left["layer1.0.conv1.weight"])
    assert torch.equal(state["layer1.0.bn2.weight"], left["layer1.0.bn2.weight"])
    assert torch.equal(state["layer3.0.bn2.weight"], net.state_dict()["layer3.0.bn2.weight"])
    assert not torch.equal(left["layer3.0.bn2.weight"], state["layer3.0.bn2.weight"])


def test_imitating_the_dense_network_between_groups_and_at_the_end_lowers_the_error() -> None:
    net, batches = resnet(1), images(64)
    with torch.no_grad():
        targets = [net(batch) for batch in batches]

    def imitate(small: nn.Module, _: int = 0) -> None:
        optimizer = torch.optim.Adam(small.eval().parameters(), 2e-4)
        for _ in range(15):
            for batch, target in zip(batches, targets, strict=True):
                optimizer.zero_grad()
                (small(batch) - target).square().mean().backward()
                optimizer.step()

    def miss(small: nn.Module) -> float:
        with torch.no_grad():
            return sum(float((small(b) - t).square().mean()) for b, t in zip(batches, targets, strict=True))

    plain = prune_channels(net, batches, 0.3, options=PruningOptions(shared_input="keep")).net
    small = prune_channels(
        net, batches, 0.3, options=PruningOptions(shared_input="keep", group_size=4), hooks=Hooks(tune=imitate)
    ).net
    imitate(small)
    assert miss(small) < miss(plain)


def test_where_groups_end() -> None:
    listed, losing = [True, True, False, True, True, True], [False, True, True, True, True, False]
    assert group_ends(listed, losing, 1) == [1, 2, 4]
    assert group_ends(listed, losing, 2) == [2]
    assert group_ends(listed, losing, 3) == [4]
    assert group_ends(listed, losing, 1000) == group_ends(listed, losing, None) == []


def test_a_group_of_no_layer_is_refused() -> None:
    with pytest.raises(UserError, match="group_size: 0 given"):
        prune_channels(shaken(resnet(1)), images(), 0.5, options=PruningOptions(group_size=0), hooks=Hooks(tune=nudge))
