"""Channel pruning by reconstruction (He, Zhang, Sun 2017) on any traced network.

One sweep: the dense network and the network as pruned so far advance together; at every layer the second moments of
its input (pruned network) and its target (dense network) are accumulated, input channels are selected on them, the
weight is refitted on the channels kept, and the sweep goes on with the refitted layer. What was dropped is removed
from every tensor that touches it at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pocketprune.channel_pruning.layerwise import Progress, PruningRun, Settings, Tune, check_settings
from pocketprune.channel_pruning.outcome import LayerResult, PruneResult
from pocketprune.channel_pruning.planning import planned_counts
from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode
from pocketprune.graph import execution
from pocketprune.graph.admission import describe_input, first_line, refuse_others
from pocketprune.graph.tracing import ExampleInputs, TracedNet
from pocketprune.structure.channel_groups import analyse
from pocketprune.structure.layers import layers_of
from pocketprune.structure.verification import check_groups
from pocketprune.thinning.removal import refuse_pruned
from pocketprune.training.distributed import rank, world_size

__all__ = ["LayerResult", "PruneResult", "prune_channels"]


def prune_channels(
    net: nn.Module,
    calibration_batches: Iterable[ExampleInputs],
    *,
    preserve_ratio: float | None = None,
    ratios: Sequence[float] | None = None,
    macs: float | None = None,
    selection: str = "lasso",
    shared_input: str = "sample",
    points_per_layer: int = 10,
    channel_multiple: int = 1,
    cache_gb: float = 4.0,
    layers: str = "conv2d",
    refit: str = "all",
    branch_drift: bool = True,
    attention: str = "heads",
    seed: int = 0,
    check: bool = True,
    group_size: int | None = None,
    tune: Tune | None = None,
    together: bool = False,
    progress: Progress | None = None,
    on_layer: Callable[[LayerResult], None] | None = None,
    state: Mapping[str, Any] | None = None,
    on_state: Callable[[dict[str, Any]], None] | None = None,
) -> PruneResult:
    """Prune a network's channels to a ratio, a list of ratios or a share of its MACs; no labels, no training.

    Exactly one of `preserve_ratio`, `ratios` and `macs` is given.

    Args:
        calibration_batches: inputs of the network (a tensor, a tuple of arguments or a dict of keyword arguments
            each), a few hundred to a few thousand images in all.
        preserve_ratio: share of each prunable layer's input channels that stays, in (0, 1].
        ratios: one share per prunable layer, in the order of `list_layers`.
        macs: share of the dense network's MACs to keep, by one common ratio.
        selection: "lasso" | "obs" | "magnitude" | "random".
        shared_input: what happens to inputs that several layers read: "sample" (each layer reads its own subset),
            "couple" (channels are removed for all of them, chosen jointly) or "keep".
        points_per_layer: positions sampled per image and layer; 0 takes all.
        channel_multiple: kept counts are multiples of this.
        cache_gb: GiB of feature maps held in memory between layers; past it they go to disk.
        layers: "conv2d" (PocketFlow's: Conv2d with groups=1) or "all" (other convolutions and linear layers too).
        refit: "all" layers, those with unpruned inputs too (they make up for what earlier layers lost), or "pruned".
        branch_drift: layers before an addition make up for the drift of its other operand.
        attention: as in `find_channel_groups`: whole heads go, or values become narrower in all heads alike.
        check: first permute every channel group and leave alone those that change the output.
        group_size, tune: group tuning: after every so many prunable layers, while others follow, `tune(net, number)`
            trains the thinned network in place. Inputs then come from the network as tuned, targets from the dense one.
        together: all processes of torch.distributed prune together, each on its own share of the images; all end with
            the same network. To be called in each of them.
        progress: called with (what, done, total). on_layer: called after each prunable layer.
        on_state: called after each layer and each tuning, in every process, with the run's state: plain values and
            tensors, to be saved. state: such a state, to go on from, to the same result.

    Raises:
        UserError: ratios out of range or of the wrong number, unknown names, a network that cannot be traced or was
            pruned already, or a state of another run.
    """
    settings = Settings(
        selection,
        shared_input,
        points_per_layer,
        channel_multiple,
        cache_gb,
        layers,
        refit,
        branch_drift,
        seed,
        group_size,
    )
    check_settings(settings)
    refuse_others(net)
    refuse_pruned(net)
    batches = _on_device(calibration_batches, net)
    start = time.perf_counter()
    if progress is not None:
        progress("tracing", 0, 1)
    structure = analyse(net, _first_two(batches[0]), attention=attention)
    if check:
        check_groups(structure, structure.traced.example)
    _check_alike(batches, structure.traced)
    listed = layers_of(structure, shared_input, layers)
    counts = planned_counts(
        structure, listed, preserve_ratio=preserve_ratio, ratios=ratios, macs=macs, multiple=channel_multiple
    )
    run = PruningRun(
        structure,
        listed,
        counts,
        settings,
        batches,
        progress,
        on_layer,
        tune=tune,
        state=state,
        on_state=on_state,
        rank=rank() if together else 0,
        world=world_size() if together else 1,
    )
    traced = time.perf_counter()
    with torch.no_grad(), evaluation_mode(net):
        result = run.prune()
    _restore_modes(net, result.net)
    result.seconds = {"trace": traced - start, "prune": time.perf_counter() - traced}
    return result


def _on_device(batches: Iterable[ExampleInputs], net: nn.Module) -> list[ExampleInputs]:
    device = next((t.device for t in net.parameters()), torch.device("cpu"))
    if isinstance(batches, (Tensor, str, Mapping)) or not isinstance(batches, Iterable):
        raise UserError(
            f"calibration_batches: {type(batches).__name__} given; a list of batches is accepted, such as "
            "images.split(64)"
        )
    moved = [pytree.tree_map_only(Tensor, lambda t: t.to(device), batch) for batch in batches]
    if not moved or not all(t.numel() for t in pytree.tree_leaves(moved[0]) if isinstance(t, Tensor)):
        raise UserError("calibration_batches: empty; at least one batch of inputs is needed")
    return moved


def _check_alike(batches: list[ExampleInputs], traced: TracedNet) -> None:
    """Run one batch of every shape there is.

    Raises:
        UserError: the network does not take it.
    """
    known: set[Any] = set()
    for number, batch in enumerate(batches):
        leaves, spec = pytree.tree_flatten(batch)
        looks = tuple((t.shape[1:], t.dtype) if isinstance(t, Tensor) else type(t) for t in leaves)
        if (str(spec), looks) not in known:
            known.add((str(spec), looks))
            try:
                execution.run(traced, batch)
            except UserError:
                raise
            except Exception as error:  # operators raise whatever they like
                shapes = ", ".join(map(describe_input, leaves))
                raise UserError(
                    f"calibration_batches[{number}] ({shapes}): the network does not take it: {first_line(error)}"
                ) from error


def _first_two(batch: ExampleInputs) -> ExampleInputs:
    """Two inputs of a batch, enough to trace with."""
    return pytree.tree_map_only(Tensor, lambda t: t[:2] if t.dim() else t, batch)


def _restore_modes(net: nn.Module, pruned: nn.Module) -> None:
    """Give the pruned network's modules the modes of the caller's."""
    modes = {name: module.training for name, module in net.named_modules()}
    for name, module in pruned.named_modules():
        module.training = modes.get(name, net.training)
