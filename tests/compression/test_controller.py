"""A policy carried out in a person's own loop and in the project's: masks by schedule, removal, statistics."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from nets.resnet import resnet
from pocketprune.common.errors import UserError
from pocketprune.compression.controller import Controller, compress
from pocketprune.compression.policy import Policy, Rule
from pocketprune.compression.schedules import Schedule
from pocketprune.structure.channel_groups import find_channel_groups
from pocketprune.structure.cost import count_macs, count_params
from tests.structure.oracle import difference, outputs
from tests.training.tiny import TinySplit, conv_net, same_tensors

EXAMPLE = torch.randn(2, 3, 8, 8)


def resnet20(channels: int, side: int) -> nn.Module:
    torch.manual_seed(0)
    shape = (channels, side, side)
    return resnet(num_classes=10, input_shape=shape, resnet_version=1, resnet_shortcut="pad")


def controlled(**policy: Any) -> tuple[nn.Sequential, Controller]:
    net = conv_net()
    split = TinySplit()
    return net, compress(net, EXAMPLE, policy, list(split.batches(32)))


def train(net: nn.Module, controller: Controller, epochs: int, optimizer: torch.optim.Optimizer) -> list[int]:
    """A person's own loop; how many channels of the first layer are masked in each epoch."""
    counts = []
    for epoch in range(epochs):
        controller.epoch_step()
        for images, labels in TinySplit().batches(32, shuffle=True, epoch=epoch):
            optimizer.zero_grad()
            (F.cross_entropy(net(images), labels) + controller.loss()).backward()
            optimizer.step()
            controller.step()
        counts.append(8 - len(controller.kept()["0"]))
    return counts


def test_resnet20_on_digits_one_shot_then_removed_exactly() -> None:
    digits = load_digits()
    images = torch.tensor(digits.images[:256], dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target[:256])
    net = resnet20(1, 8)
    controller = compress(net, images[:2], {"macs": 0.5, "schedule": "one_shot", "criterion": "l1"})
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    controller.epoch_step()
    losses = []
    for x, y in zip(images.split(64), labels.split(64), strict=True):
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        controller.step()
        losses.append(float(loss.detach()))
    smaller = controller.remove()
    assert losses[-1] < losses[0]
    adapted = controller.remove(adapt=images.split(64))
    assert not torch.equal(adapted.bn1.running_mean, smaller.bn1.running_mean)
    share = count_macs(smaller, images[:2]) / count_macs(resnet20(1, 8), images[:2])
    assert share == pytest.approx(0.5, abs=0.005)
    masked, removed = (outputs(n.double(), images.double()) for n in (net, smaller))
    assert difference(removed, masked) < 1e-9


@pytest.mark.parametrize("mask", ["soft", "hard"])
def test_a_ramp_in_ones_own_loop(mask: str) -> None:
    net, controller = controlled(mask=mask, schedule={"name": "linear", "target": 0.5, "start": 1, "steps": 3})
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    assert train(net, controller, 5, optimizer) == [0, 0, 2, 4, 4]
    assert controller.levels == [0.5]
    smaller = controller.remove()
    assert smaller[0].weight.shape[0] == smaller[3].weight.shape[0] == 4
    images = torch.randn(5, 3, 8, 8)
    assert difference(outputs(smaller, images), outputs(net, images)) < 1e-6
    shown = controller.statistics()
    assert (shown.macs, shown.params) == (count_macs(smaller, EXAMPLE), count_params(smaller))
    assert [(row.name, row.channels, row.kept) for row in shown.groups] == [("0", 8, 4), ("3", 8, 4), ("8", 4, 4)]
    assert "8             4     4  0.000  linear in 8 " not in str(shown)
    assert str(shown).splitlines()[1].split() == ["0", "8", "4", "0.500"]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ("soft", [[0, 1], [5, 6, 7], [4, 5, 6, 7], [0, 1, 2, 3], [0, 1, 2, 3]]),
        ("hard", [[0, 1], [0, 1, 7], [0, 1, 6, 7], [0, 1, 6, 7], [0, 1, 6, 7]]),
    ],
)
def test_soft_masks_change_until_they_freeze_and_hard_ones_only_grow(mask: str, expected: list[list[int]]) -> None:
    ramp = {"name": "linear", "init": 0.25, "target": 0.5, "steps": 3}
    net, controller = controlled(mask=mask, groups=["0"], schedule=ramp)
    rising = (torch.arange(8.0) + 1).view(8, 1, 1, 1).expand(net[0].weight.shape)
    for filters, masked in zip((rising, rising.flip(0), rising.flip(0), rising, rising.flip(0)), expected, strict=True):
        with torch.no_grad():
            net[0].weight.copy_(filters)
        controller.masks.enforce()
        controller.epoch_step()
        assert controller.masks.masked["0"].nonzero().flatten().tolist() == masked


def test_a_schedule_by_steps() -> None:
    net, controller = controlled(
        groups="0", schedule={"name": "agp", "unit": "step", "target": 0.75, "start": 2, "steps": 5, "frequency": 2}
    )
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    counts = []
    controller.epoch_step()
    for images, labels in TinySplit().batches(12):
        optimizer.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()
        controller.step(optimizer)
        counts.append(8 - len(controller.kept()["0"]))
    assert counts == [0, 0, 0, 5, 5, 6, 6, 6]


@pytest.mark.parametrize(
    "criterion", ["taylor", "gradient", "fisher", "apoz", "mean_activation", "lasso", "obs", "random", "magnitude"]
)
def test_criteria_that_read_batches_run_while_masked(criterion: str) -> None:
    net, controller = controlled(
        groups="0", criterion=criterion, schedule={"name": "linear", "init": 0.25, "target": 0.5, "steps": 2}
    )
    net.train()
    statistics = net[1].running_mean.clone()
    for _ in range(2):
        controller.epoch_step()
    assert len(controller.kept()["0"]) == 4
    assert net.training
    assert torch.equal(net[1].running_mean, statistics)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_gradients_are_those_of_the_network_as_it_trains() -> None:
    """A masked channel has none, so that it stays masked while the level rises."""
    ramp = {"name": "linear", "init": 0.25, "target": 0.5, "steps": 3}
    net, controller = controlled(criterion="taylor", schedule=ramp)
    masked = []
    for _ in range(4):
        controller.epoch_step()
        masked.append(controller.masks.masked["0"].clone())
        with torch.no_grad():
            net[3].weight.add_(torch.randn_like(net[3].weight))
        controller.masks.enforce()
    assert [int(mask.sum()) for mask in masked] == [2, 3, 4, 4]
    assert all(bool((later | earlier == later).all()) for earlier, later in pairwise(masked))


@pytest.mark.parametrize("ranking", ["group", "global"])
@pytest.mark.parametrize("share_of", ["channels", "macs", "params", "latency"])
def test_targets_are_met_from_both_sides(ranking: str, share_of: str) -> None:
    torch.manual_seed(0)
    convs = [nn.Sequential(nn.Conv2d(a, b, 3), nn.ReLU()) for a, b in ((3, 100), (100, 140), (140, 120))]
    net = nn.Sequential(*convs, nn.Flatten(), nn.Linear(480, 10))
    example = torch.randn(2, 3, 8, 8)
    sizes = {group.name: group.size for group in find_channel_groups(net, example) if group.prunable}

    def cost(kept: dict[str, int]) -> float:
        return 10 - sum(sizes[name] - count for name, count in kept.items()) / 200

    for level in (0.02, 0.3) if share_of != "latency" else (0.05, 0.12):
        rule = Rule(ranking=ranking, share_of=share_of, schedule=Schedule(name="one_shot", target=level))
        controller = compress(net, example, Policy(rules=(rule,)), cost=cost)
        controller.epoch_step()
        row = controller.statistics().rules[0]
        assert row.reached == pytest.approx(level, abs=0.03 if (share_of, ranking) == ("channels", "group") else 0.005)
        assert row.asked == level
        if share_of in ("macs", "params"):
            smaller = controller.remove()
            count = count_params if share_of == "params" else lambda n: count_macs(n, example)
            assert 1 - count(smaller) / count(net) == pytest.approx(row.reached, abs=1e-9)
        controller.detach()


def test_regularisers_have_autograds_gradients() -> None:
    net, controller = controlled(regulariser="group_lasso", strength=0.5, groups="0")
    controller.loss().backward()
    weight = net[0].weight.detach().clone().requires_grad_(True)
    (0.5 * sum(filter_.norm() for filter_ in weight)).backward()
    assert torch.allclose(net[0].weight.grad, weight.grad)
    assert net[3].weight.grad is None
    net, controller = controlled(regulariser="group_lasso", strength=2.0, groups="0", side="channels", mask="hard")
    controller.set_levels([0.5])
    controller.loss().backward()
    assert torch.isfinite(net[3].weight.grad).all()  # also where all of a norm is zero
    assert controller.loss().item() == pytest.approx(
        2 * float(net[3].weight.detach().transpose(0, 1).flatten(1).norm(dim=1).sum())
    )
    net, controller = controlled(regulariser="bn_scale", strength=0.1, groups="0")
    with torch.no_grad():
        net[1].weight[:4] = -1
    controller.loss().backward()
    assert torch.allclose(net[1].weight.grad, 0.1 * net[1].weight.detach().sign())


def masked_filters(policy: dict[str, Any], *widths: int, values: Tensor) -> list[int]:
    """The filters of one convolution that a policy masks, each filled with one value."""
    net = nn.Sequential(nn.Conv2d(widths[0], widths[1], 5), nn.ReLU(), nn.Conv2d(widths[1], 2, 1))
    with torch.no_grad():
        net[0].weight.copy_(values.view(-1, 1, 1, 1).expand(net[0].weight.shape))
    controller = compress(net, torch.randn(2, widths[0], 8, 8), policy)
    controller.epoch_step()
    return controller.masks.masked["0"].nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("criterion", "level", "widths", "first", "expected"),
    [
        ("geometric_median", 0.2, (5, 10), 1, [4, 5]),
        ("geometric_median", 0.6, (5, 10), 1, [2, 3, 4, 5, 6, 7]),
        ("l1", 0.2, (1, 5), 0, [0]),
        ("l1", 0.6, (5, 10), 0, [0, 1, 2, 3, 4, 5]),
        ("l2", 0.6, (5, 10), 0, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_masks_of_nnis_tests(criterion: str, level: float, widths: tuple[int, int], first: int, expected: Any) -> None:
    policy = {"criterion": criterion, "channels": level, "schedule": "one_shot"}
    assert masked_filters(policy, *widths, values=torch.arange(widths[1]) + first) == expected


def distance(net: nn.Module, expected: list[Tensor], images: Tensor) -> float:
    return float((outputs(net, images)[0] - expected[0]).norm() / expected[0].norm())


@pytest.mark.parametrize("mask", ["soft", pytest.param("hard", marks=pytest.mark.slow)])
def test_a_refit_makes_up_for_what_is_removed(mask: str) -> None:
    torch.manual_seed(0)
    net = resnet20(3, 8)
    batches = list(TinySplit(128).batches(64))
    images = torch.cat([images for images, _ in batches])
    net.train()(images)
    expected = outputs(net, images)
    policy = {"schedule": {"name": "one_shot", "target": 0.4}, "mask": mask}
    controller = compress(net, images[:2], policy)
    controller.epoch_step()
    removed = distance(controller.remove(), expected, images)
    refitted = controller.remove(refit=[x for x, _ in batches])
    assert distance(refitted, expected, images) < 0.5 * removed
    assert not refitted.training
    assert distance(net, expected, images) == pytest.approx(removed, rel=1e-4)
    controller.detach()
    assert distance(net, expected, images) == 0
    stepwise = compress(net, images[:2], {**policy, "refit": True}, batches)
    stepwise.epoch_step()
    assert distance(net, expected, images) < 0.5 * removed
    assert distance(stepwise.remove(), outputs(net, images), images) < 1e-5
    names = list(net.state_dict())
    stepwise.detach()
    assert list(net.state_dict()) == names


def test_a_network_can_have_its_numbers_back() -> None:
    net, controller = controlled(mask="hard", schedule={"name": "one_shot", "target": 0.5})
    before = copy.deepcopy(net)
    controller.epoch_step()
    assert not same_tensors(net, before)
    controller.mask(copied := copy.deepcopy(before))
    assert same_tensors(net, copied)
    controller.detach()
    assert same_tensors(net, before)
    assert list(net.state_dict()) == list(before.state_dict())
    assert float(controller.loss()) == 0


def test_the_state_goes_on_in_another_controller() -> None:
    policy = {"schedule": {"name": "linear", "target": 0.75, "steps": 4}}
    net, controller = controlled(**policy)
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    train(net, controller, 2, optimizer)
    other, follower = controlled(**policy)
    other.load_state_dict(net.state_dict())
    follower.load_state_dict(controller.state_dict())
    second = torch.optim.SGD(other.parameters(), 0.05)
    assert train(net, controller, 2, optimizer) == train(other, follower, 2, second)
    assert same_tensors(net, other)
    third = controlled(schedule={"name": "linear", "target": 0.5, "steps": 4})[1]
    with pytest.raises(UserError, match=r"^state: of another policy: rules: "):
        third.load_state_dict(controller.state_dict())


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"groups": "7"}, "groups: '7' given; accepted: 0, 3"),
        ({"groups": "3", "criterion": "bn_scale"}, "criterion: 'bn_scale' needs batch norms after the channels, and"),
        ({"groups": "3", "regulariser": "bn_scale"}, "regulariser: 'bn_scale' needs batch norms, and group '3' has"),
        ({"refit": True}, "batches: none given; a policy with refit=True needs some"),
        ({"share_of": "latency"}, "cost: none given; a rule with share_of='latency' needs it"),
        ({"macs": 0.95, "floor": 0.5}, "target: 0.95 given; 0 to 0.6"),
        ({"multiple": 64}, "multiple: 64 given, and no group of the rule can lose channels; the widest has "),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(policy: dict[str, Any], message: str) -> None:
    net = conv_net()
    with pytest.raises(UserError) as caught:
        compress(net, EXAMPLE, policy)
    assert str(caught.value).startswith(message)
    assert not any(parameter._backward_hooks for parameter in net.parameters())


def test_batches_must_last() -> None:
    with pytest.raises(UserError, match=r"^batches: can be read only once"):
        compress(conv_net(), EXAMPLE, {}, (batch for batch in [EXAMPLE]))
    for batches, message in (
        (None, ": none given; 'taylor' needs some"),
        ([], ": empty; 'taylor' needs at least one"),
        ([EXAMPLE], ": without labels; 'taylor' needs pairs"),
        (EXAMPLE, ": Tensor given; a list or a data loader is accepted"),
        (5, ": int given; a list or a data loader is accepted"),
        ([(EXAMPLE[:, :1], torch.zeros(len(EXAMPLE)))], r"\[0\]: \(2x1x8x8 float32\): the network does not take it: "),
    ):
        with pytest.raises(UserError, match=rf"^batches{message}"):
            compress(conv_net(), EXAMPLE, {"criterion": "taylor"}, batches)


def test_a_controller_refuses_what_it_cannot_use() -> None:
    controller = compress(conv_net(), EXAMPLE, {})
    for levels in ([0.1, 0.2], [1.0], 0.5):
        with pytest.raises(UserError, match=r"^levels: "):
            controller.set_levels(levels)
    with pytest.raises(UserError, match=r"^state: not the state of a controller$"):
        controller.load_state_dict({})
    with pytest.raises(UserError, match=r"^refit: empty"):
        controller.remove(refit=[])
    with pytest.raises(UserError, match=r"^batches: empty"):
        controller.remove(adapt=[])


class Named(nn.Module):
    """A network whose forward is torch's own, but for keyword arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.body = conv_net()

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)


def test_keyword_inputs() -> None:
    net = Named()
    batches = [({"images": images}, labels) for images, labels in TinySplit().batches(32)]
    controller = compress(net, {"images": EXAMPLE}, {"criterion": "taylor", "schedule": "one_shot"}, batches)
    controller.epoch_step()
    assert len(controller.kept()["body.0"]) == 4
    assert controller.remove().body[0].weight.shape[0] == 4
