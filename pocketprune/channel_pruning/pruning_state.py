"""A pruning run's progress as tensors and plain values, so that an interrupted run goes on to the same result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pocketprune.channel_pruning.outcome import LayerResult
from pocketprune.common.errors import UserError
from pocketprune.training.checkpoint import compare_configs
from pocketprune.training.distributed import gather_objects

if TYPE_CHECKING:
    from pocketprune.channel_pruning.layerwise import PruningRun

FORMAT = 1  # of a state; to be raised when what state_of returns changes


def state_of(run: PruningRun) -> dict[str, Any]:
    """What decides the rest of the run. To be called in every process: each adds its generator."""
    names = {layer.node: layer.weight for layer in run.structure.contractions}
    return {
        "format": FORMAT,
        "of": run.identity,
        "done": run.done,
        "tuned": run.tuned,
        "tensors": {name: tensor.detach().clone() for name, tensor in run.pruned.tensors.items()},
        "biases": {names[node]: bias.detach().clone() for node, bias in run.pruned.biases.items()},
        "removed": torch.from_numpy(run.removed.copy()),
        "samplers": {name: list(inputs) for name, inputs in run.samplers.items()},
        "results": [asdict(result) for result in run.results.values()],
        "choices": run.generator.get_state(),
        "positions": _everyones(run, run.draw.generator.get_state()),
    }


def load_state(run: PruningRun, state: Mapping[str, Any]) -> None:
    """Put a fresh run where the state was taken.

    Raises:
        UserError: it is of another format, of other settings, another network or other calibration inputs.
    """
    if state.get("format") != FORMAT:
        raise UserError(f"state of an interrupted pruning: of format {state.get('format')}; accepted is {FORMAT}")
    lines = [line.removeprefix("--") for line in compare_configs(state.get("of", {}), run.identity)]
    if lines:
        raise UserError(f"state of an interrupted pruning: of another run: {'; '.join(lines[:3])}")
    nodes = {layer.weight: layer.node for layer in run.structure.contractions}
    listed = {layer.index: layer.layer.node for layer in run.layers}
    run.done, run.tuned = state["done"], state["tuned"]
    run.pruned.tensors = {name: tensor.to(run.device) for name, tensor in state["tensors"].items()}
    run.pruned.biases = {nodes[name]: bias.to(run.device) for name, bias in state["biases"].items()}
    run.removed = state["removed"].numpy().copy()
    run.samplers = {name: list(inputs) for name, inputs in state["samplers"].items()}
    for saved in state["results"]:
        result = LayerResult(**{**saved, "kept_index": tuple(saved["kept_index"])})
        run.results[listed[result.index]] = result
    run.generator.set_state(state["choices"])
    run.draw.generator.set_state(state["positions"][run.calibration.rank])


def identity_of(run: PruningRun) -> dict[str, Any]:
    """By what a run is known again: its settings, its network and all processes' inputs."""
    settings = asdict(run.settings)
    del settings["cache_gb"]  # where values are held does not touch them
    counts = {f"kept channels of {layer.name}": run.counts[layer.layer.node] for layer in run.layers}
    images = [("", t) for t in pytree.tree_leaves(run.calibration.batches) if isinstance(t, Tensor)]
    return (
        settings
        | counts
        | {
            "attention": run.structure.attention,
            "processes": run.calibration.world,
            "dense network": _digest(run.structure.traced.named_tensors().items()),
            "calibration inputs": _everyones(run, _digest(images)),
        }
    )


def _everyones(run: PruningRun, value: Any) -> list[Any]:
    """The values of all processes of the run, by rank."""
    return gather_objects(value) if run.calibration.world > 1 else [value]


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """A few characters that differ where the named tensors do."""
    known = hashlib.sha256()
    for name, tensor in tensors:
        known.update(name.encode())
        known.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return known.hexdigest()[:16]
