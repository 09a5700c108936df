"""Evidence on channel groups, gathered from a network and, where a criterion needs that, from a few batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode
from pocketprune.compression.closed_form import groups_with_readers
from pocketprune.compression.measuring import MEASURES, activation_views
from pocketprune.compression.questions import Question, Source
from pocketprune.compression.views import View
from pocketprune.graph.accepting import check_accepted
from pocketprune.numerics.criteria import unit_norm
from pocketprune.numerics.evidence import ConsumerSlice, Evidence

STREAMED = frozenset(("rectifiers", "activations", "gradients", "moments"))
"""The parts that batches are needed for."""

NEEDED = {
    "filters": "weights to write or read",
    "gradients": "weights to write or read",
    "consumers": "layers to read",
    "norms": "batch norms after",
    "rectifiers": "rectifiers after",
    "activations": "activations after",
    "moments": "a plain convolution or linear layer, with a weight of its own, to read",
}
"""Part of the evidence -> what a group must have for it, in words that go before "the channels"."""


def check(questions: Sequence[Question], source: Source) -> None:
    """Check that what a criterion needs is there, for questions with one criterion.

    Raises:
        UserError: it is not; the message names the group.
    """
    criterion, part = questions[0].criterion, questions[0].part
    readable = groups_with_readers(source.structure) if part == "moments" else set()
    for question in questions:
        views = question.views
        found = {
            "filters": views.side(question.side),
            "gradients": views.side(question.side),
            "consumers": views.columns,
            "norms": views.norms,
            "rectifiers": part == "rectifiers" and activation_views(source.structure, views, part),
            "activations": part == "activations" and activation_views(source.structure, views, part),
            "moments": views.group.name in readable,
            "nothing": True,
        }
        if not found[part]:
            raise UserError(
                f"'{criterion}' needs {NEEDED[part]} the channels, and group '{views.group.name}' has none",
                argument="criterion",
            )
    if part in STREAMED:
        _check_batches(criterion, part, source)


def _check_batches(criterion: str, part: str, source: Source) -> None:
    if source.batches is None:
        raise UserError(f"none given; '{criterion}' needs some", argument="batches")
    first = next(iter(source.each()), None)
    if first is None:
        raise UserError(f"empty; '{criterion}' needs at least one", argument="batches")
    if part == "gradients" and first[1] is None:
        raise UserError(f"without labels; '{criterion}' needs pairs of inputs and labels", argument="batches")
    with evaluation_mode(source.structure.traced.net):
        check_accepted(source.structure.traced, [first[0]])


def gather(questions: Sequence[Question], source: Source) -> list[Evidence]:
    """Return the evidence on each question; each kind of statistics takes one pass over the batches.

    Under several processes the statistics are those of all processes' batches.

    Raises:
        UserError: labels are needed and not given.
    """
    own = source.structure.traced.named_tensors()
    found = [_at_hand(question, own) for question in questions]
    for part, measure in MEASURES.items():
        asked = [number for number, question in enumerate(questions) if question.part == part]
        if asked:
            for number, values in zip(asked, measure([questions[n] for n in asked], source), strict=True):
                found[number] = replace(found[number], **values)
    return found


def _at_hand(question: Question, own: Mapping[str, Tensor]) -> Evidence:
    """Return what the network's tensors tell."""
    views, part = question.views, question.part
    filters: list[Tensor] = []
    if part == "filters":
        filters = [view.rows(own[view.tensor].detach()) for view in views.side(question.side)]
    consumers = [_consumer(view, own[view.tensor]) for view in views.columns] if part == "consumers" else []
    scales = [view.rows(own[view.tensor].detach()) for view in views.norms] if part == "norms" else []
    return Evidence(
        channels=views.group.size,
        filters=[unit_norm(rows) for rows in filters] if question.unit_norm else filters,
        consumers=consumers,
        norm_scales=[scale.abs().mean(1) for scale in scales],
        aggregate=question.aggregate,
        generator=torch.Generator().manual_seed(question.seed),
    )


def _consumer(view: View, weight: Tensor) -> ConsumerSlice:
    """Return a column view as a weight (c, n) whose row holds all that reads one channel."""
    return ConsumerSlice(view.rows(weight.detach()), 1)
