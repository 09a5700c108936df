"""Random networks of all operators through the oracle."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.structure.generator import build
from tests.structure.generator_maps import MAPS
from tests.structure.generator_moves import MOVES
from tests.structure.generator_tokens import TOKENS, VECTORS
from tests.structure.oracle import analysed, assert_exact, drop_some, randomise

KINDS = {"map": {**MAPS, **MOVES}, "tokens": TOKENS, "vector": VECTORS}

COMPOSED: Counter[str] = Counter()
"""Operators of the generator -> random networks of this session that they occur in."""


def _check(data: st.DataObject, most: int) -> None:
    """One random network: analysed, then thinned several times, at the traced batch size and at another."""
    torch.manual_seed(0)
    net = build(
        lambda options: options[data.draw(st.integers(0, len(options) - 1))], KINDS, data.draw(st.integers(3, most))
    )
    attention = data.draw(st.sampled_from(["heads", "widths"]))
    note(f"attention={attention}: {' '.join(net.story)}")
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    net = randomise(net, generator)
    examples = [net.example(batch, generator) for batch in (2, 5)]
    structure = analysed(net, examples[0], attention=attention)
    for groups in (None, 1, 2):
        if dropped := drop_some(structure, generator, groups):
            assert_exact(structure, dropped, examples)
    COMPOSED.update({operator.partition("(")[0] for operator in net.story})


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(st.data())
def test_random_networks(data: st.DataObject) -> None:
    _check(data, most=8)


@settings(max_examples=600, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(st.data())
def _many(data: st.DataObject) -> None:
    _check(data, most=14)


@pytest.mark.slow
def test_many_random_networks() -> None:
    COMPOSED.clear()
    _many()
    assert min(COMPOSED[name] for operators in KINDS.values() for name in operators) >= 3
