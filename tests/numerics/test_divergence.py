"""The divergence of outputs of any structure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.numerics.divergence import class_divergence, output_divergence, relative_error


@dataclass
class Boxes:
    scores: Tensor
    places: list[Tensor]
    note: str = ""


def _boxes(shift: float) -> Boxes:
    made = torch.Generator().manual_seed(0)
    return Boxes(torch.randn(4, 3, 5, 5, generator=made) + shift, [torch.randn(4, 6, 2, generator=made)])


def test_class_scores_are_compared_as_probabilities() -> None:
    found, wanted = torch.randn(5, 4), torch.randn(5, 4)
    p, q = wanted.softmax(1), found.softmax(1)
    assert output_divergence(found, wanted) == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=1e-4)
    assert output_divergence(found + 3, found) == pytest.approx(0, abs=1e-6)
    maps = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    rows = [each.movedim(1, -1).reshape(-1, 4) for each in maps]
    assert class_divergence(*maps) == pytest.approx(class_divergence(*rows), rel=1e-5)


def test_anything_else_by_the_squared_error_over_the_variance_of_each_channel() -> None:
    wanted = torch.randn(6, 3, 4, 4) * torch.tensor([1.0, 10.0, 0.1]).reshape(3, 1, 1) + 7
    constant = wanted.mean((0, 2, 3), keepdim=True).expand_as(wanted)
    assert relative_error(constant, wanted) == pytest.approx(1, rel=1e-4)
    nested = {"maps": (wanted, [wanted]), "count": torch.tensor(3)}
    half = {"maps": (wanted, [constant]), "count": torch.tensor(4)}
    assert output_divergence(half, nested) == pytest.approx(0.5, rel=1e-4)
    assert output_divergence(_boxes(0), _boxes(0)) == 0
    assert output_divergence(_boxes(1), _boxes(0)) > 0
    assert relative_error(torch.ones(3, 1), torch.zeros(3, 1)) == math.inf
    assert relative_error(torch.zeros(3, 1), torch.zeros(3, 1)) == 0


@pytest.mark.parametrize(("found", "wanted", "said"), [
    ({"a": torch.ones(1)}, {"b": torch.ones(1)}, "outputs['b'] differ in structure: nothing and a tensor (1,)"),
    ([torch.ones(2, 3)], [torch.ones(2, 4)], "outputs[0] differ in structure: a tensor (2, 3) and a tensor (2, 4)"),
    (Boxes(torch.ones(1), []), Boxes(torch.ones(1), [torch.ones(1)]), "outputs.places[0] differ"),
])  # fmt: skip
def test_outputs_of_other_structure_are_refused_by_name(found: object, wanted: object, said: str) -> None:
    with pytest.raises(UserError) as refused:
        output_divergence(found, wanted)
    assert said in str(refused.value)
