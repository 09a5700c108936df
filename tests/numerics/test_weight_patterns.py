"""Weights masked in patterns: exact counts, hand-made places, and the tables of NNI's tests."""

import pytest
import torch

from pocketprune.common.errors import UserError
from pocketprune.numerics.projections import SparseSet
from pocketprune.numerics.weight_patterns import Pattern, least_masked, pack, unpack


def test_counts_are_exact_locally_and_globally():
    """As NNI's tests of random metrics ask: 25 and 250 stay locally, 275 globally, and 0.6 by balance."""
    scores = [torch.rand(5, 1, 5, 5), torch.rand(10, 5, 5, 5)]
    single = Pattern.parse("unstructured")
    local = [least_masked([s], single, 0.8)[0] for s in scores]
    assert [int((~m).sum()) for m in local] == [25, 250]
    together = least_masked(scores, single, 0.8)
    assert sum(int((~m).sum()) for m in together) == 275
    kept = torch.cat([s[~m] for s, m in zip(scores, together, strict=True)])
    gone = torch.cat([s[m] for s, m in zip(scores, together, strict=True)])
    assert kept.min() > gone.max()
    balanced = Pattern.parse("2:5")
    masked = least_masked([torch.rand(4, 10)], balanced, balanced.largest_level)[0]
    assert balanced.largest_level == 0.6
    assert masked.view(4, 2, 5).sum(2).unique().tolist() == [3]


def test_equal_scores_go_in_order():
    masked = least_masked([torch.ones(2, 3)], Pattern(), 0.5)[0]
    assert masked.tolist() == [[True, True, True], [False, False, False]]


def test_two_of_four_neighbouring_inputs_stay_at_every_tap():
    scores = torch.rand(3, 8, 3, 3)
    masked = least_masked([scores], Pattern.parse("2:4"), 0.5)[0]
    groups = masked.view(3, 2, 4, 3, 3)
    assert (groups.sum(2) == 2).all()
    assert (
        scores.view(3, 2, 4, 3, 3).masked_fill(groups, 9).amin(2)
        >= scores.view(3, 2, 4, 3, 3).masked_fill(~groups, 0).amax(2)
    ).all()
    half = least_masked([scores], Pattern.parse("2:4"), 0.25)[0]
    assert set(half.view(3, 2, 4, 3, 3).sum(2).unique().tolist()) == {0, 2}
    assert half.float().mean() == 0.25


def test_blocks_go_whole():
    scores = torch.tensor([[1.0, 1, 5, 5], [1, 2, 5, 5], [0, 9, 2, 2], [9, 9, 2, 2]])
    masked = least_masked([scores], Pattern.parse("2x2"), 0.5)[0]
    assert masked.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    tall = least_masked([scores], Pattern.parse("4x1"), 0.25)[0]
    assert tall.int().tolist() == [[1, 0, 0, 0]] * 4


@pytest.mark.parametrize("text", ["2x", "4:2", "0x1", "2:2", "blocks", "", 3])
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(UserError, match=r"^pattern: .* given; "):
        Pattern.parse(text)


def test_a_misfit_says_what_does_not_divide():
    assert Pattern.parse("2:4").misfit((16, 3, 3, 3)) == "it has 3 inputs, which 4 does not divide"
    assert Pattern.parse("4x1").misfit((10, 3)) == "it has 10 outputs, which 4 does not divide"
    assert Pattern.parse("4x1").misfit((12, 3)) == ""


@pytest.mark.parametrize("shape", [(1,), (3, 5), (8, 8), (7, 3, 3, 3)])
def test_packed_masks_take_an_eighth_and_come_back(shape):
    mask = torch.rand(shape) < 0.5
    packed = pack(mask)
    assert packed.dtype == torch.uint8
    assert packed.numel() == -(-mask.numel() // 8)
    assert torch.equal(unpack(packed, shape), mask)


@pytest.mark.parametrize(("kind", "count"), [("weights", 24), ("filters", 24), ("channels", 24)])
def test_the_nearest_point_of_a_set_keeps_what_is_largest(kind, count):
    weight = torch.randn(4, 6, 2)
    nearest = SparseSet(kind, 0.5).nearest(weight)
    assert int((nearest == 0).sum()) == count
    rivals = (SparseSet(kind, 0.5).nearest(torch.randn(4, 6, 2)) != 0 for _ in range(50))
    assert all((weight - nearest).norm() <= (weight - weight * rival).norm() for rival in rivals)
    assert torch.equal(SparseSet(kind, 0.5).nearest(nearest), nearest)


def test_a_set_of_filters_never_holds_only_zeros():
    assert SparseSet("filters", 0.99).nearest(torch.randn(4, 3)).any()
