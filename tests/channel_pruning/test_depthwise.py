"""Depthwise convolutions are refitted on what the layers before them have left."""

from __future__ import annotations

import torch
from torch import nn

from pocketprune import PruningOptions, prune_channels
from pocketprune.training.batch_norm import reestimate_batch_norm
from tests.structure.small import images


def block(channels: int, inner: int, out: int) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()]
    layers += [nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()]
    return [*layers, nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out)]


def mobile() -> nn.Module:
    torch.manual_seed(0)
    blocks = [*block(16, 48, 16), *block(16, 48, 16), *block(16, 48, 16)]
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), *blocks, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 5)
    )
    reestimate_batch_norm(net, images(128))
    return net.eval()


def test_layers_come_closer_after_refitted_depthwise_layers() -> None:
    net, batches = mobile(), images(256, 64)
    errors = {}
    for depthwise in (False, True):
        options = PruningOptions(selection="obs", depthwise=depthwise, points_per_layer=0, check=False)
        errors[depthwise] = [layer.error_after for layer in prune_channels(net, batches, 0.8, options=options).layers]
    assert errors[True][-1] < errors[False][-1]
    assert sum(errors[True]) < sum(errors[False])


def test_a_depthwise_layer_that_reads_nothing_pruned_stays() -> None:
    """The first block's depthwise layer reads refitted values only once a layer before it is pruned."""
    net = mobile()
    result = prune_channels(net, images(64), [1, 1, 1, 1, 0.5, 1, 1], options=PruningOptions(check=False))
    assert torch.equal(result.net[4].weight, net[4].weight)
    assert not torch.equal(result.net[20].weight, net[20].weight)
