"""The masks and metrics of NNI's own tests (test_compressor_torch.py, test_pruning_tools_torch.py)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pocketprune.compat.nni import FPGMPruner, L1FilterPruner, L2FilterPruner, LevelPruner, SlimPruner
from pocketprune.compat.nni.v2 import L1NormPruner
from pocketprune.compat.nni.v2 import LevelPruner as BalancedPruner
from pocketprune.compression.schedules import Schedule
from pocketprune.numerics.criteria import evaluate
from pocketprune.numerics.evidence import ActivationStatistics, Evidence, GradientStatistics
from tests.compat.small import small_net


def two_convolutions(first: int = 0, second: int = 0) -> nn.Sequential:
    """Filter i of each convolution holds i plus an offset everywhere."""
    net = nn.Sequential(nn.Conv2d(1, 5, 5), nn.Conv2d(5, 10, 5))
    for conv, offset in zip(net, (first, second), strict=True):
        for i, row in enumerate(conv.weight.data):
            row.fill_(i + offset)
    return net


@pytest.mark.parametrize(("level", "gone"), [(0.2, [4, 5]), (0.6, [2, 3, 4, 5, 6, 7])])
def test_fpgm_masks_the_middle_filters(level: float, gone: list[int]) -> None:
    net = two_convolutions(second=1)
    pruner = FPGMPruner(net, [{"sparsity": level, "op_types": ["Conv2d"], "op_names": ["1"]}])
    assert pruner.compress() is net
    kept = [i for i in range(10) if i not in gone]
    assert pruner.masks["1"]["bias"].nonzero().flatten().tolist() == kept
    assert pruner.masks["1"]["weight"].flatten(1).sum(1).tolist() == [125.0 * (i in kept) for i in range(10)]
    assert net[1].weight.flatten(1).any(1).nonzero().flatten().tolist() == kept


@pytest.mark.parametrize("pruner", [L1FilterPruner, L2FilterPruner])
def test_norms_mask_the_smallest_filters(pruner: type) -> None:
    net = two_convolutions()
    found = pruner(
        net,
        [
            {"sparsity": 0.2, "op_types": ["Conv2d"], "op_names": ["0"]},
            {"sparsity": 0.6, "op_types": ["Conv2d"], "op_names": ["1"]},
        ],
    )
    found.compress()
    assert found.masks["0"]["weight"].sum() == 4 * 25
    assert found.get_pruned_weights() == {"0": (4, 5), "1": (4, 10)}
    assert found.masks["1"]["bias"].tolist() == [0.0] * 6 + [1.0] * 4


def test_level_is_exact_where_weights_tie() -> None:
    net = nn.Sequential(nn.Linear(10, 10))
    nn.init.ones_(net[0].weight)
    pruner = LevelPruner(net, [{"sparsity": 0.29, "op_types": ["default"]}])
    pruner.compress()
    assert int(pruner.masks["0"]["weight"].sum()) == 71  # int(0.29 * 100) is 28 in floating point


def test_metrics() -> None:
    assert evaluate("l2", Evidence(channels=3, filters=[torch.ones(3, 3, 3)])).tolist() == [3, 3, 3]
    assert evaluate("l2", Evidence(channels=4, filters=[2 * torch.ones(4, 4)])).tolist() == [4] * 4
    rows = torch.tensor([[1.0, 2.0], [4.0, 6.0]])
    assert evaluate("geometric_median", Evidence(channels=2, filters=[rows])).tolist() == [5, 5]
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    assert evaluate("geometric_median", Evidence(channels=2, filters=[corners])).tolist() == [2**0.5] * 2
    for weight, expected in ((torch.ones(3, 3, 3), 18), (torch.ones(4, 4), 8)):
        batches = [GradientStatistics.of(weight, weight) for _ in range(2)]
        found = evaluate("taylor", Evidence(channels=len(weight), gradients=[batches[0] + batches[1]]))
        assert found.tolist() == [expected] * len(weight)


@pytest.mark.parametrize(
    ("sums", "apoz", "mean"),
    [
        ([[1, 1], [1, 1]], [0.5, 0.5], [0.5, 0.5]),
        ([[0, 1], [1, 0]], [0.75, 0.75], [0.25, 0.25]),
        ([[0, 0, 1], [0, 0, 0]], [1, 1, 0.75], [0, 0, 0.25]),
    ],
)
def test_metrics_of_activations(sums: list[list[int]], apoz: list[float], mean: list[float]) -> None:
    """The sums over two batches of zeros, or of values, at each place; channels lie along the last axis."""
    total = torch.tensor(sums, dtype=torch.float64).sum(0)
    seen = ActivationStatistics(count=2 * len(sums), zeros=total, total=total)
    assert evaluate("apoz", Evidence(channels=len(total), activations=[seen])).tolist() == apoz
    assert evaluate("mean_activation", Evidence(channels=len(total), activations=[seen])).tolist() == mean


@pytest.mark.parametrize("seed", [0, 1])
def test_counts_of_random_metrics(seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(1, 5, 5), nn.Conv2d(5, 10, 5))
    alone = LevelPruner(net, [{"sparsity": 0.8, "op_types": ["Conv2d"]}])
    alone.compress()
    assert [int(mask["weight"].sum()) for mask in alone.masks.values()] == [25, 250]
    alone.unwrap_model()
    together = LevelPruner(net, [{"total_sparsity": 0.8, "op_types": ["Conv2d"]}])
    together.compress()
    assert sum(int(mask["weight"].sum()) for mask in together.masks.values()) == 275
    together.unwrap_model()
    _, masks = BalancedPruner(net, [{"sparsity": 0.7, "op_types": ["Conv2d"]}], "balance", [5]).compress()
    assert all(bool((mask["weight"].sum(-1) == 2).all()) for mask in masks.values())  # exactly .6 of each block


def test_slim_has_one_threshold_for_all_batch_norms() -> None:
    net = small_net()
    with torch.no_grad():
        net.bn.weight.copy_(torch.arange(1, 9) / 100)
        net.bn1.weight.copy_(torch.arange(1, 13))
    nn.init.constant_(net.bn2.weight, 50)
    pruner = SlimPruner(net, [{"sparsity": 0.25, "op_types": ["BatchNorm2d"]}])
    pruner.compress()
    assert pruner.get_pruned_weights() == {"bn": (1, 8), "bn1": (12, 12), "bn2": (8, 8)}
    assert pruner.masks["bn"]["bias"].tolist() == [0.0] * 7 + [1.0]


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("agp", [0, 0.3904, 0.6272, 0.7488, 0.7936, 0.8]),
        ("linear", [0, 0.16, 0.32, 0.48, 0.64, 0.8]),
        ("exponential", [0, 0.2752, 0.4747, 0.6193, 0.7241, 0.8]),  # NNI's lottery ticket, after a first 0
    ],
)
def test_schedules_of_five_iterations(name: str, shares: list[float]) -> None:
    schedule = Schedule(name=name, target=0.8, steps=6)
    assert [round(schedule.level(t), 4) for t in range(6)] == shares


def test_entries_of_all_generations_choose_layers() -> None:
    net = small_net()

    def chosen(*config_list: dict[str, object]) -> dict[str, float]:
        pruner = L1NormPruner(net, config_list)
        return {target.name: target.sparsity for target in pruner.targets}

    everywhere = {"sparsity": 0.5, "op_types": ["default"]}
    assert chosen(everywhere, {"exclude": True, "op_names": ["fc"]}) == dict.fromkeys(("conv", "conv1", "conv2"), 0.5)
    assert chosen(everywhere, {"sparsity": 0.3, "op_partial_names": ["conv"]})["conv1"] == 0.3
    early, late = {"sparse_ratio": 0.5, "op_types": ["Conv2d"]}, {"sparse_ratio": 0.3, "op_names_re": ["conv[12]"]}
    assert chosen(late, early) == {"conv": 0.5, "conv1": 0.3, "conv2": 0.3}  # v3: the first one decides
