"""What criteria need and a network's tensors alone do not tell, measured on a few batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode
from pocketprune.compression.closed_form import measured_consumers
from pocketprune.compression.questions import Question, Source
from pocketprune.compression.views import GroupViews, View
from pocketprune.graph.execution import Env, run
from pocketprune.graph.nodes import operator_name
from pocketprune.graph.tracing import split_inputs
from pocketprune.numerics.evidence import ActivationStatistics, GradientStatistics
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.propagation import Identified, varying
from pocketprune.training.distributed import all_reduce_sum, world_size

RECTIFIERS = frozenset(("relu", "relu6", "hardtanh", "clamp", "clamp_min", "threshold"))
ACTIVATIONS = RECTIFIERS | frozenset(
    ("silu", "gelu", "hardswish", "elu", "selu", "celu", "leaky_relu", "mish", "softplus", "tanh", "prelu")
)
"""Operators whose outputs count as activations. The sigmoids of gates do not."""


def _gradients(questions: Sequence[Question], source: Source) -> list[dict[str, Any]]:
    """Measure gradient statistics in evaluation mode; the parameters' own gradients are left alone."""
    net, own = source.structure.traced.net, source.structure.traced.named_tensors()
    sides = [question.views.side(question.side) for question in questions]
    names = list(dict.fromkeys(view.tensor for side in sides for view in side))
    totals: list[list[GradientStatistics | None]] = [[None] * len(side) for side in sides]
    with evaluation_mode(net), torch.enable_grad(), _requiring_grad([own[name] for name in names]):
        for inputs, labels in source.each():
            if labels is None:
                raise UserError(
                    f"without labels; '{questions[0].criterion}' needs pairs of inputs and labels", argument="batches"
                )
            args, kwargs = split_inputs(inputs)
            loss = source.loss(net(*args, **kwargs), labels)
            found = torch.autograd.grad(loss, [own[name] for name in names], materialize_grads=True)
            of_name = dict(zip(names, found, strict=True))
            for side, total in zip(sides, totals, strict=True):
                for place, view in enumerate(side):
                    batch = GradientStatistics.of(view.rows(own[view.tensor]), view.rows(of_name[view.tensor]))
                    known = total[place]
                    total[place] = batch if known is None else known + batch
    return [{"gradients": [_summed(statistics) for statistics in total if statistics]} for total in totals]


@contextmanager
def _requiring_grad(tensors: Sequence[Tensor]) -> Any:
    """Let frozen parameters take part in a backward, inside only."""
    frozen = [tensor for tensor in tensors if not tensor.requires_grad]
    for tensor in frozen:
        tensor.requires_grad_(True)
    try:
        yield
    finally:
        for tensor in frozen:
            tensor.requires_grad_(False)


def _activations(questions: Sequence[Question], source: Source) -> list[dict[str, Any]]:
    """Measure statistics of activations in evaluation mode."""
    places = [activation_views(source.structure, q.views, q.part) for q in questions]
    nodes = {node for views in places for node in views}
    totals: list[dict[fx.Node, ActivationStatistics]] = [{} for _ in questions]
    for inputs, _ in source.each():
        seen: set[fx.Node] = set()

        def look(node: fx.Node, env: Env, seen: set[fx.Node] = seen) -> None:
            for read in nodes.intersection(node.all_input_nodes) - seen:
                seen.add(read)
                for views, total in zip(places, totals, strict=True):
                    if read in views:
                        batch = ActivationStatistics.of(views[read].rows(env[read]), 0)
                        total[read] = total[read] + batch if read in total else batch

        run(source.structure.traced, inputs, before=look)
    return [
        {"activations": [_summed(total[node]) for node in views if node in total]}
        for views, total in zip(places, totals, strict=True)
    ]


def activation_views(structure: Structure, views: GroupViews, part: str) -> dict[fx.Node, View]:
    """Return node -> view of a group's channels, for the rectifiers or activations on them, in forward order."""
    accepted = RECTIFIERS if part == "rectifiers" else ACTIVATIONS
    found = {}
    for node in structure.traced.call_nodes():
        value = structure.values.get(node)
        if operator_name(node) in accepted and isinstance(value, Identified) and _starts_at_zero(node):
            view = _view_of(structure, views, node, value)
            if view is not None:
                found[node] = view
    return found


def _starts_at_zero(node: fx.Node) -> bool:
    """Return whether a clamp's lower end is 0; other operators pass."""
    if operator_name(node) not in ("hardtanh", "clamp", "clamp_min", "threshold"):
        return True
    lowest: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("min", node.kwargs.get("min_val"))
    return isinstance(lowest, (int, float)) and lowest == 0


def _view_of(structure: Structure, views: GroupViews, node: fx.Node, value: Identified) -> View | None:
    """Return where the group's channels lie along the one axis of a value that they vary along."""
    for facet in value.facets:
        axes = varying(facet)
        if len(axes) != 1:
            continue
        ids = facet[tuple(slice(None) if d == axes[0] else 0 for d in range(facet.dim()))]
        labels = structure.class_of(ids)
        places = [np.flatnonzero(labels == label) for label in views.group.classes]
        if len(places[0]) and len({len(place) for place in places}) == 1:
            return View(node.name, axes[0], torch.from_numpy(np.stack(places)))
    return None


def _summed(statistics: Any) -> Any:
    """Return statistics summed over the processes."""
    if world_size() == 1:
        return statistics
    device = next(value.device for value in vars(statistics).values() if isinstance(value, Tensor))
    values = {n: torch.as_tensor(v, dtype=torch.float64, device=device).clone() for n, v in vars(statistics).items()}
    return type(statistics)(**{name: all_reduce_sum(value) for name, value in values.items()})


def _moments(questions: Sequence[Question], source: Source) -> list[dict[str, Any]]:
    """Measure the moments of the consumers."""
    views = [question.views for question in questions]
    with evaluation_mode(source.structure.traced.net), torch.no_grad():
        found = measured_consumers(source.structure, views, [inputs for inputs, _ in source.each()])
    return [{"consumers": found[v.group.name]} for v in views]


MEASURES: dict[str, Callable[[Sequence[Question], Source], list[dict[str, Any]]]] = {
    "gradients": _gradients,
    "rectifiers": _activations,
    "activations": _activations,
    "moments": _moments,
}
"""Part of the evidence -> how it is measured on batches."""
