"""Evidence on channel groups, gathered from a network and, where a criterion needs that, from a few batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.compression.measuring import MEASURES, activation_views
from pocketprune.compression.questions import Question, Source
from pocketprune.compression.views import View
from pocketprune.numerics.criteria import unit_norm
from pocketprune.numerics.evidence import ConsumerSlice, Evidence

STREAMED = frozenset(("rectifiers", "activations", "gradients", "moments"))
"""The parts that batches are needed for."""


def check(question: Question, source: Source) -> None:
    """Check that what a criterion needs is there.

    Raises:
        UserError: it is not; the message names the group.
    """
    views, part = question.views, question.part
    present: dict[str, tuple[Any, str]] = {
        "filters": (views.side(question.side), "weights that " + ("write" if question.side == "filters" else "read")),
        "gradients": (views.side(question.side), "weights that write or read"),
        "consumers": (views.columns, "layers that read"),
        "norms": (views.norms, "batch norms after"),
        "rectifiers": (True, ""),
        "activations": (True, ""),
    }
    found, words = present.get(part, (True, ""))
    if part in ("rectifiers", "activations"):
        found, words = activation_views(source.structure, views, part), f"{part} after"
    if not found:
        raise UserError(
            f"'{question.criterion}' needs {words} the channels, and group '{views.group.name}' has none",
            argument="criterion",
        )
    if part in STREAMED and source.batches is None:
        raise UserError(f"none given; '{question.criterion}' needs some", argument="batches")


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
