"""Networks that are no classifiers: several inputs by name, several heads, images of several sizes, own metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pocketprune
from pocketprune import PruningOptions, SearchSettings, Task, UserError, prune_channels, search_ratios
from pocketprune.channel_pruning.recovery import reconstruct_blocks
from pocketprune.channel_pruning.searching.environment import PruningEnvironment
from pocketprune.channel_pruning.searching.layer_latency import LatencyCost
from pocketprune.channel_pruning.searching.scoring import TaskInputs

OPTIONS = PruningOptions(shared_input="keep", points_per_layer=4)
FEW = SearchSettings(nb_rlouts=3, reward_policy="divergence")


class TwoHeads(nn.Module):
    """Two images by name -> a map and a number, in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = (nn.Sequential(nn.Conv2d(c, 12, 3, padding=1), nn.BatchNorm2d(12)) for c in (3, 1))
        self.body = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1))
        self.map, self.number = nn.Conv2d(12, 2, 1), nn.Linear(12, 1)

    def forward(self, *, image: Tensor, depth: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.body(F.relu(self.left(image) + self.right(depth))))
        return {"map": self.map(x), "number": self.number(x.mean((2, 3)))}


def _net() -> TwoHeads:
    torch.manual_seed(0)
    return TwoHeads().eval()


def _batches(sizes: tuple[int, ...] = (8, 12), count: int = 20) -> list[dict[str, Tensor]]:
    made = torch.Generator().manual_seed(1)
    return [
        {"image": torch.randn(count, 3, size, size + 2, generator=made),
         "depth": torch.randn(count, 1, size, size + 2, generator=made)}
        for size in sizes
    ]  # fmt: skip


@torch.no_grad()
def _miss(net: nn.Module, dense: nn.Module) -> float:
    found, wanted = (each(**_batches((10,))[0])["map"] for each in (net, dense))
    return float((found - wanted).square().mean() / wanted.square().mean())


def test_a_network_of_named_inputs_and_two_heads_is_searched_pruned_and_recovered() -> None:
    dense = _net()
    task = Task(metric=lambda net: -_miss(net, dense), name="minus the error of the map")
    found = search_ratios(dense, _batches(), 0.6, task=task, method="uniform", options=OPTIONS, settings=FEW)
    assert abs(found.share - 0.6) < 0.05
    assert all(rollout.divergence > 0 for rollout in found.history if rollout.share < 1)
    pruned = prune_channels(dense, _batches(), found.ratios, options=OPTIONS)
    assert pruned.macs < pruned.dense_macs
    assert found.score.accuracy == pytest.approx(-_miss(pruned.net, dense), rel=1e-4)
    before = _miss(pruned.net, dense)
    blocks = reconstruct_blocks(pruned.net, dense, _batches((8, 12, 8, 12)), steps=20, lrn_rate=1e-2)
    assert any(block.error_after < block.error_before for block in blocks)
    assert _miss(pruned.net, dense) < before


def test_without_a_metric_the_divergence_compares() -> None:
    found = search_ratios(_net(), _batches((8,)), 0.6, task=Task(), method="uniform", options=OPTIONS)
    assert found.score.accuracy == -found.score.divergence < 0


def test_latency_is_measured_on_inputs_of_any_kind() -> None:
    inputs, latency = _batches((8,), 4), LatencyCost(None, batch=4)
    judged = TaskInputs(Task(), inputs)
    environment = PruningEnvironment(_net(), inputs, judged, budget="latency", options=OPTIONS, latency=latency)
    assert environment.cost([layer.full for layer in environment.variables]) > 0


@dataclass
class Heads:
    map: Tensor
    numbers: list[Tensor]


class Packed(TwoHeads):
    """The same, its heads in a dataclass of its own, its images in a tuple."""

    def forward(self, image: Tensor, depth: Tensor) -> Heads:
        heads = super().forward(image=image, depth=depth)
        return Heads(heads["map"], [heads["number"]])


def test_inputs_in_a_tuple_and_outputs_in_a_dataclass() -> None:
    torch.manual_seed(0)
    net, batch = Packed().eval(), tuple(_batches((8,))[0].values())
    result = prune_channels(net, [batch], 0.5, options=OPTIONS)
    assert isinstance(result.net(*batch), Heads)
    assert 0 < result.output_error < 1
    assert Task().distance(result.net, net, [batch]) > 0


def test_a_classifiers_task_is_built_in() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3)
    )
    x = torch.randn(60, 1, 8, 8)
    net(x)
    task = pocketprune.classification([(x, net(x).argmax(1))])
    assert task.measure(net) == 1.0
    assert task.distance(net, net, [x]) == pytest.approx(0, abs=1e-6)
    found = search_ratios(net, [x], 0.5, task=task, method="uniform", options=OPTIONS)
    assert 0 < found.score.accuracy <= 1


@pytest.mark.parametrize(("task", "said"), [
    (lambda: Task(metric=0.5), "task.metric: float given; a function is accepted"),
    (lambda: Task(metric=lambda net: "good"), "task.metric: gave str for a network; a number"),
    (lambda: Task(metric=lambda net: math.nan), "task.metric: gave nan for a network; a finite number"),
    (lambda: Task(divergence=lambda found, wanted: None), "task.divergence: gave NoneType; a number"),
])  # fmt: skip
def test_a_task_of_the_wrong_kind_is_refused_in_one_line(task: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        search_ratios(_net(), _batches((8,)), 0.6, task=task(), method="uniform", options=OPTIONS)


def test_too_few_held_out_inputs_are_refused() -> None:
    with pytest.raises(UserError, match="held_out: 2 inputs given; a search needs 4"):
        search_ratios(_net(), _batches((8,), 10), 0.6, task=Task(), method="uniform", options=OPTIONS)
    with pytest.raises(UserError, match="held_out: none given"):
        search_ratios(_net(), _batches((8,)), 0.6, options=OPTIONS)
