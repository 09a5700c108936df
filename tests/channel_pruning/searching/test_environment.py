"""The environment on small networks: its thinned networks, costs, errors and scores are what pruning would give."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import nets
import pocketprune
from pocketprune import PruningOptions
from pocketprune.channel_pruning.consumers import Consumer
from pocketprune.channel_pruning.cut import Cut
from pocketprune.channel_pruning.outcome import result_of
from pocketprune.channel_pruning.plan import Plan
from pocketprune.channel_pruning.searching import layer_latency
from pocketprune.channel_pruning.searching.environment import PruningEnvironment
from pocketprune.channel_pruning.searching.layer_latency import LatencyCost
from pocketprune.channel_pruning.state import PruningState
from pocketprune.common.errors import UserError
from pocketprune.common.steps import steps_of
from pocketprune.numerics.reconstruction import relative_error
from pocketprune.search import Budget, Problem, search
from pocketprune.search.interface import replaced
from pocketprune.search.random_search import random_values
from pocketprune.structure.layers import layers_of
from pocketprune.thinning import removal
from pocketprune.training.batch_norm import shift_batch_norm
from tests.structure.small import images, resnet, shaken


class Depthwise(nn.Module):
    """A convolution, a depthwise one on its channels, and one that mixes them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.mix, self.last = nn.Conv2d(12, 16, 1), nn.Conv2d(16, 16, 3)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.norm(self.first(x)).relu()).relu()
        return self.head(self.last(self.mix(x).relu()).relu().mean((2, 3)))


BUILDERS = {
    "resnet": lambda: resnet(1, "pad"),
    "depthwise": lambda: shaken(Depthwise()),
    "lenet": lambda: nets.create_net("lenet", num_classes=10, input_shape=(3, 16, 16)).eval(),
}
CASES = [("resnet", "sample"), ("resnet", "couple"), ("depthwise", "keep"), ("lenet", "keep")]


def held_out(count: int = 64, seed: int = 5) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(x, torch.randint(10, (len(x),), generator=generator)) for x in images(count, 32, seed=seed)]


@functools.cache
def environment(name: str, mode: str, multiple: int = 1) -> PruningEnvironment:
    return PruningEnvironment(
        BUILDERS[name](),
        images(64),
        held_out(),
        options=PruningOptions(shared_input=mode, channel_multiple=multiple, points_per_layer=4),
    )


def some_counts(env: PruningEnvironment, seed: int = 1) -> tuple[int, ...]:
    return random_values(Problem(env, Budget("macs", 0.6)), np.random.default_rng(seed), 0.2)


def by_pruning_run(env: PruningEnvironment, counts: Sequence[int], mode: str) -> nn.Module:
    """The same decisions and weights installed one by one in a pruning run, which then thins."""
    structure = env.structure
    cut = Cut.nothing(structure)
    for index, choice in enumerate(env.choices):
        if counts[index] == choice.layer.full:
            continue
        units = env._statistics[index].kept(counts[index])
        for decision, chosen in zip(choice.decisions, units, strict=True):
            dropped = np.setdiff1d(np.arange(decision.size), chosen.numpy())
            cut.removed[decision.classes[dropped].ravel()] = True
        if choice.decisions[0].layer.way == "sample":
            cut = replace(cut, samplers=cut.samplers | {choice.decisions[0].layer.layer.weight: units[0].tolist()})
    for index, choice in enumerate(env.choices):
        if counts[index] < choice.layer.full:
            for consumer in choice.consumers:
                tensors, biases = _refitted(cut, env, index, counts[index], consumer)
                cut = cut.merged(replace(Cut.nothing(structure), tensors=tensors, biases=biases))
    plan = Plan.for_target(structure, env.ratios(counts), PruningOptions(shared_input=mode))
    state = PruningState.start(plan, 0)
    state.cut = cut
    return result_of(plan, state).net


def _refitted(cut: Cut, env: PruningEnvironment, index: int, count: int, consumer: Consumer) -> tuple[dict, dict]:
    statistics = env._statistics[index]
    if not env.choices[index].groups:
        kept = statistics.kept(count)[0]
    else:
        labels = env.structure.class_of(consumer.layer.in_ids)
        kept = torch.from_numpy(np.flatnonzero(~cut.removed[labels]))
    return consumer.refitted(kept, statistics.fits(consumer, kept))


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_the_thinned_network_is_what_pruning_with_those_weights_gives(name: str, mode: str) -> None:
    env = environment(name, mode)
    counts, x = some_counts(env), images(seed=9)[0]
    with torch.no_grad():
        mine, theirs = env.thinned(counts)(x), by_pruning_run(env, counts, mode).eval()(x)
    assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_costs_are_those_of_the_thinned_network(name: str, mode: str) -> None:
    env = environment(name, mode)
    params = copy.copy(env)
    params._set_costs("params", None)
    for seed in range(3):
        counts = some_counts(env, seed)
        net = env.thinned(counts)
        assert env.cost(counts) == pocketprune.count_macs(net, images()[0][:2])
        assert params.cost(counts) == pocketprune.count_params(net)


@pytest.mark.parametrize(("name", "mode"), [("resnet", "sample"), ("depthwise", "keep")])
def test_the_error_curve_is_the_layers_relative_error(name: str, mode: str) -> None:
    """Of the layer's output on the dense network's features, with the weights that a roll-out uses."""
    env = environment(name, mode)
    for index, statistics in list(env._statistics.items())[:4]:
        consumer, moments = statistics.choice.consumers[0], statistics.moments[0]
        curve, channels = env.error_curve(index), env.variables[index].full
        for count in {1, channels // 2, channels - 1}:
            kept = statistics.kept(count)[0]
            with torch.no_grad():
                (W, bias), *_ = statistics.fits(consumer, kept)
                scale = consumer.selection_weights[0]
            exact = relative_error(moments[0], W, kept, consumer.block, scale, bias)
            assert curve[count] == pytest.approx(exact, rel=1e-6, abs=1e-9)
        assert curve[0] == 1.0
        assert curve[channels] < 1e-6


def test_all_channels_kept_is_the_dense_network() -> None:
    env = environment("resnet", "keep")
    channels, (x, labels) = Problem(env, Budget()).full, held_out()[0]
    dense = env.structure.traced.net
    with torch.no_grad():
        assert torch.equal(env.thinned(channels)(x), dense(x))
        logits = torch.cat([dense(x) for x, _ in held_out()])
    labels = torch.cat([y for _, y in held_out()])
    score = env.score(channels)
    assert score.accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert score.loss == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert score.divergence == pytest.approx(0.0, abs=1e-6)


def test_the_divergence_is_that_of_the_predictions_from_the_dense_networks() -> None:
    env = environment("resnet", "keep")
    thin, dense = env.thinned(some_counts(env)), env.structure.traced.net
    with torch.no_grad():
        wanted, found = (torch.cat([net(x).double().softmax(1) for x, _ in held_out()]) for net in (dense, thin))
    expected = float((wanted * (wanted / found).log()).sum(1).mean())
    assert expected > 0
    assert env.judge(thin).divergence == pytest.approx(expected, rel=1e-4)


def test_a_cut_of_one_layer_leaves_the_norms_statistics() -> None:
    env = environment("resnet", "keep")
    dense = Problem(env, Budget()).full
    layer = Problem(env, Budget()).free[1]
    counts = replaced(dense, layer, env.variables[layer].allowed[0])
    assert env.score(counts) == env.judge(env.thinned(counts))


def test_the_same_counts_have_the_same_score() -> None:
    env, other = environment("resnet", "keep"), environment.__wrapped__("resnet", "keep")
    counts = some_counts(env)
    first = env.score(counts)
    env.score(some_counts(env, 2))
    assert env.score(counts) == first == other.score(counts)


def test_scores_come_after_the_norms_statistics_are_shifted_by_what_the_cut_changed() -> None:
    env = environment("resnet", "keep")
    counts = some_counts(env)
    net, dense = env.thinned(counts), env.structure.traced.net
    plain = env.judge(net)
    kept = {
        name.removesuffix(".running_mean"): axes[0]
        for name, axes in steps_of(net)[-1].data.kept.items()
        if name.endswith(".running_mean")
    }
    assert kept
    shift_batch_norm(net, dense, env._norm_inputs, kept, together=False)
    assert env.judge(net) == env.score(counts) != plain
    assert torch.allclose(net.bn1.running_mean, dense.bn1.running_mean, atol=1e-5)  # nothing before it is cut
    assert not net.training
    assert net.bn1.momentum == 0.1


def test_the_form_of_a_thinned_network_is_proved_once_for_the_same_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    env = environment.__wrapped__("resnet", "keep")
    proofs: list[int] = []
    real = removal.proved
    monkeypatch.setattr(removal, "proved", lambda *args: proofs.append(1) or real(*args))
    dense, half = (tuple(max(1, v.full // by) for v in env.variables) for by in (1, 2))
    env.thinned(half)
    found = env.thinned([count - (count > 1) for count in half])
    assert len(proofs) == 1
    env.thinned(replaced(dense, Problem(env, Budget()).free[0], 4))
    assert len(proofs) == 2
    env._forms.clear()
    expected = env.thinned([count - (count > 1) for count in half])
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in expected.state_dict().items())


def test_the_callers_network_is_left_alone() -> None:
    net = resnet(1).train()
    before = copy.deepcopy(net.state_dict())
    env = PruningEnvironment(net, images(), held_out(), options=PruningOptions(points_per_layer=2))
    env.score(some_counts(env))
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert net.training


@pytest.mark.parametrize("mode", ["sample", "couple"])
def test_ratios_replayed_as_a_list_keep_these_counts(mode: str) -> None:
    env = environment("resnet", mode)
    counts, net = some_counts(env), env.structure.traced.net
    result = pocketprune.prune_channels(
        net,
        images(),
        env.ratios(counts),
        options=pocketprune.PruningOptions(shared_input=mode, points_per_layer=2, check=False),
    )
    assert result.macs == env.cost(counts)


def test_counts_are_multiples() -> None:
    env = environment("resnet", "keep", 4)
    for layer in env.variables:
        assert all(count % 4 == 0 for count in layer.allowed if count < layer.full)
    assert max(len(layer.allowed) for layer in env.variables) == 16


def test_a_coupled_stream_is_one_choice() -> None:
    env = environment("resnet", "couple")
    joint = [choice for choice in env.choices if choice.groups]
    assert joint
    assert sum(len(choice.entries) for choice in env.choices) == len(layers_of(env.structure, "couple"))
    assert len(joint) < sum(len(choice.entries) for choice in joint)


def test_a_search_meets_the_budget_on_the_thinned_network() -> None:
    env = environment("resnet", "sample")
    found = search(env, Budget("macs", 0.5), method="uniform")
    dense = pocketprune.count_macs(env.structure.traced.net, images()[0][:2])
    assert pocketprune.count_macs(env.thinned(found.values), images()[0][:2]) / dense == pytest.approx(0.5, abs=0.005)


def test_latency_is_measured_once_and_never_falls_with_a_count(tmp_path: object, monkeypatch: object) -> None:
    measured = []
    monkeypatch.setattr(LatencyCost, "_median", lambda self, run: measured.append(run().shape) or float(run().numel()))

    def build() -> PruningEnvironment:
        table = LatencyCost(tmp_path / "latency.json", batch=2)
        return PruningEnvironment(
            resnet(1),
            images(),
            held_out(),
            budget="latency",
            options=PruningOptions(shared_input="keep", points_per_layer=2),
            latency=table,
        )

    env = build()
    number = len(measured)
    problem = Problem(env, Budget("latency", 0.5))
    assert 0 < problem.cost(problem.lowest) < problem.cost(problem.highest)
    for index in problem.free:
        costs = [env.cost(replaced(problem.lowest, index, kept)) for kept in env.variables[index].allowed]
        assert costs == sorted(costs)
    again = build()
    assert len(measured) == number
    assert again.cost(problem.lowest) == env.cost(problem.lowest)


@pytest.mark.parametrize(("gather", "left"), [(0.0, "all"), (60.0, "some"), (1e6, "none")])
def test_counts_whose_sampler_costs_more_than_it_saves_are_left_out(
    monkeypatch: pytest.MonkeyPatch, gather: float, left: str
) -> None:
    def steady(_self: object, _node: object, _layer: object, whole: int | None) -> Callable[[int, int], float]:
        return lambda inputs, outputs: inputs * outputs + (gather if whole is not None and inputs < whole else 0)

    monkeypatch.setattr(LatencyCost, "_measure", steady)
    monkeypatch.setattr(
        layer_latency, "measure_latency", lambda net, *_, **__: sum(p.numel() for p in net.parameters())
    )
    free, options = environment("resnet", "sample"), PruningOptions(shared_input="sample", points_per_layer=2)
    env = PruningEnvironment(
        BUILDERS["resnet"](),
        images(),
        held_out(),
        budget="latency",
        options=options,
        latency=LatencyCost(None, batch=2),
    )
    for before, choice in zip(free.choices, env.choices, strict=True):
        sampled = bool(choice.decisions) and choice.decisions[0].layer.way == "sample"
        allowed = choice.layer.allowed
        if not sampled or left == "all":
            assert allowed == before.layer.allowed
        elif left == "none":
            assert allowed == (choice.layer.full,)
            assert choice.layer.fixed_because == "a sampler costs the time that it saves"
        else:
            outputs = choice.entries[0].out_channels // 2
            full = choice.layer.full
            assert allowed == tuple(
                n for n in before.layer.allowed if n == full or n * outputs + gather < full * outputs
            )
    problem = Problem(env, Budget("latency", 0.5))
    for index in problem.free:
        costs = [env.cost(replaced(problem.highest, index, kept)) for kept in env.variables[index].allowed]
        assert costs == sorted(costs)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"held_out": held_out(32)}, "held_out: 32 images given"),
        ({"held_out": []}, "held_out: 0 images given"),
        ({"calibration": []}, "calibration"),
        ({"held_out": [images(64)]}, r"held_out\[0\]: list given"),
        ({"budget": "flops"}, "budget: 'flops' given"),
        ({"budget": "latency"}, "latency"),
    ],
)
def test_bad_arguments_are_told_in_one_line(options: dict, words: str) -> None:
    arguments = {
        "calibration": images(),
        "held_out": held_out(),
        "options": PruningOptions(points_per_layer=2),
    } | options
    with pytest.raises(UserError, match=words) as error:
        PruningEnvironment(resnet(1), **arguments)
    assert "\n" not in str(error.value)


def test_a_budget_out_of_reach_states_what_is_reachable() -> None:
    with pytest.raises(UserError, match=r"out of reach; accepted: 0\.\d+ to 1\.0000"):
        search(environment("resnet", "keep"), Budget("macs", 0.01), method="uniform")
