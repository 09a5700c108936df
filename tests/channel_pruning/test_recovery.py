"""Recovery without labels: statistics and blocks come closer to the dense network's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from pocketprune import UserError
from pocketprune.channel_pruning import recovery
from pocketprune.channel_pruning.recovery import reconstruct_blocks
from pocketprune.channel_pruning.segments import find_segments, output_at
from pocketprune.training.batch_norm import reestimate_batch_norm
from tests.channel_pruning.door import prune
from tests.channel_pruning.test_group_tuning import chunked
from tests.structure.small import images, resnet


def pruned(net: nn.Module, **options: object) -> nn.Module:
    return prune(net, images(), 0.4, **({"shared_input": "keep"} | options)).net


@pytest.mark.parametrize("shared_input", ["keep", "sample"])
def test_blocks_come_closer_on_inputs_not_trained_on(shared_input: str) -> None:
    net, batches = resnet(1), images(160)
    small = pruned(net, shared_input=shared_input)
    before = copy.deepcopy(small)
    results = reconstruct_blocks(small, net, batches, steps=20)
    assert [r.name for r in results] == ["layer1.0", "layer2.0", "layer3.0", ""]
    assert all(result.error_after <= result.error_before for result in results)
    x = images(32, 32, seed=8)[0]
    with torch.no_grad():
        for result in results[:3]:
            assert result.error_after < result.error_before
            target = output_at(net, result.name, x)
            old, new = (output_at(one, result.name, x) - target for one in (before, small))
            assert new.square().sum() < old.square().sum()


def in_place() -> nn.Module:
    """Blocks that overwrite what they read."""
    torch.manual_seed(3)

    def block() -> nn.Sequential:
        return nn.Sequential(
            nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, padding=1)
        )

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), block(), block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )


@pytest.mark.parametrize("make", [lambda: resnet(1), in_place])
def test_blocks_run_alone_on_remembered_inputs_learn_what_they_would_in_the_network(
    make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, batches = make(), images(96)
    small = pruned(net)
    found = [(copy.deepcopy(small), *options) for options in ((1.0, True), (0.0, True), (0.0, False))]
    results = []
    for one, kept_gb, alone in found:
        monkeypatch.setattr(recovery, "KEPT_GB", kept_gb)
        monkeypatch.setattr(
            recovery,
            "find_segments",
            lambda *args, alone=alone: [
                replace(segment, alone=segment.alone and alone) for segment in find_segments(*args)
            ],
        )
        results.append(reconstruct_blocks(one, net, batches, steps=8))
    assert any(segment.alone for segment in find_segments(small, net, batches[0]))
    assert any(block.error_after < block.error_before for block in results[0])
    assert results[0] == results[1] == results[2]
    for one, *_ in found[1:]:
        assert all(torch.equal(t, found[0][0].state_dict()[n]) for n, t in one.state_dict().items())


def test_a_network_run_as_a_graph_is_recovered_too() -> None:
    net, batches = chunked(), images(96)
    small = pruned(net)
    results = reconstruct_blocks(small, net, batches, steps=30)
    assert results[-1].error_after < results[-1].error_before


def test_the_dense_network_the_modes_and_the_statistics_stay() -> None:
    net = resnet(2).train()
    small = pruned(net)
    state, statistics = copy.deepcopy(net.state_dict()), copy.deepcopy(dict(small.named_buffers()))
    reconstruct_blocks(small, net, images(), steps=2)
    assert all(torch.equal(t, state[n]) for n, t in net.state_dict().items())
    assert all(torch.equal(t, statistics[n]) for n, t in small.named_buffers())
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in small.parameters())


def test_a_step_too_long_is_taken_back() -> None:
    net = resnet(1)
    small = pruned(net)
    state = copy.deepcopy(small.state_dict())
    results = reconstruct_blocks(small, net, images(), steps=1, lrn_rate=100.0)
    assert all(result.error_after == result.error_before for result in results)
    assert all(torch.equal(t, state[n]) for n, t in small.state_dict().items())


@pytest.mark.parametrize("net", [lambda: resnet(1, "projection"), chunked])
def test_the_blocks_hold_every_parameter_once(net: object) -> None:
    dense = net()
    small = pruned(dense)
    parameters = [id(p) for segment in find_segments(small, dense, images()[0]) for p in segment.parameters]
    assert sorted(parameters) == sorted(id(p) for p in small.parameters())


def test_statistics_become_those_of_the_images() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    batches = images(32)
    assert reestimate_batch_norm(net, batches) == 2
    with torch.no_grad():
        first = [net[0](batch) for batch in batches]
        expected = torch.stack([y.mean((0, 2, 3)) for y in first]).mean(0)
        spread = torch.stack([y.var((0, 2, 3)) for y in first]).mean(0)
    assert torch.allclose(net[1].running_mean, expected, atol=1e-5)
    assert torch.allclose(net[1].running_var, spread, rtol=1e-4)
    assert net[1].momentum == 0.1
    assert net.training
    assert reestimate_batch_norm(nn.Conv2d(3, 4, 1), batches) == 0


def test_no_steps_and_no_images_are_refused() -> None:
    net = resnet(1)
    with pytest.raises(UserError, match="steps: 0 given"):
        reconstruct_blocks(net, net, images(), steps=0)
    with pytest.raises(UserError, match="batches: empty"):
        reconstruct_blocks(net, net, [])
