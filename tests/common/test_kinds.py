"""Numbers fill numbers of their own kind only."""

import pytest
import torch

from pocketprune.common.errors import UserError
from pocketprune.common.kinds import refuse_other_kinds
from tests.common.hostile import odd_tensors

ODD = odd_tensors((2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_width_of_floating_point_will_do(dtype: torch.dtype) -> None:
    refuse_other_kinds({"w": torch.ones(2, dtype=dtype)}, {"w": torch.ones(2)}, "file")


@pytest.mark.parametrize("kind", ODD)
def test_other_kinds_are_named_and_fill_their_like(kind: str) -> None:
    with pytest.raises(UserError) as caught:
        refuse_other_kinds({"layer.weight": ODD[kind]}, {"layer.weight": torch.ones(2, 3)}, "file")
    assert str(caught.value) == f"file: tensor 'layer.weight' is {kind}; expected float32"
    refuse_other_kinds({"layer.weight": ODD[kind]}, {"layer.weight": ODD[kind]}, "file")


def test_fractions_do_not_become_indices_but_a_batch_counter() -> None:
    refuse_other_kinds({"bn.num_batches_tracked": torch.tensor(1.5)}, {"bn.num_batches_tracked": torch.tensor(0)}, "x")
    with pytest.raises(UserError, match="tensor 'index' is float32; expected int64"):
        refuse_other_kinds({"index": torch.tensor([1.5])}, {"index": torch.tensor([0])}, "x")
