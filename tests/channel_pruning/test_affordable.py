"""Layers whose statistics do not fit into memory are left alone, by name and with the figure."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pocketprune
from pocketprune import PruningOptions, PruningWarning
from pocketprune.channel_pruning.affordable import moments_gb
from pocketprune.channel_pruning.searching.choices import choices_of
from pocketprune.structure.layers import layers_of

X = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LIMIT = 1e-4  # GiB: d = 54 fits, d = 512 does not


def _net() -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(8 * 8 * 8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def test_the_size_is_that_of_two_sets_of_moments() -> None:
    layers = {layer.name: layer for layer in layers_of(pocketprune.analyse(_net(), X), "sample", "all")}
    assert moments_gb(layers["2"]) == 2 * 8 * 54 * (54 + 8) / 2**30
    assert moments_gb(layers["5"]) == 2 * 8 * 512 * (512 + 16) / 2**30


@pytest.mark.parametrize("layers", ["conv2d", "all"])
def test_a_layer_that_does_not_fit_stays_whole_and_is_named(layers: str) -> None:
    net = _net()
    with pytest.warns(PruningWarning, match=r"^5 is neither pruned nor refitted: its statistics need 0\.0 GB"):
        result = pocketprune.prune_channels(
            net, [X], 0.5, options=PruningOptions(moments_gb=LIMIT, layers=layers, points_per_layer=0, check=False)
        )
    assert result.net[2].in_channels == 3
    assert result.net[5].in_features == 512
    torch.testing.assert_close(result.net[5].weight, net[5].weight, rtol=0, atol=0)


def test_a_search_leaves_it_alone_too() -> None:
    structure = pocketprune.analyse(_net(), X)
    wide, tight = (choices_of(structure, PruningOptions(moments_gb=limit)) for limit in (1.0, 1e-5))
    assert [len(choice.layer.allowed) for choice in wide] == [1, 6]
    assert [len(choice.layer.allowed) for choice in tight] == [1, 1]
