"""MACs equal the formulas, PyTorch's own counter, and the cost model of thinned counts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import nets
import pocketprune
from pocketprune.deploy.latency import measure_latency
from pocketprune.structure.channel_groups import analyse
from pocketprune.structure.cost import count_macs, count_params
from pocketprune.structure.cost_model import CostModel, decision_of
from pocketprune.structure.layers import layers_of
from tests.structure.small import images, resnet


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(1, 32, 5, padding=2), (1, 1, 28, 28), 32 * 25 * 28 * 28),
        (nn.Conv2d(32, 32, 5, padding=2, groups=32), (1, 32, 14, 14), 32 * 25 * 14 * 14),
        (nn.Conv2d(8, 12, 3, stride=2, groups=4), (1, 8, 9, 9), 12 * 2 * 9 * 16),
        (nn.ConvTranspose2d(8, 6, 2, stride=2), (1, 8, 5, 5), 25 * 8 * 6 * 4),
        (nn.Linear(20, 30), (1, 20), 600),
        (nn.Conv1d(4, 6, 3), (1, 4, 10), 6 * 4 * 3 * 8),
        (nn.Conv3d(2, 3, 3), (1, 2, 4, 4, 4), 3 * 2 * 27 * 8),
    ],
)
def test_macs_of_a_layer_follow_the_formula(layer: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    assert count_macs(nn.Sequential(layer), torch.randn(shape)) == macs


@pytest.mark.parametrize("name", ["lenet", "plain", "resnet", "vgg16_bn", "mobilenet_v1", "mobilenet_v2"])
def test_macs_of_a_network_agree_with_pytorchs_counter(name: str) -> None:
    net = nets.create_net(name, num_classes=10, input_shape=(3, 32, 32)).eval()
    x = torch.randn(1, 3, 32, 32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    assert 2 * count_macs(net, x) == counter.get_total_flops()


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(x.shape[0], -1, 3, 4, 4).permute(2, 0, 3, 1, 4)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_macs_of_attention_count_both_products() -> None:
    tokens = 10
    assert count_macs(Attention(), torch.randn(1, tokens, 16)) == tokens * 16 * 64 + 2 * tokens * tokens * 16


def test_parameters_are_counted_once_however_often_they_are_used() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    assert count_params(net) == 16 + 4 + 4


def test_latency_is_a_positive_number_and_leaves_the_mode_alone() -> None:
    net = nn.Sequential(nn.Linear(4, 4)).train()
    assert measure_latency(net, torch.randn(2, 4), repeats=3) > 0
    assert net.training


NETWORKS = {
    "resnet v1 pad": lambda: resnet(1, "pad"),
    "resnet v2 projection": lambda: resnet(2, "projection"),
    "mobilenet_v1": lambda: nets.create_net("mobilenet_v1", num_classes=10, input_shape=(3, 32, 32)).eval(),
}
STRUCTURES = {}


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(NETWORKS)), st.sampled_from(["keep", "sample"]), st.randoms(use_true_random=False))
def test_cost_model_equals_the_thinned_network(name: str, shared_input: str, random: object) -> None:
    """Bilinear MACs and parameters are exact for any kept counts."""
    if name not in STRUCTURES:
        net = NETWORKS[name]()
        STRUCTURES[name] = (
            net,
            analyse(net, torch.randn(2, 3, 16, 16) if "resnet" in name else torch.randn(2, 3, 32, 32)),
        )
    net, structure = STRUCTURES[name]
    layers = layers_of(structure, shared_input)
    decisions = [decision_of(structure, layer) for layer in layers]
    counts = [random.randint(1, d.size) if d.layer.removable else d.size for d in decisions]
    model = CostModel(structure, decisions)
    x = structure.traced.example[0][0]
    result = pocketprune.prune_channels(
        structure,
        [x],
        [c / d.size for c, d in zip(counts, decisions, strict=True)],
        options=pocketprune.PruningOptions(
            shared_input=shared_input, selection="magnitude", points_per_layer=2, refit="pruned", check=False
        ),
    )
    assert [layer.kept for layer in result.layers] == counts
    assert model.macs(counts) == result.macs
    biases = sum(p.numel() for n, p in result.net.named_parameters() if n not in dict(net.named_parameters()))
    assert model.params(counts) == result.params - biases


def test_full_counts_cost_what_the_dense_network_costs() -> None:
    net = resnet(2, "projection")
    structure = analyse(net, images()[0][:2])
    decisions = [decision_of(structure, layer) for layer in layers_of(structure, "sample")]
    model, full = CostModel(structure, decisions), [d.size for d in decisions]
    assert model.macs(full) == count_macs(net, images()[0][:2])
    assert model.params(full) == count_params(net)
