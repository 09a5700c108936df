"""Compact versions of the families people use, through the oracle."""

from __future__ import annotations

import pytest
import torch

from tests.structure.families import CONVOLUTIONAL
from tests.structure.families_dense import DENSE
from tests.structure.families_modern import MODERN
from tests.structure.oracle import analysed, assert_exact, drop_some, randomise

FAMILIES = CONVOLUTIONAL | MODERN | DENSE
WIDTHS = ("vit", "swin", "torch_encoder")


@pytest.mark.parametrize(
    ("name", "attention"), [*((name, "heads") for name in FAMILIES), *((name, "widths") for name in WIDTHS)]
)
def test_removal_is_exact(name: str, attention: str) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    net = randomise(FAMILIES[name](), generator)
    examples = [torch.randn(batch, 3, 16, 16, dtype=torch.float64, generator=generator) for batch in (2, 3)]
    structure = analysed(net, examples[0], attention=attention)
    stays = [g for g in structure.groups if not g.prunable and g.reason != "network output"]
    assert all("statistics" in g.reason or g.reason == "it has one channel" for g in stays)
    assert sum(g.prunable for g in structure.groups) > 2
    for groups in (None, 2):
        assert_exact(structure, drop_some(structure, generator, groups), examples)
