"""Every toy network through the oracle: the groups that can go, and exactness when they do."""

from __future__ import annotations

import pytest
import torch

from pocketprune.thinning.removal import remove_channels
from tests.structure.oracle import analysed, assert_exact, drop_some, kept_after, outputs, randomise
from tests.structure.toy import Toy
from tests.structure.toy_sizes import SIZES
from tests.structure.toys_attention import ATTENTION
from tests.structure.toys_convolution import CHAINS
from tests.structure.toys_joins import JOINS
from tests.structure.toys_linear import LINEAR

TOYS: dict[str, Toy] = {**CHAINS, **JOINS, **LINEAR, **ATTENTION}

REFUSALS = {
    "group_norm_of_one": "statistics",
    "residual_on_input": "network input",
    "broadcast_gate": "mixes",
    "layer_norm": "statistics",
    "transformer_mlp": "statistics",
    "rms_norm": "statistics",
    "softmax_gate": "mixes",
    "lstm": "lstm",
    "lstm_both_ways": "lstm",
    "mixer": "cannot be thinned alike",
    "outer_product": "share one axis",
    "unknown_operator": "fft_rfft",
    "tied_embedding": "indices",
    "tied_autoencoder": "network input",
    "one_channel_slices": "max_pool2d",
    "written_slices": "fill",
    "grid_sample": "affine_grid_generator",
}
"""Toys in which something stays -> words of the reason, which names the node."""


@pytest.mark.parametrize("name", TOYS)
def test_removal_is_exact(name: str) -> None:
    toy, generator = TOYS[name], torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    example = toy.example()
    structure = analysed(randomise(toy.build(), generator), example, attention=toy.attention)
    assert [g.size for g in structure.groups if g.prunable] == SIZES[name]
    reasons = [g.reason for g in structure.groups if not g.prunable]
    assert all(reasons)
    assert (
        any(REFUSALS[name] in reason for reason in reasons)
        if name in REFUSALS
        else not [r for r in reasons if r != "network output"]
    )
    inputs = [example, toy.example(5)] if toy.batches else [example]
    for groups in (None, 1, 2) if SIZES[name] else ():
        assert_exact(structure, drop_some(structure, generator, groups), inputs)


@pytest.mark.parametrize("name", ["chain", "shuffle", "fused", "dict_inputs", "nested_inputs", "two_outputs"])
def test_the_public_door_gives_the_same_network(name: str) -> None:
    toy, generator = TOYS[name], torch.Generator().manual_seed(2)
    net = randomise(toy.build(), generator)
    example = toy.example()
    structure = analysed(net, example)
    dropped = drop_some(structure, generator)
    inside = assert_exact(structure, dropped, [example])
    outside = remove_channels(net, example, kept_after(dropped))
    assert all(torch.equal(a, b) for a, b in zip(outputs(inside, example), outputs(outside, example), strict=True))


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "group_norm", "group_norm_of_one", "transformer_mlp"])
def test_inexact_groups_go_on_request(name: str) -> None:
    """Statistics change, so there is no reference; the thinned network runs, and says that it is not exact."""
    toy, generator = TOYS[name], torch.Generator().manual_seed(3)
    net = randomise(toy.build(), generator)
    structure = analysed(net, toy.example(), allow_inexact=True)
    group = next(g for g in structure.groups if not g.exact)
    assert group.prunable
    assert "[inexact: " in str(group)
    thinned = remove_channels(net, toy.example(), {group.name: range(group.size // 2)}, allow_inexact=True)
    assert sum(p.numel() for p in thinned.parameters()) < sum(p.numel() for p in net.parameters())
    dense, thin = outputs(net, toy.example()), outputs(thinned, toy.example(3))
    assert [t.shape[1:] for t in dense] == [t.shape[1:] for t in thin]
