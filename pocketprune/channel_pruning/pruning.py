"""Channel pruning by reconstruction (He, Zhang, Sun 2017) on any traced network.

In one sweep, the dense network and the network as pruned so far advance together. At every layer the second moments of
its input (pruned network) and its target (dense network) are accumulated. Input channels are selected by them, and the
weight is refitted on the kept channels. The sweep continues with the refitted layer. At the end the dropped channels
are removed from every tensor that has them.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pocketprune.channel_pruning.analysis import analysed
from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.measuring import PruningWarning, measured
from pocketprune.channel_pruning.metric import metric_of
from pocketprune.channel_pruning.options import Hooks, PruningOptions
from pocketprune.channel_pruning.plan import Plan
from pocketprune.channel_pruning.results import PruneResult
from pocketprune.channel_pruning.runner import PruningRun
from pocketprune.channel_pruning.searching.allocating import allocated_ratios
from pocketprune.channel_pruning.targets import MacsShare, Target
from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode
from pocketprune.common.steps import refuse_integers
from pocketprune.common.wrappers import unwrapped
from pocketprune.graph.accepting import check_accepted
from pocketprune.graph.admission import refuse_others
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.structure.channel_groups import Structure


def prune_channels(
    net: nn.Module | Structure,
    batches: Iterable[ExampleInputs],
    target: Target,
    *,
    options: PruningOptions | None = None,
    hooks: Hooks | None = None,
) -> PruneResult:
    """Prune a network's channels, without labels and without training.

    Args:
        net: the dense network, or what `analyse` returned for it. It stays as it is. Of a network that torch.compile or
            data parallelism has wrapped, the network inside is pruned, and returned without the wrapper.
        batches: calibration inputs, a few hundred to a few thousand images in all. Each batch is a tensor, a tuple of
            arguments or a dict of keyword arguments.
        target: the share of its input channels that each prunable layer keeps, in (0, 1]; or one such share for each
            layer, in the order of `list_layers`; or `MacsShare(share)` of the dense network's MACs.
        options: how to prune.
        hooks: what to call meanwhile, and a state to resume from.

    Returns:
        The pruned network in the caller's mode, its layers and costs, and the measured error of its output.

    Raises:
        UserError: a target or batch that is not accepted, a network that cannot be traced, or a state of
            another pruning.
    """
    options, hooks, start = options or PruningOptions(), hooks or Hooks(), time.perf_counter()
    dense = net.traced.net if isinstance(net, Structure) else net
    refuse_others(dense)
    dense = unwrapped(dense)
    refuse_integers(dense)
    moved = _on_device(batches, dense)
    hooks.tell("tracing", 0, 1)
    structure = analysed(net, moved[0], options)
    check_accepted(structure.traced, moved)
    calibration = Calibration.of(moved, together=options.together)
    traced = time.perf_counter()
    with torch.no_grad(), evaluation_mode(dense):
        metric = metric_of(structure, calibration, options)
        if isinstance(target, MacsShare) and options.allocation == "divergence":
            target = allocated_ratios(structure, target, calibration, options, hooks.tell, metric)
        plan = Plan.for_target(structure, target, options, metric)
        run = PruningRun(plan, calibration, hooks)
        result = measured(run.prune(), plan, calibration, run.state)
    _restore_modes(dense, result.net)
    result.warnings = (*plan.warnings, *result.warnings)
    result.seconds = {"trace": traced - start, "prune": time.perf_counter() - traced}
    for warning in result.warnings:
        warnings.warn(warning, PruningWarning, stacklevel=2)
    return result


def _on_device(batches: Iterable[ExampleInputs], net: nn.Module) -> list[ExampleInputs]:
    device = device_of(net)
    if isinstance(batches, (Tensor, str, Mapping)) or not isinstance(batches, Iterable):
        raise UserError(
            f"{type(batches).__name__} given; a list of batches is accepted, such as images.split(64)",
            argument="batches",
        )
    moved = [pytree.tree_map_only(Tensor, lambda t: t.to(device), batch) for batch in batches]
    if not moved or not all(t.numel() for t in pytree.tree_leaves(moved[0]) if isinstance(t, Tensor)):
        raise UserError("empty; at least one batch of inputs is needed", argument="batches")
    return moved


def _restore_modes(net: nn.Module, pruned: nn.Module) -> None:
    """Give the pruned network's modules the modes of the caller's."""
    modes = {name: module.training for name, module in net.named_modules()}
    for name, module in pruned.named_modules():
        module.training = modes.get(name, net.training)
