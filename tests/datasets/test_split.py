"""Order, augmentation draws, ranks, resuming and hold-out: all pure functions of their keys."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from datasets import CropFlip, TensorSplit
from datasets.split import Plan, generator, hold_out
from pocketprune.common.errors import UserError


def _split(size: int = 50) -> TensorSplit:
    """Samples labelled by their number, so that batches tell which samples they hold."""
    images = torch.randint(0, 256, (size, 3, 6, 6), dtype=torch.uint8, generator=generator(9))
    return TensorSplit(images, torch.arange(size), mean=(0.5,) * 3, std=(0.2,) * 3, augmentation=CropFlip(2, True))


def _same(a: list[tuple[Tensor, Tensor]], b: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = list(zip(a, b, strict=True))
    return all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in pairs)


def test_without_shuffling_the_order_is_the_files() -> None:
    labels = torch.cat([y for _, y in _split().batches(8)])
    assert torch.equal(labels, torch.arange(50))


def test_order_and_augmentation_depend_on_seed_and_epoch_only() -> None:
    split, how = _split(), {"shuffle": True, "augment": True}
    first = list(split.batches(8, seed=3, epoch=2, **how))
    torch.rand(7)
    assert _same(first, list(split.batches(8, seed=3, epoch=2, **how)))
    assert not _same(first, list(split.batches(8, seed=3, epoch=1, **how)))
    assert not _same(first, list(split.batches(8, seed=4, epoch=2, **how)))
    assert sorted(torch.cat([y for _, y in first]).tolist()) == list(range(50))


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(_split().batches(8, shuffle=True, augment=True))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("start", [0, 1, 5, 6, 7, 99])
def test_a_resumed_iteration_is_the_tail_of_the_full_one(start: int, drop_last: bool) -> None:
    split = _split()
    how = {"seed": 1, "epoch": 4, "shuffle": True, "augment": True, "drop_last": drop_last}
    full = list(split.batches(8, **how))
    assert _same(full[start:], list(split.batches(8, start=start, **how)))


@given(
    size=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    world_size=st.integers(1, 5),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_ranks_partition_the_permutation(
    size: int, batch_size: int, world_size: int, drop_last: bool, shuffle: bool
) -> None:
    split = _split(size)
    how = {"seed": 5, "epoch": 1, "shuffle": shuffle, "drop_last": drop_last, "world_size": world_size}
    ranks = [[y for _, y in split.batches(batch_size, rank=r, **how)] for r in range(world_size)]
    expected = split.num_batches(batch_size, drop_last=drop_last, world_size=world_size)
    assert len(ranks[0]) == expected
    seen = torch.cat([torch.cat([*batches, torch.empty(0, dtype=torch.int64)]) for batches in ranks])
    assert len(set(seen.tolist())) == len(seen)
    if drop_last:
        assert [len(batches) for batches in ranks] == [expected] * world_size
        assert len(seen) == expected * batch_size * world_size
    else:
        assert all(expected - 1 <= len(batches) <= expected for batches in ranks)
        assert sorted(seen.tolist()) == list(range(size))
        order = torch.cat([y for _, y in split.batches(7, seed=5, epoch=1, shuffle=shuffle)])
        for rank, batches in enumerate(ranks):
            mine = torch.cat([*batches, torch.empty(0, dtype=torch.int64)])
            assert torch.equal(mine, order[rank::world_size])


def test_processes_together_see_the_single_process_batch() -> None:
    split, how = _split(), {"seed": 2, "shuffle": True, "augment": True, "drop_last": True}
    single = list(split.batches(12, **how))
    ranks = [list(split.batches(4, rank=r, world_size=3, **how)) for r in range(3)]
    for b, (images, labels) in enumerate(single):
        assert torch.equal(torch.stack([ranks[r][b][0] for r in range(3)], dim=1).flatten(0, 1), images)
        assert torch.equal(torch.stack([ranks[r][b][1] for r in range(3)], dim=1).flatten(), labels)


def test_uniforms_do_not_repeat() -> None:
    draws = [Plan(4, seed, epoch).uniforms(b, 3) for seed in (0, 1) for epoch in (0, 1) for b in (0, 1)]
    assert len({tuple(d.flatten().tolist()) for d in draws}) == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 4, "rank": 2, "world_size": 2}, "rank=2"),
        ({"batch_size": 4, "start": -1}, "start=-1"),
    ],
)
def test_values_out_of_range_are_refused_at_once(options: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        _split().batches(**options)


@given(counts=st.lists(st.integers(2, 40), min_size=1, max_size=8), share=st.floats(0, 1), seed=st.integers(-5, 5))
@settings(max_examples=80, deadline=None)
def test_the_held_out_part_is_stratified_and_exact(counts: list[int], share: float, seed: int) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator(seed))]
    wanted = len(counts) + round(share * (len(labels) - 2 * len(counts)))
    kept, held = hold_out(labels, len(counts), seed=seed, nb_smpls_val=wanted)
    assert len(held) == wanted
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    per_class = labels[held].bincount(minlength=len(counts))
    for count, got in zip(counts, per_class.tolist(), strict=True):
        assert 1 <= got <= count - 1
    if all(1 <= wanted * c / len(labels) <= c - 1 for c in counts):
        exact = torch.tensor(counts) * wanted / len(labels)
        assert ((per_class - exact).abs() < 1).all()
    again = hold_out(labels, len(counts), seed=seed, nb_smpls_val=wanted)
    assert torch.equal(again[1], held)


def test_the_seed_chooses_the_held_out_samples() -> None:
    labels = torch.arange(200) % 10
    assert not torch.equal(hold_out(labels, 10, seed=0)[1], hold_out(labels, 10, seed=1)[1])
    assert len(hold_out(labels, 10, seed=0)[1]) == 20
    assert len(hold_out(labels, 10, seed=0, val_fraction=0.25)[1]) == 50


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nb_smpls_val": 9}, "--nb_smpls_val=9: 9 of 200"),
        ({"nb_smpls_val": 191}, "accepted: 10 to 190 samples"),
        ({"nb_smpls_val": -1}, "--nb_smpls_val=-1"),
        ({"val_fraction": 0.0}, "^val_fraction=0.0: 0 of 200"),
        ({"val_fraction": 1.0}, "^val_fraction=1.0: 200 of 200"),
    ],
)
def test_a_hold_out_that_leaves_nothing(options: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        hold_out(torch.arange(200) % 10, 10, seed=0, **options)


def test_a_class_of_one_sample_cannot_be_divided() -> None:
    labels = torch.tensor([0] * 10 + [1])
    with pytest.raises(UserError, match=r"class 1 has 1 training sample\(s\)"):
        hold_out(labels, 2, seed=0, nb_smpls_val=3)
