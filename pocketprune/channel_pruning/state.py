"""The state of a pruning, also as tensors and plain values from which an interrupted one resumes to the same result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from pocketprune.channel_pruning.calibration import Calibration, Positions
from pocketprune.channel_pruning.cut import Cut
from pocketprune.channel_pruning.plan import Plan
from pocketprune.channel_pruning.results import LayerResult
from pocketprune.common.errors import UserError
from pocketprune.training.checkpoint import compare_configs

FORMAT = 3  # of a state; raise it when what `as_state` returns changes
FREE_OPTIONS = ("cache_gb", "check", "together")  # they do not change the result


class StateError(UserError):
    """The state to resume from cannot be used."""


@dataclass
class PruningState:
    """The state of a pruning under way.

    Attributes:
        cut: the decisions so far.
        results: node -> result, for the prunable layers that are solved.
        done: number of decided stops.
        chosen: weight name -> selected units, for stops that are solved again because their inputs have changed.
        tuned: number of tuned groups.
        promised: held-out error of the layer that writes the network's output; None before that layer, or if no layer
            writes the output.
        scarce: name -> (rows, unknowns) of the refitted layers that have fewer rows than unknowns.
        positions: the source of sampled positions. Each process has its own one.
        choices: the generator of random selection, the same in every process.
    """

    cut: Cut
    positions: Positions
    choices: torch.Generator
    results: dict[fx.Node, LayerResult] = field(default_factory=dict)
    done: int = 0
    chosen: dict[str, list[int]] = field(default_factory=dict)
    tuned: int = 0
    promised: float | None = None
    scarce: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def start(cls, plan: Plan, rank: int) -> PruningState:
        """Return the state of a pruning that has not begun."""
        options, device = plan.options, plan.structure.traced.device
        positions = Positions(options.points_per_layer, options.seed + rank, device)
        return cls(Cut.nothing(plan.structure), positions, torch.Generator().manual_seed(options.seed))


def as_state(plan: Plan, state: PruningState, calibration: Calibration, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that decides the rest of a pruning. Every process must call this, as each adds its generator."""
    return {
        "format": FORMAT,
        "of": dict(identity),
        "done": state.done,
        "tuned": state.tuned,
        "chosen": dict(state.chosen),
        "promised": state.promised,
        "scarce": {name: list(numbers) for name, numbers in state.scarce.items()},
        "cut": state.cut.state_dict(plan.structure),
        "results": [asdict(result) for result in state.results.values()],
        "choices": state.choices.get_state(),
        "positions": calibration.gather(state.positions.generator.get_state()),
    }


def from_state(
    plan: Plan, saved: Mapping[str, Any], calibration: Calibration, identity: Mapping[str, Any]
) -> PruningState:
    """Return the state from which `as_state` made `saved`.

    Raises:
        StateError: the state is incomplete, or of another format, other options, another network or other images.
    """
    if saved.get("format") != FORMAT:
        raise StateError(f"of format {saved.get('format')}; accepted is {FORMAT}", argument="state")
    lines = compare_configs(saved.get("of", {}), identity)
    if lines:
        raise StateError(f"of another pruning: {'; '.join(lines[:3])}", argument="state")
    state = PruningState.start(plan, calibration.rank)
    nodes = {layer.index: layer.layer.node for layer in plan.layers}
    try:
        state.cut = Cut.from_state(saved["cut"], plan.structure)
        for row in saved["results"]:
            result = LayerResult(**{**row, "kept_index": tuple(row["kept_index"])})
            state.results[nodes[result.index]] = result
        state.done, state.tuned, state.promised = saved["done"], saved["tuned"], saved["promised"]
        state.chosen = dict(saved["chosen"])
        state.scarce = {name: (rows, unknowns) for name, (rows, unknowns) in saved["scarce"].items()}
        state.choices.set_state(saved["choices"])
        state.positions.generator.set_state(saved["positions"][calibration.rank])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"incomplete or malformed ({type(error).__name__}: {error})", argument="state") from error
    return state


def identity_of(plan: Plan, calibration: Calibration) -> dict[str, Any]:
    """Return what two prunings must share for one to resume the other: options, network and all images."""
    options = {name: value for name, value in asdict(plan.options).items() if name not in FREE_OPTIONS}
    counts = {f"kept channels of {layer.name}": plan.counts[layer.layer.node] for layer in plan.layers}
    images = [("", t) for t in pytree.tree_leaves(calibration.batches) if isinstance(t, Tensor)]
    return (
        options
        | counts
        | {
            "processes": calibration.world,
            "dense network": _digest(plan.structure.traced.named_tensors().items()),
            "calibration inputs": calibration.gather(_digest(images)),
        }
    )


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return a few characters that differ if the named tensors do."""
    known = hashlib.sha256()
    for name, tensor in tensors:
        known.update(name.encode())
        known.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return known.hexdigest()[:16]
