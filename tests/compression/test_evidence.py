"""Evidence against what a person would compute from the network's tensors by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.compression.evidence import check, gather
from pocketprune.compression.questions import PARTS, Question, Source
from pocketprune.compression.views import views_of
from pocketprune.numerics.criteria import CRITERIA, evaluate, kept_channels
from pocketprune.numerics.evidence import Evidence
from pocketprune.structure.channel_groups import Structure, analyse


class Joined(nn.Module):
    """Two branches of one sum: a plain, then a depthwise and a transposed convolution; batch norm, relu, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 4, 2, 2)
        self.depthwise, self.up = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.ConvTranspose2d(4, 6, 2, 2)
        self.norm, self.c = nn.BatchNorm2d(6), nn.Conv2d(6, 8, 3, padding=1, groups=2)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.depthwise(self.a(x)) + self.up(F.relu6(self.b(x)))))
        return self.fc(torch.tanh(self.c(y)).mean((2, 3)))


@pytest.fixture(scope="module")
def joined() -> Structure:
    torch.manual_seed(0)
    return analyse(Joined().double(), torch.randn(2, 3, 8, 8, dtype=torch.float64))


@pytest.fixture(scope="module")
def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [(torch.randn(n, 3, 8, 8, dtype=torch.float64, generator=generator), torch.arange(n) % 3) for n in (5, 4)]


def evidence(
    structure: Structure, group: str, criterion: str, batches: Sequence[Any] | None = None, **how: Any
) -> Evidence:
    question = Question(views_of(structure, structure.group(group)), criterion, **how)
    source = Source(structure, batches, F.cross_entropy)
    check([question], source)
    return gather([question], source)[0]


def test_every_criterion_has_its_part() -> None:
    assert set(PARTS) == set(CRITERIA)


def test_filters_are_those_of_all_members_in_forward_order(joined: Structure) -> None:
    net = joined.traced.net
    group = next(g for g in joined.groups if "a" in g.producers)
    assert group.size == 3  # a grouped convolution reads it: the unit is the same place in every group
    found = evidence(joined, group.name, "l1").filters
    expected = [net.a.weight, net.depthwise.weight, net.up.weight.transpose(0, 1)]
    assert len(found) == len(expected)
    for rows, weight in zip(found, expected, strict=True):
        assert torch.equal(rows, torch.stack([weight[[i, i + 3]].flatten() for i in range(3)]))
    columns = evidence(joined, group.name, "l1", side="channels").filters
    assert len(columns) == 1
    assert torch.equal(columns[0], net.c.weight.transpose(0, 1).flatten(1))
    scales = evidence(joined, group.name, "bn_scale").norm_scales
    assert torch.equal(scales[0], net.norm.weight.abs().view(2, 3).mean(0))
    norms = [rows.norm() for rows in evidence(joined, group.name, "l2", unit_norm=True).filters]
    assert torch.stack(norms).sub(1).abs().max() < 1e-12


@pytest.mark.parametrize("criterion", ["taylor", "gradient", "fisher"])
def test_gradients_are_autograds(joined: Structure, batches: list[Any], criterion: str) -> None:
    net = joined.traced.net.train()
    net.b.weight.requires_grad_(False)
    scores = evaluate(criterion, evidence(joined, "b", criterion, batches))
    assert net.training
    assert net.b.weight.grad is None
    assert not net.b.weight.requires_grad
    net.b.weight.requires_grad_(True)
    net.eval()
    products = []
    for images, labels in batches:
        gradient = torch.autograd.grad(F.cross_entropy(net(images), labels), net.b.weight)[0]
        products.append((gradient * net.b.weight.detach()).flatten(1))
    expected = {
        "taylor": sum(p.square().sum(1) for p in products),
        "gradient": sum(p.sum(1) for p in products).abs(),
        "fisher": sum(p.sum(1).square() for p in products),
    }
    assert torch.allclose(scores, expected[criterion], rtol=1e-10, atol=0)


def test_activations_are_those_of_the_rectifiers_on_the_group(joined: Structure, batches: list[Any]) -> None:
    net, images = joined.traced.net.eval(), [images for images, _ in batches]
    seen = torch.cat([F.relu6(net.b(x)).movedim(1, 0).flatten(1).detach() for x in images], 1)
    found = evidence(joined, "b", "apoz", images)
    assert torch.allclose(evaluate("apoz", found), (seen > 0).double().mean(1))
    found = evidence(joined, "b", "mean_activation", images)
    assert torch.allclose(evaluate("mean_activation", found), seen.mean(1))
    with pytest.raises(UserError, match=r"^criterion: 'apoz' needs rectifiers after the channels, and group 'c#?1?'"):
        evidence(joined, next(g.name for g in joined.groups if "c" in g.producers), "apoz", images)


@pytest.mark.parametrize("criterion", ["lasso", "obs"])
def test_moments_find_the_channels_that_nothing_misses(batches: list[Any], criterion: str) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 3)).double()
    with torch.no_grad():
        net[2].weight[:, [1, 4]] *= 1e-4
    structure = analyse(net, batches[0][0])
    found = evidence(structure, "0", criterion, batches)
    assert kept_channels(criterion, found, 4).tolist() == [0, 2, 3, 5]
    assert evaluate("magnitude", evidence(structure, "0", "magnitude")).argsort()[:2].sort().values.tolist() == [1, 4]


def test_what_is_missing_is_told_in_one_line(joined: Structure, batches: list[Any]) -> None:
    with pytest.raises(UserError, match=r"^criterion: 'bn_scale' needs batch norms after the channels, and group 'b'"):
        evidence(joined, "b", "bn_scale")
    with pytest.raises(UserError, match=r"^batches: none given; 'taylor' needs some$"):
        evidence(joined, "b", "taylor")
    with pytest.raises(UserError, match=r"^batches: without labels; 'fisher' needs pairs of inputs and labels$"):
        evidence(joined, "b", "fisher", [images for images, _ in batches])


def test_moments_need_a_reader_with_a_weight_of_its_own() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 2, 2))
    structure = analyse(net, torch.randn(2, 3, 8, 8))
    with pytest.raises(UserError, match=r"^criterion: 'obs' needs a plain convolution .* and group '0' has none$"):
        evidence(structure, "0", "obs", [torch.randn(2, 3, 8, 8)])


def test_a_random_order_is_the_same_each_time(joined: Structure) -> None:
    first, again = (evaluate("random", evidence(joined, "b", "random", seed=5)) for _ in range(2))
    assert torch.equal(first, again)
