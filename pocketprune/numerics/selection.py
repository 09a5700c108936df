"""The former door to the criteria; ``pocketprune.numerics.criteria.kept_channels`` takes its place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pocketprune.numerics.criteria import CONSUMER_CRITERIA, kept_channels
from pocketprune.numerics.evidence import ConsumerSlice, Evidence
from pocketprune.numerics.moments import Moments

METHODS = tuple(CONSUMER_CRITERIA)


def select(
    method: str,
    moments: Sequence[Moments],
    weights: Sequence[Tensor],
    blocks: Sequence[int],
    count: int,
    *,
    output_weights: Sequence[Tensor | None] | None = None,
    ridge: float = 1e-6,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return ``kept_channels`` of evidence given as one list for each part of the consumers."""
    weighted = output_weights if output_weights is not None else [None] * len(weights)
    consumers = [ConsumerSlice(w, b, m, o) for m, w, b, o in zip(moments, weights, blocks, weighted, strict=True)]
    evidence = Evidence(
        channels=weights[0].shape[0] // blocks[0], consumers=consumers, ridge=ridge, generator=generator
    )
    return kept_channels(method, evidence, count)
