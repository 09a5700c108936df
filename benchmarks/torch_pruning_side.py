"""Torch-Pruning's side of the benchmarks: a network pruned by it to a number of MACs."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Sequence
from functools import cache

import torch.nn.functional as F
from torch import Tensor, nn

import pocketprune

HALVINGS = 8  # of the interval that its ratio of channels is looked for in; it has no target in MACs


def is_installed() -> bool:
    return importlib.util.find_spec("torch_pruning") is not None


def pruned_by_torch_pruning(
    dense: nn.Module,
    ignored: Sequence[nn.Module],
    batches: Sequence[tuple[Tensor, Tensor]],
    criterion: str,
    macs: float,
) -> nn.Module:
    """Return a copy of a network with at most so many MACs, each group with the same ratio.

    Args:
        dense: the network.
        ignored: its layers whose outputs stay whole; linear layers are added.
        batches: images and labels, for gradients.
        criterion: "l1", "taylor" or "geometric_median".
        macs: how many may stay.
    """
    names = [name for name, module in dense.named_modules() if module in ignored or isinstance(module, nn.Linear)]
    example = batches[0][0][:2]
    net = copy.deepcopy(dense).train(criterion == "taylor" and dense.training)
    if criterion == "taylor":
        for x, labels in batches:
            F.cross_entropy(net(x), labels).backward()
    _pruned(net, names, example, criterion, _ratio(dense, tuple(names), example, macs))
    net.zero_grad()
    return net.train(dense.training)


@cache
def _ratio(dense: nn.Module, ignored: tuple[str, ...], example: Tensor, macs: float) -> float:
    """Return the smallest ratio of channels, to a fine step, that leaves at most so many MACs."""
    low, high = 0.0, 0.95
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        net = copy.deepcopy(dense)
        _pruned(net, ignored, example, "l1", middle)
        low, high = (low, middle) if pocketprune.count_macs(net, example) <= macs else (middle, high)
    return high


def _pruned(net: nn.Module, ignored: Sequence[str], example: Tensor, criterion: str, ratio: float) -> None:
    import torch_pruning

    importances = {
        "l1": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=1),
        "taylor": torch_pruning.importance.GroupTaylorImportance,
        "geometric_median": torch_pruning.importance.FPGMImportance,
    }
    pruner = torch_pruning.pruner.BasePruner(
        net, example, importance=importances[criterion](), pruning_ratio=ratio,
        ignored_layers=[net.get_submodule(name) for name in ignored],
    )  # fmt: skip
    pruner.step()
