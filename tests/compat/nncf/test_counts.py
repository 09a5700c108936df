"""Counts of filters, FLOPs and weights are those of NNCF's own tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compat.nncf import CompressionStage, create_compressed_model
from tests.compat.nncf.networks import (
    BatchedLinear,
    Big,
    BroadcastedLinear,
    ConcatWithLinear,
    Kinds,
    Small,
    configured,
    filled,
)


def counts(net: nn.Module, shape: list[int], init: float, **params: Any) -> tuple[list[int], float, float]:
    ctrl, _ = create_compressed_model(net, configured(shape, init, **params), allow_inexact=True)
    model = ctrl.statistics().filter_pruning.model_statistics
    assert ctrl.compression_stage() == CompressionStage.FULLY_COMPRESSED
    kept = [len(channels) for channels in ctrl.control.kept().values()]
    return kept, model.current_flops, model.current_params_num


@pytest.mark.parametrize(
    ("all_weights", "target", "kept", "flops", "weights"),
    [
        (False, {"pruning_target": 0.5}, [8, 16, 32, 64], 679888, 106280),
        (True, {"pruning_target": 0.5}, [14, 30, 35, 41], 1146640, 83768),
        (False, {"pruning_flops_target": 0.5}, [16, 24, 40, 80], 1236160, 169184),
        (True, {"pruning_flops_target": 0.5}, [14, 31, 39, 47], 1328162, 104833),
    ],
)
def test_network_a(all_weights: bool, target: dict[str, float], kept: list[int], flops: int, weights: int) -> None:
    asked = {"all_weights": all_weights, "prune_first_conv": True, **target}
    assert counts(Big(), [1, 1, 8, 8], 0.5, **asked) == (kept, flops, weights)


@pytest.mark.parametrize(
    ("make", "target", "kept", "dense", "flops"),
    [
        (ConcatWithLinear, 0.1, [16, 24, 24], 305792, 230912),
        (ConcatWithLinear, 0.3, [8, 16, 16], 305792, 79168),
        (BroadcastedLinear, 0.1, [24, 16], 137216, 103424),
        (BroadcastedLinear, 0.3, [16, 8], 137216, 35840),
    ],
)
def test_flops_targets(make: Callable[[], nn.Module], target: float, kept: list[int], dense: int, flops: int) -> None:
    asked = {"pruning_flops_target": target, "prune_first_conv": True}
    config = configured([1, 1, 8, 8], target, **asked)
    ctrl, _ = create_compressed_model(make(), config)
    model = ctrl.statistics().filter_pruning.model_statistics
    assert sorted(len(k) for k in ctrl.control.kept().values()) == sorted(kept)
    assert (model.full_flops, model.current_flops) == (dense, flops)


def test_flops_of_single_layers() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Conv2d(3, 1, 3), nn.Conv2d(1, 1, 1))
    ctrl, _ = create_compressed_model(net, configured([1, 1, 4, 4], prune_first_conv=True))
    model = ctrl.statistics().filter_pruning.model_statistics
    assert model.full_flops == 216 + 54 + 2
    assert model.full_params_num == 12 + 27 + 1


@pytest.mark.parametrize(("level", "kept"), [(0.2, 16), (0.5, 16), (0.6, 8), (0.99, 8)])
def test_kept_counts_are_multiples_of_eight_rounded_up(level: float, kept: int) -> None:
    net = nn.Sequential(filled(nn.Conv2d(1, 20, 1), 1), nn.ReLU(), nn.Conv2d(20, 1, 1))
    ctrl, _ = create_compressed_model(net, configured([1, 1, 4, 4], prune_first_conv=True, pruning_target=0.99))
    ctrl.set_pruning_level(level)
    assert ctrl.control.kept()["0"] == list(range(20 - kept, 20))


def test_levels_of_groups() -> None:
    ctrl, _ = create_compressed_model(Big(), configured([1, 1, 8, 8], 0.2), allow_inexact=True)
    for asked, levels, whole in (
        (0.5, [0.5, 0.5, 0.5], 0.5),
        ({0: 0.6, 1: 0.8, 2: 0.4}, [0.5, 0.75, 0.375], 0.39269836),
    ):
        ctrl.set_pruning_level(asked)
        assert list(ctrl.current_groupwise_pruning_level.values()) == pytest.approx(levels)
        assert ctrl.pruning_level == pytest.approx(whole)
    with pytest.raises(UserError, match=r"^pruning_level: groups \[0, 3\] given; 0 to 2 are accepted"):
        ctrl.set_pruning_level({0: 0.5, 3: 0.5})
    together = configured([1, 1, 8, 8], 0.5, all_weights=True)
    ctrl, _ = create_compressed_model(Big(), together, allow_inexact=True)
    assert list(ctrl.current_groupwise_pruning_level.values()) == [0.03125, 0.421875, 0.65625]
    with pytest.raises(UserError, match=r"^pruning_level: levels of groups given with all_weights"):
        ctrl.set_pruning_level({0: 0.5, 1: 0.5, 2: 0.5})


def test_which_layers_are_pruned_and_why_others_are_not() -> None:
    def asked(**params: bool) -> tuple[list[str], dict[str, str]]:
        ctrl, _ = create_compressed_model(Kinds(), configured([1, 1, 16, 16], **params))
        left = ctrl.statistics().filter_pruning.model_statistics.left_alone
        return list(ctrl.control.kept()), {name.removeprefix("Kinds/NNCFConv2d"): reason for name, reason in left}

    pruned, left = asked()
    assert pruned == ["plain"]
    assert left == {
        "[first]": "first is a first layer (prune_first_conv)",
        "[depthwise]": "first is a first layer (prune_first_conv)",
        "[strided]": "strided is strided (prune_downsample_convs)",
        "[grouped]": "strided is strided (prune_downsample_convs)",
    }
    pruned, left = asked(prune_first_conv=True, prune_downsample_convs=True)
    assert pruned == ["first", "plain"]
    assert left["[strided]"] == left["[grouped]"] == "grouped is a grouped convolution"


def test_nothing_left_to_prune_is_told_with_reasons() -> None:
    with pytest.raises(UserError, match=r"^compression: nothing is left to prune \(first_conv: "):
        create_compressed_model(BatchedLinear(), configured([1, 1, 8, 8]))


def test_a_level_that_cannot_be_reached_states_what_can() -> None:
    ctrl, _ = create_compressed_model(Small(), configured([1, 3, 8, 8], pruning_flops_target=0.3))
    most = ctrl.maximal_compression_rate
    ctrl.compression_rate = most - 1e-6
    assert ctrl.compression_rate == pytest.approx(most)
    with pytest.raises(UserError, match=f"^target: .* given; less than {most:.3f} can be reached"):
        ctrl.compression_rate = most + 1e-3
