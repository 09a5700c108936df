"""Searching preserve ratios from Python: with labels, without, and by a measure of one's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import pocketprune
from pocketprune import PruningOptions, UserError, prune_channels, search_ratios
from pocketprune.channel_pruning.searching import ratios
from pocketprune.search import Budget, SearchSettings
from tests.channel_pruning.searching.test_environment import held_out
from tests.channel_pruning.test_promises import Odd
from tests.structure.small import images

FEW = {"nb_rlouts": 8, "swaps": 2, "probes": (0.5,)}
OPTIONS = PruningOptions(shared_input="keep", points_per_layer=2)


def disagreement(net: nn.Module, dense: nn.Module) -> float:
    with torch.no_grad():
        return float((net(images(seed=7)[0]) - dense(images(seed=7)[0])).square().mean())


def test_the_ratios_found_meet_the_budget_and_are_a_target() -> None:
    net = Odd().eval()
    before = copy.deepcopy(net.state_dict())
    found = search_ratios(net, images(), 0.5, held_out(), options=OPTIONS, settings=SearchSettings(**FEW))
    result = prune_channels(net, images(), found.ratios, options=OPTIONS)
    assert result.macs / result.dense_macs == pytest.approx(found.share)
    assert abs(found.share - 0.5) <= 0.005
    assert found.score.divergence == min(score.divergence for _, score in found.finalists)
    assert any(rollout.kind == "rollout" for rollout in found.history)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_without_labels_networks_are_compared_by_the_divergence() -> None:
    found = search_ratios(
        Odd().eval(), images(), 0.5, [x for x, _ in held_out()], method="random", options=OPTIONS,
        settings=SearchSettings(nb_rlouts=3, reward_policy="divergence"),
    )  # fmt: skip
    assert all(rollout.reward == -rollout.divergence for rollout in found.history)
    default = search_ratios(Odd().eval(), images(), 0.5, [x for x, _ in held_out()], method="uniform", options=OPTIONS)
    assert [rollout.reward for rollout in default.history] == [-default.history[0].divergence]


def test_a_measure_of_ones_own_judges() -> None:
    dense = Odd().eval()
    found = search_ratios(
        dense, images(), 0.6, lambda net: -disagreement(net, dense), method="random", options=OPTIONS,
        settings=SearchSettings(nb_rlouts=3),
    )  # fmt: skip
    pruned = prune_channels(dense, images(), found.ratios, options=OPTIONS).net
    assert found.score.accuracy == pytest.approx(-disagreement(pruned, dense))


def test_an_analysis_serves_the_search_and_the_pruning() -> None:
    net = Odd().eval()
    structure = pocketprune.analyse(net, images()[0][:2])
    found = [
        search_ratios(each, images(), Budget("params", 0.6), held_out(), method="uniform", options=OPTIONS)
        for each in (net, structure)
    ]
    assert found[0].ratios == found[1].ratios
    pruned = [prune_channels(each, images(), found[0].ratios, options=OPTIONS) for each in (net, structure)]
    assert pruned[0].layers == pruned[1].layers


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"budget": 0.0}, "budget"),
        ({"budget": 0.01}, "out of reach"),
        ({"held_out": held_out(32)}, "held_out: 32 images given"),
        ({"held_out": lambda net: "good"}, "held_out: gave str; a number is accepted"),
        ({"held_out": lambda net: float("nan")}, "held_out: gave nan for the dense network"),
        ({"method": "ddgp"}, "did you mean"),
        ({"batches": []}, "batches: empty"),
    ],
)
def test_bad_arguments_are_told_in_one_line(changed: dict, words: str) -> None:
    arguments = {"batches": images(), "budget": 0.5, "held_out": held_out(), "options": OPTIONS} | changed
    with pytest.raises(UserError, match=words) as error:
        search_ratios(Odd().eval(), **arguments)
    assert "\n" not in str(error.value)


def test_a_network_that_works_in_place_leaves_images_and_itself_alone() -> None:
    class InPlace(Odd):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x.sub_(0.5))

    net, batches, held = InPlace().eval(), images(), images(seed=5, count=64)
    before = copy.deepcopy((net.state_dict(), batches, held))
    search_ratios(net, batches, 0.6, held, method="uniform", options=OPTIONS)
    assert all(torch.equal(t, before[0][n]) for n, t in net.state_dict().items())
    for now, then in zip((*batches, *held), (*before[1], *before[2]), strict=True):
        assert torch.equal(now, then)


def test_layers_to_be_left_alone_are_not_searched() -> None:
    options = PruningOptions(shared_input="keep", points_per_layer=2, ignore=("c",))
    found = search_ratios(Odd().eval(), images(), 0.8, held_out(), method="uniform", options=options)
    names = [layer.name for layer in pocketprune.list_layers(Odd().eval(), images()[0][:2])]
    assert dict(zip(names, found.ratios, strict=True))["c"] == 1
    result = prune_channels(Odd().eval(), images(), found.ratios, options=options)
    assert result.macs / result.dense_macs == pytest.approx(found.share)


def test_a_latency_budget_is_judged_by_what_is_measured() -> None:
    ranked = [(4,), (3,), (2,)]

    def chosen(*shares: float) -> tuple[int, ...]:
        return ratios.on_time(ranked, dict(zip(ranked, shares, strict=True)), 0.8)

    assert chosen(0.81, 0.7, 0.6) == (4,)
    assert chosen(1.04, 0.8, 0.6) == (3,)
    assert chosen(1.04, 0.95, 0.9) == (2,)
    with pytest.warns(pocketprune.PruningWarning, match=r"not met: 80.0% .* asked, 90.0% measured"):
        ratios._warn_if_late(0.9, 0.8)
