from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketprune.numerics.moments import Moments, all_reduce
from pocketprune.numerics.patches import output_rows, patches
from tests.numerics.samples import assert_same, make_rows, moments_of


def test_streamed_batches_equal_the_definition() -> None:
    x, _, y = make_rows(noise=0.3)
    moments = Moments.zeros(x.shape[1], y.shape[1])
    for part_x, part_y in zip(x.split(37), y.split(37), strict=True):
        moments.update(part_x, part_y)
    u, v = x - x.mean(0), y - y.mean(0)
    assert_same(moments, Moments(len(x), x.mean(0), y.mean(0), u.T @ u, u.T @ v, v.square().sum(0)), 1e-13)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(5)), st.lists(st.integers(1, 90), min_size=4, max_size=4, unique=True))
def test_merge_does_not_depend_on_order_or_cuts(order: list[int], cuts: list[int]) -> None:
    x, _, y = make_rows(channels=3, block=2, rows=91, mean=5.0)
    bounds = [0, *sorted(cuts), 91]
    parts = [moments_of(x[a:b], y[a:b]) for a, b in pairwise(bounds)]
    merged = Moments.zeros(x.shape[1], y.shape[1])
    for place in order:
        merged.merge(parts[place])
    assert_same(merged, moments_of(x, y), 1e-12)


def test_merging_nothing_changes_nothing_and_the_other_is_left_alone() -> None:
    x, _, y = make_rows(rows=30)
    moments, other = moments_of(x[:10], y[:10]), moments_of(x[10:], y[10:])
    before = other.A.clone()
    moments.merge(Moments.zeros(x.shape[1], y.shape[1]))
    assert_same(moments, moments_of(x[:10], y[:10]), 0.0)
    moments.merge(other)
    moments.update(x[:0], y[:0])
    assert_same(moments, moments_of(x, y), 1e-12)
    assert torch.equal(other.A, before)


def test_float32_rows_with_a_large_mean_keep_their_digits() -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(4000, 12, generator=generator) + 50).float()
    y = x[:, :3] * 0.5 + 20
    exact = moments_of(x.double(), y.double())
    streamed = Moments.zeros(12, 3)
    for part_x, part_y in zip(x.split(500), y.split(500), strict=True):
        streamed.update(part_x, part_y)
    assert_same(streamed, exact, 1e-6)


def test_convolution_with_all_positions_equals_rows_with_a_large_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 5, 12, 11, generator=generator) + 50
    weight = torch.randn(4, 5, 3, 3, generator=generator)
    y = F.conv2d(x.double(), weight.double())
    rows = moments_of(patches(x.double(), (3, 3), (1, 1), (0, 0), (1, 1)), output_rows(y, None))
    moments = Moments.zeros(45, 4)
    for images in (slice(0, 3), slice(3, 8)):
        moments.update_conv(x[images], y[images].float(), (3, 3), (1, 1), (0, 0), (1, 1))
    assert_same(moments, rows, 2e-6)


@pytest.mark.parametrize("per_image", [False, True])
def test_convolution_at_chosen_positions_equals_rows(per_image: bool) -> None:
    x = torch.randn(6, 3, 7, 8, dtype=torch.float64)
    y = torch.randn(6, 2, 4, 4, dtype=torch.float64)
    positions = torch.randint(0, 16, (6, 5) if per_image else (5,))
    geometry = ((3, 3), (2, 2), (1, 1), (1, 1))
    moments = Moments.zeros(27, 2)
    moments.update_conv(x, y, *geometry, positions)
    assert moments.count == 30
    assert_same(moments, moments_of(patches(x, *geometry, positions), output_rows(y, positions)), 0.0)


def test_half_precision_inputs_and_gradients_are_handled() -> None:
    x = torch.randn(4, 2, 5, 5, requires_grad=True)
    y = torch.randn(4, 3, 5, 5).bfloat16()
    moments = Moments.zeros(18, 3)
    moments.update_conv(x, y, (3, 3), (1, 1), (1, 1), (1, 1))
    assert not moments.A.requires_grad
    assert bool(torch.isfinite(moments.B).all())


def test_rows_of_the_wrong_shape_are_refused() -> None:
    moments = Moments.zeros(4, 2)
    with pytest.raises(ValueError, match="cannot take rows"):
        moments.update(torch.zeros(3, 5), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"rows must be \(m, d\)"):
        moments.update(torch.zeros(3, 4), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="expected outputs of shape"):
        moments.update_conv(torch.zeros(1, 4, 5, 5), torch.zeros(1, 2, 4, 5), (1, 1), (1, 1), (0, 0), (1, 1))
    with pytest.raises(ValueError, match="cannot take rows"):
        moments.merge(Moments.zeros(4, 3))


def _reduce(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    x, _, y = make_rows(noise=0.3, mean=50.0)
    mine = slice(0, 150) if rank == 0 else slice(150, None)
    share = moments_of(x[mine], y[mine])
    before = share.A.clone()
    together = all_reduce(share)
    nothing = all_reduce(Moments.zeros(4, 2))
    assert torch.equal(share.A, before)
    assert nothing.count == 0
    torch.save(vars(together), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_reduce_to_the_merge(tmp_path: Path) -> None:
    mp.spawn(_reduce, (str(tmp_path),), nprocs=2)
    x, _, y = make_rows(noise=0.3, mean=50.0)
    first, second = (Moments(**torch.load(tmp_path / f"{rank}.pt")) for rank in (0, 1))
    merged = moments_of(x[:150], y[:150])
    merged.merge(moments_of(x[150:], y[150:]))
    assert_same(first, merged, 1e-12)
    assert_same(first, second, 0.0)


@pytest.mark.gpu
@pytest.mark.parametrize("positions", [None, torch.arange(0, 100, 7)])
def test_gpu_equals_cpu_although_tf32_is_allowed(positions: torch.Tensor | None) -> None:
    x, y = torch.randn(16, 32, 10, 10).relu() + 3, torch.randn(16, 8, 10, 10)
    geometry = ((3, 3), (1, 1), (1, 1), (1, 1))
    exact, moments = Moments.zeros(288, 8), Moments.zeros(288, 8, "cuda")
    exact.update_conv(x.double(), y.double(), *geometry, positions)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        moments.update_conv(x.cuda(), y.cuda(), *geometry, None if positions is None else positions.cuda())
    finally:
        torch.set_float32_matmul_precision(before)
    assert_same(moments, exact, 2e-6)


def test_values_that_never_vary_leave_nothing_to_fit() -> None:
    """Rounding leaves cross moments of a constant behind, over no second moment at all."""
    moments = Moments.zeros(3, 2)
    for seed in range(3):
        rows = torch.randn(50, 3, generator=torch.Generator().manual_seed(seed))
        rows[:, 1] = 0.7183511
        moments.update(rows, rows @ torch.randn(3, 2, generator=torch.Generator().manual_seed(9)))
    clean = moments.without_noise(torch.finfo(torch.float32).eps)
    assert not clean.A[1].any()
    assert not clean.A[:, 1].any()
    assert not clean.B[1].any()
    others = torch.tensor([0, 2])
    assert torch.equal(clean.A[others][:, others], moments.A[others][:, others])
    assert torch.equal(clean.B[others], moments.B[others])
