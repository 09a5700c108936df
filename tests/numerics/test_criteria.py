from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.numerics.criteria import (
    AGGREGATES,
    CONSUMER_CRITERIA,
    CRITERIA,
    evaluate,
    kept_channels,
    path,
    unit_norm,
)
from pocketprune.numerics.evidence import ActivationStatistics, ConsumerSlice, Evidence, GradientStatistics
from pocketprune.numerics.lasso import LassoPath, channel_gram
from pocketprune.numerics.reconstruction import refit, relative_error
from tests.numerics.samples import make_rows, moments_of

CHANNELS, BLOCK = 10, 3


def consumer_of(block: int = BLOCK, outputs: int = 4, seed: int = 0, noise: float = 0.5) -> ConsumerSlice:
    x, weight, y = make_rows(CHANNELS, block, outputs, noise=noise, seed=seed)
    return ConsumerSlice(weight, block, moments_of(x, y))


@pytest.fixture(scope="module")
def consumer() -> ConsumerSlice:
    return consumer_of()


def evidence_of(*consumers: ConsumerSlice, seed: int = 0) -> Evidence:
    """Every part that some criterion reads, for CHANNELS channels."""
    generator = torch.Generator().manual_seed(seed)
    weight, gradient, maps = (torch.randn(CHANNELS, 2, 3, generator=generator) for _ in range(3))
    return Evidence(
        channels=CHANNELS,
        consumers=consumers,
        filters=[weight],
        norm_scales=[torch.randn(CHANNELS, generator=generator)],
        activations=[ActivationStatistics.of(maps.transpose(0, 1).relu())],
        gradients=[GradientStatistics.of(weight, gradient)],
        generator=generator,
    )


def weights_of(*weights: Tensor, channels: int, **parts: object) -> Evidence:
    """Consumers without moments."""
    consumers = [ConsumerSlice(weight, weight.shape[0] // channels) for weight in weights]
    return Evidence(channels=channels, consumers=consumers, **parts)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_exactly_count_sorted_channels(criterion: str, consumer: ConsumerSlice) -> None:
    whole = path(criterion, evidence_of(consumer))
    for count in range(CHANNELS + 1):
        kept = kept_channels(criterion, evidence_of(consumer), count)
        assert kept.dtype == torch.long
        assert kept.tolist() == sorted(set(kept.tolist()))
        assert len(kept) == count
        assert torch.equal(whole.kept(count), kept)
    assert whole.errors is None or whole.errors.shape == (CHANNELS + 1,)


@pytest.mark.parametrize("criterion", CONSUMER_CRITERIA)
def test_what_channel_pruning_offers_reads_the_consumers_alone(criterion: str, consumer: ConsumerSlice) -> None:
    generator = torch.Generator().manual_seed(0)
    alone = Evidence(channels=CHANNELS, consumers=[consumer], generator=generator)
    assert len(kept_channels(criterion, alone, 4)) == 4


def test_one_function_and_one_line_add_a_criterion(monkeypatch: pytest.MonkeyPatch) -> None:
    def largest(evidence: Evidence) -> Tensor:
        return torch.stack([f.abs().flatten(1).amax(1) for f in evidence.filters]).sum(0)

    monkeypatch.setitem(CRITERIA, "largest", largest)
    filters = [torch.tensor([[1.0, -4.0], [3.0, 3.0], [0.0, 2.0]])]
    assert kept_channels("largest", Evidence(channels=3, filters=filters), 2).tolist() == [0, 1]


def test_channels_of_equal_score_are_kept_in_order() -> None:
    filters = [torch.tensor([1.0, 2.0, 1.0, 2.0, 1.0, 1.0])]
    found = path("l1", Evidence(channels=6, filters=filters))
    kept = [[1], [1, 3], [0, 1, 3], [0, 1, 2, 3], [0, 1, 2, 3, 4]]
    assert [found.kept(count).tolist() for count in range(1, 6)] == kept
    assert kept_channels("l2", Evidence(channels=20, filters=[torch.arange(20.0)]), 10).tolist() == [*range(10, 20)]


def test_magnitude_keeps_the_largest_slices_of_all_consumers() -> None:
    first = torch.tensor([[1.0], [-1.0], [3.0], [0.0]])  # two channels of two rows: 2 and 3
    second = torch.tensor([[5.0], [-1.0]])  # two channels of one row: 5 and 1
    assert kept_channels("magnitude", weights_of(first, channels=2), 1).tolist() == [1]
    assert kept_channels("magnitude", weights_of(first, second, channels=2), 1).tolist() == [0]
    assert kept_channels("magnitude", weights_of(torch.ones(4, 2), channels=4), 2).tolist() == [0, 1]


def test_random_follows_its_generator_alone() -> None:
    state = torch.random.get_rng_state()
    seeded = (torch.Generator().manual_seed(seed) for seed in (1, 1, 2))
    first, again, other = (kept_channels("random", Evidence(channels=50, generator=one), 20) for one in seeded)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_random_keeps_the_first_channels_of_one_permutation() -> None:
    found = path("random", Evidence(channels=50, generator=torch.Generator().manual_seed(3)))
    drawn = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    for count in (0, 1, 17, 50):
        assert torch.equal(found.kept(count), drawn[:count].sort().values)


def test_lasso_adds_the_grams_of_its_consumers(consumer: ConsumerSlice) -> None:
    importance = torch.rand(6, dtype=torch.float64)
    x, weight, y = make_rows(CHANNELS, 1, 6, noise=0.5, seed=3)
    other = ConsumerSlice(weight, 1, moments_of(x, y), importance)
    G, g = (
        a + b
        for a, b in zip(
            channel_gram(consumer.moments.A, consumer.moments.B, consumer.weight, BLOCK),
            channel_gram(other.moments.A, other.moments.B, weight, 1, importance),
            strict=True,
        )
    )
    kept = kept_channels("lasso", Evidence(channels=CHANNELS, consumers=[consumer, other]), 4)
    assert torch.equal(kept, LassoPath(G, g).kept(4))


@pytest.mark.parametrize("criterion", CONSUMER_CRITERIA)
def test_parameters_that_ask_for_gradients_are_taken_as_they_are(criterion: str, consumer: ConsumerSlice) -> None:
    parameter = torch.nn.Parameter(consumer.weight.clone())
    asking = ConsumerSlice(parameter, BLOCK, consumer.moments)
    plain, with_gradient = (kept_channels(criterion, evidence_of(one), 4) for one in (consumer, asking))
    assert torch.equal(plain, with_gradient)
    assert not refit(consumer.moments, parameter, plain, BLOCK)[0].requires_grad


def test_scores_ask_for_no_gradients() -> None:
    weight = torch.nn.Parameter(torch.randn(CHANNELS, 3))
    scale = torch.nn.Parameter(torch.randn(CHANNELS))
    statistics = [GradientStatistics.of(weight, weight)]
    evidence = Evidence(channels=CHANNELS, filters=[weight], norm_scales=[scale], gradients=statistics)
    for criterion in ("l1", "l2", "geometric_median", "bn_scale", "taylor", "gradient", "fisher"):
        assert not evaluate(criterion, evidence).requires_grad


def test_reconstruction_aware_criteria_beat_blind_ones() -> None:
    totals = dict.fromkeys(CONSUMER_CRITERIA, 0.0)
    for seed in range(8):
        x, weight, y = make_rows(16, 2, 6, noise=0.2, seed=seed)
        moments = moments_of(x, y)
        for criterion in totals:
            generator = torch.Generator().manual_seed(seed)
            evidence = Evidence(channels=16, consumers=[ConsumerSlice(weight, 2, moments)], generator=generator)
            kept = kept_channels(criterion, evidence, 6)
            W, _ = refit(moments, weight, kept, 2)
            totals[criterion] += relative_error(moments, W, kept, 2)
    assert totals["obs"] < totals["lasso"] < totals["random"]
    assert totals["lasso"] < totals["magnitude"]


def filters_of(values: Sequence[float], *shape: int) -> Tensor:
    """Filters that each hold one value."""
    return torch.stack([torch.full(shape, float(value)) for value in values])


def dropped(criterion: str, filters: Tensor, removed: int) -> list[int]:
    """The channels that go when so many are removed."""
    channels = len(filters)
    kept = kept_channels(criterion, Evidence(channels=channels, filters=[filters]), channels - removed)
    return sorted(set(range(channels)) - set(kept.tolist()))


def test_masks_of_nni() -> None:
    """NNI v2.3, test_compressor_torch.py: one value for each filter."""
    rising = filters_of(range(1, 11), 5, 5, 5)
    assert dropped("geometric_median", rising, 2) == [4, 5]
    assert dropped("geometric_median", rising, 6) == [2, 3, 4, 5, 6, 7]
    assert dropped("l1", filters_of(range(5), 1, 5, 5), 1) == [0]
    assert dropped("l1", filters_of(range(10), 5, 5, 5), 6) == [0, 1, 2, 3, 4, 5]
    distances = evaluate("geometric_median", Evidence(channels=10, filters=[rising])) / 125**0.5
    assert distances.tolist() == pytest.approx([45, 37, 31, 27, 25, 25, 27, 31, 37, 45])


@pytest.mark.parametrize(
    ("criterion", "filters", "scores"),
    [
        # NNI v2.10, test_pruning_tools_torch.py
        ("l2", torch.ones(3, 3, 3), [3, 3, 3]),
        ("l2", 2 * torch.ones(4, 4), [4, 4, 4, 4]),
        ("geometric_median", torch.tensor([[1.0, 2.0], [4.0, 6.0]]), [5, 5]),
        ("geometric_median", torch.tensor([[0.0, 0.0], [1.0, 1.0]]), [2**0.5, 2**0.5]),
        # NNCF 2.18, filter importance of consecutive numbers
        ("l1", torch.arange(120.0).view(2, 3, 4, 5), [1770, 5370]),
        ("l2", torch.arange(120.0).view(2, 3, 4, 5), [264.97170, 706.12322]),
        ("geometric_median", torch.arange(120.0).view(3, 2, 4, 5), [758.94664, 505.96443, 758.94664]),
    ],
)
def test_scores_of_filters(criterion: str, filters: Tensor, scores: list[float]) -> None:
    found = evaluate(criterion, Evidence(channels=len(filters), filters=[filters]))
    assert found.tolist() == pytest.approx(scores, rel=1e-7)


def test_the_input_side_of_a_weight_is_scored_alike() -> None:
    """Distiller, test_pruning.py: three filters of two channels."""
    weight = torch.stack([torch.arange(10.0 * i + 1, 10 * i + 9).view(2, 2, 2) for i in (1, 2, 3)])
    evidence = Evidence(channels=2, filters=[weight.transpose(0, 1)])
    assert evaluate("l1", evidence).tolist() == [270, 318]
    assert kept_channels("l1", evidence, 1).tolist() == [1]


def test_equal_filters_are_at_no_distance() -> None:
    filters = torch.randn(1, 500).expand(6, 500)
    assert evaluate("geometric_median", Evidence(channels=6, filters=[filters])).tolist() == [0.0] * 6


def test_filters_of_unit_norm_score_alike_at_any_scale() -> None:
    weight = torch.randn(4, 3, 2, dtype=torch.float64)
    for criterion in ("l1", "l2", "geometric_median"):
        plain, unit, scaled = (
            evaluate(criterion, Evidence(channels=4, filters=[filters]))
            for filters in (weight, unit_norm(weight), unit_norm(100 * weight))
        )
        torch.testing.assert_close(unit, plain / weight.norm())
        torch.testing.assert_close(scaled, unit)
    assert not unit_norm(torch.zeros(2, 3)).any()


def test_norm_scales_count_by_their_size() -> None:
    evidence = Evidence(channels=3, norm_scales=[torch.tensor([0.5, -2.0, 1.0])])
    assert evaluate("bn_scale", evidence).tolist() == [0.5, 2.0, 1.0]


@pytest.mark.parametrize(("zeros", "scores"), [([[1, 1], [1, 1]], [0.5, 0.5]), ([[0, 0, 1], [0, 0, 0]], [1, 1, 0.75])])
def test_apoz_of_nni(zeros: list[list[int]], scores: list[float]) -> None:
    """NNI v2.10, test_pruning_tools_torch.py: zeros counted over two batches, channels last."""
    counts = torch.tensor(zeros, dtype=torch.float64).sum(0)
    evidence = Evidence(channels=len(counts), activations=[ActivationStatistics(4, counts, counts)])
    assert evaluate("apoz", evidence).tolist() == scores


@pytest.mark.parametrize(("sums", "scores"), [([[0, 1], [1, 0]], [0.25, 0.25]), ([[0, 0, 1], [0, 0, 0]], [0, 0, 0.25])])
def test_mean_activation_of_nni(sums: list[list[int]], scores: list[float]) -> None:
    """NNI v2.10, test_pruning_tools_torch.py: values summed over two batches, channels last."""
    totals = torch.tensor(sums, dtype=torch.float64).sum(0)
    evidence = Evidence(channels=len(totals), activations=[ActivationStatistics(4, totals, totals)])
    assert evaluate("mean_activation", evidence).tolist() == scores


def test_activations_of_distiller() -> None:
    """Distiller, test_ranking.py: two samples of two channels."""
    first = torch.stack([torch.diag(torch.tensor([1, 2, 3])), torch.tensor([[1, 0, 2], [0, 3, 0], [4, 0, 5]])])
    second = torch.stack([torch.diag(torch.tensor([4, 5, 6])), torch.tensor([[0, 6, 0], [7, 0, 8], [0, 9, 0]])])
    statistics = ActivationStatistics.of(first[None].float()) + ActivationStatistics.of(second[None].float())
    evidence = Evidence(channels=2, activations=[statistics])
    assert evaluate("apoz", evidence).tolist() == pytest.approx([1 - 2 / 3, 0.5])
    assert evaluate("mean_activation", evidence).tolist() == pytest.approx([21 / 18, 45 / 18])


def test_channels_may_lie_last() -> None:
    maps = torch.randn(4, 3, 5).relu()
    last, second = ActivationStatistics.of(maps, axis=-1), ActivationStatistics.of(maps.transpose(1, 2))
    assert last.count == second.count == 12
    assert torch.equal(last.zeros, second.zeros)
    assert torch.equal(last.total, second.total)


@pytest.mark.parametrize("shape", [(3, 3, 3), (4, 4)])
def test_taylor_of_nni(shape: tuple[int, ...]) -> None:
    """NNI v2.10, test_pruning_tools_torch.py: sums of (g w)^2, not divided by the number of batches."""
    one = GradientStatistics.of(torch.ones(shape), torch.ones(shape))
    evidence = Evidence(channels=shape[0], gradients=[one + one])
    assert evaluate("taylor", evidence).tolist() == [2.0 * torch.ones(shape[1:]).numel()] * shape[0]


def test_what_is_squared_and_what_is_summed() -> None:
    weight = torch.tensor([[1.0, 2.0], [3.0, 1.0]])
    gradients = [torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([[2.0, 1.0], [-1.0, 0.0]])]
    statistics = GradientStatistics.of(weight, gradients[0]) + GradientStatistics.of(weight, gradients[1])
    # Products of the batches: [[1, -2], [3, 1]] and [[2, 2], [-3, 0]].
    evidence = Evidence(channels=2, gradients=[statistics])
    assert evaluate("taylor", evidence).tolist() == [13, 19]
    assert evaluate("gradient", evidence).tolist() == [3, 1]
    assert evaluate("fisher", evidence).tolist() == [17, 25]


def test_gradient_is_the_slope_of_the_loss_in_a_mask() -> None:
    weight, x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True), torch.randn(7, 5, dtype=torch.float64)
    mask = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (x @ (mask[:, None] * weight).T).square().mean().backward()
    evidence = Evidence(channels=3, gradients=[GradientStatistics.of(weight, weight.grad)])
    torch.testing.assert_close(evaluate("gradient", evidence), mask.grad.abs())
    torch.testing.assert_close(evaluate("fisher", evidence), mask.grad.square())


@pytest.mark.parametrize(
    ("aggregate", "scores"), [("sum", [5, 5, 8]), ("leader", [4, 2, 1]), ("mean", [2.5, 2.5, 4]), ("max", [4, 3, 7])]
)
def test_scores_of_several_members_become_one(aggregate: str, scores: list[float]) -> None:
    members = [torch.tensor([4.0, 2.0, 1.0]), torch.tensor([1.0, 3.0, 7.0])]
    assert AGGREGATES[aggregate](members).tolist() == scores
    for criterion, part in (("l1", "filters"), ("bn_scale", "norm_scales")):
        evidence = Evidence(channels=3, aggregate=aggregate, **{part: members})
        assert evaluate(criterion, evidence).tolist() == scores


def test_absent_parts_are_named(consumer: ConsumerSlice) -> None:
    nothing = Evidence(channels=CHANNELS)
    parts = {
        "consumers": ("lasso", "obs", "magnitude"),
        "filters": ("l1", "l2", "geometric_median"),
        "norm_scales": ("bn_scale",),
        "activations": ("apoz", "mean_activation"),
        "gradients": ("taylor", "gradient", "fisher"),
    }
    assert sorted(["random", *sum(parts.values(), ())]) == sorted(CRITERIA)
    for part, criteria in parts.items():
        for criterion in criteria:
            with pytest.raises(UserError, match=f"^criterion: '{criterion}' needs {part}, which are not given$"):
                path(criterion, nothing)
    with pytest.raises(UserError, match="'lasso' needs the consumers' moments"):
        path("lasso", Evidence(channels=CHANNELS, consumers=[consumer, ConsumerSlice(consumer.weight, BLOCK)]))


def test_mistakes_are_refused(consumer: ConsumerSlice) -> None:
    with pytest.raises(UserError, match=r"^criterion: 'lass' given; did you mean 'lasso'\?$"):
        kept_channels("lass", evidence_of(consumer), 3)
    with pytest.raises(UserError, match=r"^aggregate: 'median' given; did you mean 'mean'\?$"):
        kept_channels("l1", Evidence(channels=2, filters=[torch.ones(2)], aggregate="median"), 1)
    for criterion in ("lasso", "obs", "magnitude"):
        for count in (-1, 11):
            with pytest.raises(ValueError, match=rf"0 \.\.\. 10, got {count}"):
                kept_channels(criterion, evidence_of(consumer), count)
    with pytest.raises(ValueError, match="'l1' gives scores that are NaN or infinite"):
        kept_channels("l1", Evidence(channels=2, filters=[torch.tensor([1.0, torch.nan])]), 1)


def test_evidence_that_does_not_fit_is_refused(consumer: ConsumerSlice, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="must read the same channels"):
        evidence_of(consumer, ConsumerSlice(consumer.weight, 5))
    with pytest.raises(ValueError, match=r"filters must have 2 channels each, got \[2, 3\]"):
        Evidence(channels=2, filters=[torch.ones(2, 3), torch.ones(3, 2)])
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        Evidence(channels=0)
    monkeypatch.setitem(CRITERIA, "wide", lambda evidence: torch.ones(evidence.channels, 2))
    with pytest.raises(ValueError, match=r"'wide' gives scores of shape \(10, 2\) to 10 channels"):
        kept_channels("wide", evidence_of(consumer), 3)
