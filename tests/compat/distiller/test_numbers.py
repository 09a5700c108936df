"""The numbers of Distiller's own tests (test_basic.py, test_ranking.py, test_thresholding.py, test_pruning.py)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pocketprune
from pocketprune.common.errors import UserError
from pocketprune.compat.distiller import dict_config, group_threshold_mask
from pocketprune.compression.sensitivity import smallest
from pocketprune.numerics.criteria import evaluate, kept_channels
from pocketprune.numerics.evidence import ActivationStatistics, Evidence


def test_activation_statistics() -> None:
    first = [torch.diag(torch.tensor([1.0, 2, 3])), torch.tensor([[1.0, 0, 2], [0, 3, 0], [4, 0, 5]])]
    second = [torch.diag(torch.tensor([4.0, 5, 6])), torch.tensor([[0.0, 6, 0], [7, 0, 8], [0, 9, 0]])]
    seen = ActivationStatistics.of(torch.stack([torch.stack(first), torch.stack(second)]))
    evidence = Evidence(channels=2, activations=[seen])
    assert (seen.total / 2).tolist() == [10.5, 22.5]
    assert (100 * (1 - evaluate("apoz", evidence))).tolist() == pytest.approx([66.667, 50], abs=1e-3)
    assert evaluate("mean_activation", evidence).tolist() == pytest.approx([21 / 18, 45 / 18])


def test_ranked_channels_and_columns() -> None:
    weight = torch.stack([torch.arange(tens + 1, tens + 9).float() for tens in (10, 20, 30)]).view(3, 2, 2, 2)
    columns = weight.transpose(0, 1).flatten(1)
    evidence = Evidence(channels=2, filters=[columns])
    assert evaluate("l1", evidence).tolist() == [270, 318]
    assert kept_channels("l1", evidence, 1).tolist() == [1]
    assert smallest(weight, 0.5, "channel").flatten(2).all(2)[0].tolist() == [True, False]
    matrix = torch.arange(1, 10).float().view(3, 3)
    assert smallest(matrix, 0.5, "channel").all(0).tolist() == [True, False, False]


def test_thresholds() -> None:
    matrix = torch.arange(1, 13).float().view(4, 3)
    mask, rows = group_threshold_mask(matrix, "Rows", 7, "Max")
    assert rows.tolist() == [0, 0, 1, 1]
    assert mask.sum(1).tolist() == [0, 0, 3, 3]
    assert group_threshold_mask(matrix, "Cols", 11, "Max")[1].tolist() == [0, 0, 1]
    with pytest.raises(UserError, match="group_type: 'Row' given; did you mean 'Rows'"):
        group_threshold_mask(matrix, "Row", 7, "Max")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(8 * 4 * 4, 12), nn.ReLU(), nn.Linear(12, 5))


def schedule(level: float, weight: str, group: str) -> dict[str, Any]:
    pruner = {"class": "L1RankedStructureParameterPruner", "group_type": group, "desired_sparsity": level,
              "weights": [weight]}  # fmt: skip
    remover = {"class": "StructureRemover", "thinning_func_str": "", "arch": "", "dataset": ""}
    return {
        "version": 1,
        "pruners": {"p": pruner},
        "extensions": {"e": remover},
        "policies": [
            {"pruner": {"instance_name": "p"}, "epochs": [0]},
            {"extension": {"instance_name": "e"}, "epochs": [0]},
        ],
    }


@pytest.mark.parametrize(
    ("level", "weight", "group", "widths"),
    [
        (0.1, "0.weight", "Filters", [15, 8, 128, 12]),  # int(.1 * 16) = 1 removed
        (0.05, "0.weight", "Filters", [16, 8, 128, 12]),  # Distiller: an assertion
        (0.5, "module.2.weight", "Filters", [16, 4, 64, 12]),  # the map's area times the filters that stay
        (0.5, "module.2.weight", "Channels", [8, 8, 128, 12]),
        (0.5, "5.weight", "Rows", [16, 8, 128, 6]),
    ],
)
def test_thinning(level: float, weight: str, group: str, widths: list[int]) -> None:
    model, images = net(), torch.randn(2, 3, 4, 4)
    scheduler = dict_config(model, None, schedule(level, weight, group), dummy_input=images)
    scheduler.on_epoch_begin(0)
    assert [model[0].out_channels, model[2].out_channels, model[5].in_features, model[5].out_features] == widths
    assert model(images).shape == (2, 5)
    assert pocketprune.count_params(model) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("group", ["Filters", "Channels"])
def test_all_structures_cannot_go(group: str) -> None:
    with pytest.raises(UserError, match="desired_sparsity: 1 given"):
        dict_config(net(), None, schedule(1, "2.weight", group), dummy_input=torch.zeros(2, 3, 4, 4))


def test_a_scheduler_goes_on_from_its_state() -> None:
    images, content = torch.randn(2, 3, 4, 4), schedule(0.5, "0.weight", "Filters")
    content["policies"][1]["extension"] = {"instance_name": "e"}
    content["policies"][1]["epochs"] = [1]
    first, second = net(), net()
    before = dict_config(first, None, content, dummy_input=images)
    before.on_epoch_begin(0)
    second.load_state_dict(first.state_dict())
    after = dict_config(second, None, content, dummy_input=images)
    after.load_state_dict(before.state_dict())
    for scheduler in (before, after):
        scheduler.on_epoch_begin(1)
    assert first[0].out_channels == second[0].out_channels == 8
    assert torch.equal(first(images), second(images))
    with pytest.raises(UserError, match="state: of a network with other channels"):
        dict_config(net(), None, content, dummy_input=images).load_state_dict(after.state_dict())
