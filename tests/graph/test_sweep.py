"""The sweep shows every layer its true input and target, runs each node once a network and holds little."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from pocketprune.graph import sweep as sweep_module
from pocketprune.graph.branches import following_norm, norm_scale
from pocketprune.graph.nodes import module_path as path_of
from pocketprune.graph.sweep import Replacements, Route, Sweep
from pocketprune.structure.channel_groups import Structure, analyse, layer_name
from tests.structure.small import images, resnet


def hooked(net: nn.Module, name: str, batch: Tensor) -> tuple[Tensor, Tensor]:
    """A layer's input and output, by hooks."""
    seen = {}
    handle = net.get_submodule(name).register_forward_hook(lambda m, a, out: seen.update(x=a[0], y=out))
    with torch.no_grad():
        net(batch)
    handle.remove()
    return seen["x"], seen["y"]


def route_of(structure: Structure, branch_drift: bool = True) -> Route:
    """A route that stops at every layer."""
    stops = [layer.node for layer in structure.contractions]
    return Route.through(structure.traced, stops, branch_drift=branch_drift)


@pytest.mark.parametrize("version", [1, 2])
def test_rows_of_an_unpruned_network_are_the_layers_own(version: int) -> None:
    net, batches = resnet(version), images()
    structure = analyse(net, batches[0][:2])
    sweep = Sweep(route_of(structure), batches)
    for stop in sweep:
        for batch, (x, target) in zip(batches, sweep.rows(), strict=True):
            expected = hooked(net, path_of(stop), batch)
            assert torch.allclose(x, expected[0], atol=1e-5)
            assert torch.allclose(target, expected[1], atol=1e-5)


def test_after_a_change_inputs_follow_the_pruned_network_and_targets_the_dense_one() -> None:
    net, batches = resnet(1, "projection"), images()
    structure = analyse(net, batches[0][:2])
    changed = resnet(1, "projection")
    with torch.no_grad():
        changed.layer1[0].conv1.weight.mul_(0.5)
    pruned = Replacements({"layer1.0.conv1.weight": changed.layer1[0].conv1.weight.detach()})
    sweep = Sweep(route_of(structure, branch_drift=False), batches, pruned=pruned)
    for stop in sweep:
        for batch, (x, target) in zip(batches, sweep.rows(), strict=True):
            assert torch.allclose(x, hooked(changed, path_of(stop), batch)[0], atol=1e-5)
            assert torch.allclose(target, hooked(net, path_of(stop), batch)[1], atol=1e-5)


def test_target_before_an_addition_makes_up_for_the_other_operand() -> None:
    """With the target met exactly the sum is what it was, whatever the shortcut has lost."""
    net, batches = resnet(1), images()
    structure = analyse(net, batches[0][:2])
    changed = {"conv1.weight": net.conv1.weight.detach() * 0.7}
    sweep = Sweep(route_of(structure), batches, pruned=Replacements(changed))
    thin = resnet(1)
    with torch.no_grad():
        thin.conv1.weight.mul_(0.7)
    for stop in sweep:
        rows = list(sweep.rows())
        if path_of(stop) == "layer1.0.conv2":
            block_input = hooked(thin, "layer1.0.conv1", batches[0])[0]
            dense_sum = hooked(net, "layer2.0.conv1", batches[0])[0]
            bn = net.layer1[0].bn2
            assert torch.allclose(torch.relu(bn(rows[0][1]) + block_input), dense_sum, atol=1e-4)


def test_every_node_runs_once_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    net, batches = resnet(1), images()
    structure = analyse(net, batches[0][:2])
    runs: Counter[object] = Counter()
    evaluate = sweep_module.evaluate_node
    monkeypatch.setattr(sweep_module, "evaluate_node", lambda node, env: (runs.update([node]), evaluate(node, env))[1])
    sweep = Sweep(
        route_of(structure),
        batches,
        pruned=Replacements({"conv1.weight": net.conv1.weight.detach() * 0.5}),
    )
    for _ in sweep:
        for _ in sweep.rows():
            pass
    stops = {layer.node for layer in structure.contractions}
    for node, times in runs.items():
        # Once dense, once pruned; a stop once more, for its target.
        assert times <= len(batches) * (3 if node in stops else 2)


def test_values_past_the_bound_go_to_disk_and_come_back_the_same() -> None:
    net, batches = resnet(1), images()
    structure = analyse(net, batches[0][:2])
    pruned = Replacements({"conv1.weight": net.conv1.weight.detach() * 0.5})
    in_memory = Sweep(route_of(structure), batches, pruned=pruned)
    on_disk = Sweep(route_of(structure), batches, cache_gb=0, pruned=pruned)
    for _ in zip(in_memory, on_disk, strict=True):
        for (x, y), (x2, y2) in zip(list(in_memory.rows()), list(on_disk.rows()), strict=True):
            assert torch.equal(x, x2)
            assert torch.equal(y, y2)


def test_scale_of_a_norm_is_what_it_multiplies_by() -> None:
    net = resnet(1)
    structure = analyse(net, images()[0][:2])
    conv = next(c for c in structure.contractions if layer_name(c) == "layer1.0.conv2")
    scale = norm_scale(following_norm(conv.node), structure.traced.tensor_names, structure.traced.named_tensors())
    bn, x = net.layer1[0].bn2.double(), torch.randn(1, 16, 2, 2, dtype=torch.float64)
    assert torch.allclose(bn(x + 1) - bn(x), scale.view(1, -1, 1, 1).expand(1, 16, 2, 2))
