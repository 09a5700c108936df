"""Pruning end to end on small networks: exact counts, exact thinning, errors that fall, the caller's net unchanged."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import nets
import pocketprune
from pocketprune import MacsShare, PruningOptions, UserError, prune_channels
from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.plan import Plan
from pocketprune.channel_pruning.runner import PruningRun
from pocketprune.channel_pruning.targets import target_counts
from pocketprune.graph.execution import run
from pocketprune.structure.channel_groups import analyse
from pocketprune.structure.layers import layers_of
from pocketprune.thinning.recipes import recipe_of
from tests.channel_pruning.door import prune
from tests.structure.small import images, resnet, shaken

NETWORKS = {
    "resnet v1 pad": lambda: resnet(1, "pad"),
    "resnet v1 projection": lambda: resnet(1, "projection"),
    "resnet v2 pad": lambda: resnet(2, "pad"),
    "resnet v2 projection": lambda: resnet(2, "projection"),
    "mobilenet_v1": lambda: shaken(
        nets.create_net("mobilenet_v1", num_classes=10, input_shape=(3, 16, 16), mobilenet_depth_mult=0.25)
    ),
    "lenet": lambda: nets.create_net("lenet", num_classes=10, input_shape=(3, 16, 16)).eval(),
}


@pytest.mark.parametrize("shared_input", ["sample", "couple", "keep"])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_thinned_network_equals_the_masked_dense_shaped_one(name: str, shared_input: str) -> None:
    """The refitted weights in dense shape, dropped columns zero, give the same output as the small network."""
    net, batches = NETWORKS[name](), images()
    structure = analyse(net, batches[0][:2])
    plan = Plan.for_target(structure, 0.5, PruningOptions(shared_input=shared_input))
    pruning = PruningRun(plan, Calibration(batches))
    with torch.no_grad():
        result = pruning.prune()
        biases = pruning.state.cut.biases

        def with_biases(node: object, env: dict) -> None:
            for source in getattr(node, "all_input_nodes", []):
                if source in biases and source not in done:
                    env[source] = env[source] + biases[source].view(-1, 1, 1)
                    done.add(source)

        done: set[object] = set()
        x = images(seed=7)[0]
        masked = run(structure.traced, x, pruning.state.cut.tensors, before=with_biases)
        small = result.net(x)
    assert (small - masked).abs().max() <= 1e-5 * masked.abs().max()
    assert result.params < result.dense_params
    assert result.macs < result.dense_macs


@pytest.mark.parametrize("selection", ["lasso", "obs", "magnitude", "random"])
def test_exactly_the_asked_count_is_kept(selection: str) -> None:
    result = prune_channels(resnet(2, "projection"), images(), 0.3, options=PruningOptions(selection=selection))
    for layer in result.layers[1:]:
        assert layer.kept == max(1, round(0.3 * layer.channels)) == len(layer.kept_index)


def test_ratio_one_returns_the_network_as_it_was() -> None:
    net = resnet(1)
    result = prune_channels(net, images(), 1.0)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, result.net.state_dict()[name])
    assert result.macs == result.dense_macs


def test_refitting_lowers_every_layers_error() -> None:
    result = prune_channels(resnet(1), images(), 0.5, options=PruningOptions(shared_input="keep"))
    pruned = [layer for layer in result.layers if layer.kept < layer.channels]
    assert pruned
    for layer in result.layers:
        assert layer.error_after <= layer.error_before
    for layer in pruned:
        assert layer.error_after < layer.error_before


@pytest.mark.parametrize("shared_input", ["sample", pytest.param("keep", marks=pytest.mark.slow)])
def test_reconstruction_and_drift_bring_the_output_closer(shared_input: str) -> None:
    """Against refitting the pruned layers only, without drift compensation, on images not seen."""
    net, batches = resnet(1), images(256)
    x = images(64, 64, seed=9)[0]

    def miss(**options: object) -> float:
        pruned = prune(net, batches, shared_input=shared_input, points_per_layer=0, **options).net
        with torch.no_grad():
            return float((pruned(x) - net(x)).square().mean())

    everything = miss(selection="obs")
    assert everything < miss(selection="obs", refit="pruned", branch_drift=False)
    assert everything < miss(selection="random", refit="pruned", branch_drift=False)


def test_the_callers_network_is_left_alone() -> None:
    net = resnet(1).train()
    before, modes = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()]
    result = prune_channels(net, images(), 0.5)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert [m.training for m in net.modules()] == modes
    assert result.net.training
    assert result.net is not net


def test_the_same_seed_gives_the_same_network() -> None:
    first, second = (prune_channels(resnet(1), images(), 0.5, options=PruningOptions(seed=3)).net for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_a_share_of_the_macs_is_met_from_below_and_nearly_reached() -> None:
    result = prune_channels(
        resnet(1, size=20), images(), MacsShare(0.5), options=PruningOptions(shared_input="keep", points_per_layer=2)
    )
    assert 0.45 < result.macs / result.dense_macs <= 0.5


def test_counts_are_multiples_where_asked() -> None:
    result = prune_channels(resnet(2), images(), 0.3, options=PruningOptions(channel_multiple=4, points_per_layer=2))
    assert all(layer.kept % 4 == 0 for layer in result.layers[1:])


def test_coupling_thins_the_stream_itself() -> None:
    result = prune_channels(resnet(1, "projection", 14), images(), 0.5, options=PruningOptions(shared_input="couple"))
    assert result.net.layer1[0].bn2.num_features == 8
    assert result.net.linear.in_features == 32


def test_sampling_keeps_the_stream_and_reads_part_of_it() -> None:
    result = prune_channels(resnet(1, "projection"), images(), 0.5, options=PruningOptions(shared_input="sample"))
    assert result.net.layer1[0].bn2.num_features == 16
    assert result.net.layer1[0].conv1.weight.shape[1] == 8
    kept = next(layer.kept_index for layer in result.layers if layer.name == "layer1.0.conv1")
    assert result.net.layer1[0].conv1.sampled.tolist() == list(kept)


def test_a_pruned_network_still_trains() -> None:
    net = prune_channels(resnet(2, "pad"), images(), 0.5, options=PruningOptions(shared_input="couple")).net.train()
    mean = dict(net.named_buffers())["bn.running_mean"].clone()
    nn.functional.cross_entropy(net(images()[0]), torch.zeros(16, dtype=torch.long)).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    assert not torch.equal(mean, dict(net.named_buffers())["bn.running_mean"])


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (None, {}, r"target: None given; a preserve ratio in \(0, 1\]"),
        ("0.5", {}, r"\(0, 1\]"),
        (True, {}, r"\(0, 1\]"),
        (0.0, {}, r"\(0, 1\]"),
        (1.5, {}, r"\(0, 1\]"),
        (float("nan"), {}, r"\(0, 1\]"),
        ([0.5], {}, "10 are accepted"),
        ([0.5] * 9 + [2], {}, r"target\[9\]: 2 given"),
        (MacsShare(0.01), {}, "can be reached"),
        (MacsShare(7), {}, "target.share: 7 given"),
        (MacsShare(0.5), {"shared_input": "couple", "allocation": "uniform"}, "a ratio or a list is accepted"),
        (0.5, {"selection": "laso"}, "did you mean 'lasso'"),
        (0.5, {"selection": None}, "selection: None given"),
        (0.5, {"shared_input": "kept"}, "did you mean 'keep'"),
        (0.5, {"refit": "none"}, "refit"),
        (0.5, {"points_per_layer": -1}, "points"),
        (0.5, {"channel_multiple": 0}, "multiple"),
        (0.5, {"cache_gb": -1}, "cache_gb: -1 given"),
        (0.5, {"seed": 2**70}, "seed: "),
    ],
)
def test_bad_arguments_are_told_in_one_line(target: object, options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        prune(resnet(1, "projection", 8), images(), target, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("target", [np.float32(0.5), np.float64(0.5), torch.tensor(0.5)])
def test_numbers_of_other_libraries_are_ratios(target: object) -> None:
    structure = analyse(resnet(1), images()[0][:2])
    layers = layers_of(structure, "sample")
    assert target_counts(structure, layers, target) == target_counts(structure, layers, 0.5)


def test_a_pruned_network_is_pruned_again() -> None:
    once = prune_channels(resnet(1), images(), 0.5)
    twice = prune_channels(once.net, images(), 0.5)
    assert twice.dense_macs == once.macs
    assert twice.macs < once.macs
    assert recipe_of(twice.net) != recipe_of(once.net)


def test_no_images_are_refused() -> None:
    with pytest.raises(UserError, match="batches: empty"):
        prune_channels(resnet(1), [], 0.5)


def test_progress_and_layers_are_reported() -> None:
    steps, layers = [], []
    result = pocketprune.prune_channels(
        resnet(1),
        images(),
        0.5,
        hooks=pocketprune.Hooks(progress=lambda *step: steps.append(step), on_layer=layers.append),
    )
    assert steps[-1][1] == steps[-1][2]
    assert [layer.name for layer in layers] == [layer.name for layer in result.layers]


class Mixed(nn.Module):
    """A grouped convolution, a one-dimensional one, an attention value path and an MLP, read from two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.grouped, self.join = (
            nn.Conv2d(3, 16, 3, padding=1),
            nn.Conv2d(16, 16, 3, groups=2),
            nn.Conv2d(16, 12, 1),
        )
        self.line, self.along = nn.Conv1d(12, 16, 3, padding=1), nn.Conv1d(16, 12, 3)
        self.up, self.down, self.head = nn.Linear(12, 24), nn.Linear(24, 12), nn.Linear(12 + 2, 5)

    def forward(self, x: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.join(torch.relu(self.grouped(torch.relu(self.stem(x))))))
        x = torch.relu(self.along(torch.relu(self.line(x.flatten(2))))).mean(2)
        return self.head(torch.cat([x + self.down(torch.relu(self.up(x))), extra], dim=1))


def test_all_kinds_of_layers_can_be_pruned_and_refitted_from_several_inputs() -> None:
    torch.manual_seed(0)
    net = Mixed().eval()
    batches = [(images(seed=s)[0], torch.randn(16, 2)) for s in range(12)]
    result = prune_channels(
        net, batches, 0.5, options=PruningOptions(shared_input="keep", layers="all", points_per_layer=0)
    )
    rows = {layer.name: layer for layer in result.layers}
    for name in ("grouped", "join", "along", "down"):
        assert rows[name].kept == rows[name].channels // 2
        assert rows[name].error_after < rows[name].error_before
    assert result.net.grouped.groups == 2
    assert result.net.grouped.weight.shape[1] == 4
    x = batches[0]
    with torch.no_grad():
        assert result.net(*x).shape == net(*x).shape
        worse = prune_channels(
            net,
            batches,
            0.5,
            options=PruningOptions(shared_input="keep", layers="all", selection="random", refit="pruned"),
        ).net
        assert (result.net(*x) - net(*x)).square().mean() < (worse(*x) - net(*x)).square().mean()


def test_layers_to_be_left_alone_keep_their_channels_and_weights() -> None:
    net = resnet(1)
    result = prune(net, images(), 0.5, ignore=("layer2",), shared_input="keep")
    assert all(layer.kept == layer.channels for layer in result.layers if layer.name.startswith("layer2"))
    assert any(layer.kept < layer.channels for layer in result.layers)
    assert torch.equal(result.net.layer2[0].conv1.weight, net.layer2[0].conv1.weight)
    with pytest.raises(UserError, match="ignore: no group or layer 'layer9'"):
        prune(net, images(), 0.5, ignore=("layer9",))
