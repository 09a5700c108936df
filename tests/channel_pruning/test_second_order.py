"""Second-order costs against measured divergences, and the ratios that follow from them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from pocketprune import MacsShare, PruningOptions, prune_channels
from pocketprune.channel_pruning.second_order import Change, output_metric, second_order_costs
from pocketprune.numerics.curvature import divergence_probe
from pocketprune.structure.channel_groups import analyse
from tests.structure.small import images, resnet


def test_probes_have_the_covariance_of_the_divergence() -> None:
    """The mean of g g^T is diag(p) - p p^T, the Hessian of the divergence."""
    logits = torch.tensor([[1.0, 0.2, -0.7]]).repeat(20_000, 1).requires_grad_()
    divergence_probe([logits], range(len(logits))).backward()
    p = logits[0].detach().softmax(0)
    found = logits.grad.T @ logits.grad / len(logits)
    assert torch.allclose(found, p.diag() - torch.outer(p, p), atol=0.01)


def test_probes_of_other_outputs_count_squares_over_the_variance() -> None:
    maps = torch.randn(64, 2, 4, 4, generator=torch.Generator().manual_seed(0)).mul_(3).requires_grad_()
    divergence_probe([maps], range(len(maps))).backward()
    assert torch.allclose(maps.grad.abs(), 1 / maps.detach().std(correction=0).expand_as(maps))


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_costs_equal_the_divergence_of_the_changed_network(kind: str) -> None:
    """A small change of one layer, once predicted and once made, also where the bias changes and positions add up."""
    net = resnet(1, "projection", 8)
    net.linear.weight.data *= 3
    batches = images(96)
    layer = net.linear if kind == "linear" else net.layer2[0].conv2
    path = "linear.weight" if kind == "linear" else "layer2.0.conv2.weight"
    structure = analyse(net, batches[0][:2])
    node = next(contraction.node for contraction in structure.contractions if contraction.weight == path)
    generator = torch.Generator().manual_seed(1)
    weight = 0.03 * layer.weight.detach().std() * torch.randn(layer.weight.shape, generator=generator)
    bias = 0.02 * torch.randn(len(layer.weight), generator=generator).double() * (kind == "linear")
    change = Change(node, weight.detach(), bias)
    numbered = [(x, range(100 * i, 100 * i + len(x))) for i, x in enumerate(batches)]
    total, count = second_order_costs(structure.traced, [[change]], numbered, probes=200)
    with torch.no_grad():
        before = torch.cat([net(x) for x in batches]).log_softmax(1)
        layer.weight += weight
        if kind == "linear":
            layer.bias += bias.float()
        after = torch.cat([net(x) for x in batches]).log_softmax(1)
    measured = float(functional.kl_div(after, before, reduction="sum", log_target=True))
    assert count == 96
    assert float(total[0]) == pytest.approx(measured, rel=0.15)


def test_a_share_of_the_macs_is_allocated_where_it_hurts_least() -> None:
    """A layer whose output the network scales to nothing loses more than its equal in another block."""
    net, batches = resnet(1, "pad", 14), images(128)
    nn.init.zeros_(net.layer1[0].bn2.weight)
    options = {"shared_input": "keep", "points_per_layer": 0, "check": False}
    found = {
        allocation: prune_channels(
            net, batches, MacsShare(0.6), options=PruningOptions(allocation=allocation, **options)
        )
        for allocation in ("divergence", "uniform")
    }
    kept = {layer.name: layer.kept for layer in found["divergence"].layers}
    assert kept["layer1.0.conv2"] == 1 < kept["layer1.1.conv2"]
    assert found["divergence"].output_error < found["uniform"].output_error
    assert 0.595 < found["divergence"].macs / found["divergence"].dense_macs <= 0.6


def small() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))
    return nn.Sequential(*layers).eval()


def test_the_metric_is_the_diagonal_of_the_gauss_newton_matrix() -> None:
    """Against J^T (diag(p) - p p^T) J at every position, by the Jacobian of the rest of the network."""
    net, x = small(), torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    structure = analyse(net, x[:2])
    node = next(contraction.node for contraction in structure.contractions if contraction.weight == "2.weight")
    found = output_metric(structure.traced, [node], [(x, range(6))], probes=3000)[node] / 3000
    exact = torch.zeros(4, dtype=torch.float64)
    for image in x.split(1):
        value = net[:3](image).detach()
        J = torch.autograd.functional.jacobian(net[3:], value).reshape(3, -1)
        p = net(image).detach()[0].softmax(0)
        exact += (J.T @ (p.diag() - torch.outer(p, p)) @ J).diagonal().view(4, -1).sum(1).double()
    assert torch.allclose(found, exact, rtol=0.1)


def test_outputs_that_the_network_ignores_have_no_say_in_selection() -> None:
    """Half of a layer's outputs are read by nobody: the channels that serve them alone go first."""
    net = small()
    with torch.no_grad():
        net[2].weight.zero_()
        net[2].weight[:2, :3], net[2].weight[2:, 3:] = 0.1, 5.0
        net[5].weight.view(3, 4, 4)[:, 2:] = 0.0
    batches = [torch.randn(128, 2, 4, 4, generator=torch.Generator().manual_seed(2))]
    kept = {}
    for metric in ("divergence", "norm"):
        options = PruningOptions(selection="obs", metric=metric, points_per_layer=0)
        kept[metric] = prune_channels(net, batches, 0.5, options=options).layers[1].kept_index
    assert kept["divergence"] == (0, 1, 2)
    assert kept["norm"] == (3, 4, 5)
