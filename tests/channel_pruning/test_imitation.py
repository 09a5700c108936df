"""Recovery end to end: the pruned network comes closer to the dense one's outputs, without a label."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pocketprune import UserError
from pocketprune.channel_pruning.imitation import Imitation, agreement_with
from pocketprune.training.loop import train
from pocketprune.training.schedules import Cosine
from pocketprune.training.state import TrainSettings
from tests.channel_pruning.door import prune
from tests.structure.small import images, resnet

SETTINGS = TrainSettings(
    epochs=2, batch_size=16, optimizer="adam", lrn_rate=0.003, schedule=Cosine(0.1), weight_decay=0.0, clip_norm=1.0
)


def decided() -> nn.Module:
    """A network whose outputs tell classes apart."""
    net = resnet(1)
    net.linear.weight.data.mul_(10)
    return net


class Unlabelled:
    """A split without labels: each of them is -1, which no loss could use."""

    def __init__(self, count: int) -> None:
        self.images = torch.cat(images(count))

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int, **_: object) -> list[tuple[Tensor, Tensor]]:
        return [(x, torch.full((len(x),), -1)) for x in self.images.split(size)]


def recovered(net: nn.Module, dense: nn.Module, **changes: object) -> tuple[float, float]:
    """Train in place. Return the divergences on other images before and after."""
    task, judge = Imitation(net, dense, images()[0][:2]), agreement_with(dense, images(64, seed=5))
    settings = TrainSettings(**{**vars(SETTINGS), **changes})
    best = train(net, Unlabelled(96), settings, objective=task, callbacks=[task], judge=judge, progress=False).best
    assert best is not None
    assert judge(net.eval()) == best.quality
    return -best.start[0], -best.quality[0]


@pytest.mark.parametrize("shared_input", ["keep", "couple"])
def test_the_outputs_come_closer_and_nothing_else_changes(shared_input: str) -> None:
    dense = decided().train()
    small = prune(dense, images(), 0.4, shared_input=shared_input).net
    torch.manual_seed(1)
    for parameter in small.parameters():
        parameter.data.mul_(1 + 0.3 * torch.randn_like(parameter))
    state, statistics = copy.deepcopy(dense.state_dict()), copy.deepcopy(dict(small.named_buffers()))
    before, after = recovered(small, dense)
    assert after < 0.9 * before
    assert all(torch.equal(tensor, state[name]) for name, tensor in dense.state_dict().items())
    assert all(torch.equal(tensor, statistics[name]) for name, tensor in small.named_buffers())
    assert dense.training
    assert not any(module._forward_hooks for net in (small, dense) for module in net.modules())


def test_a_rate_that_destroys_the_network_leaves_it_as_it_was() -> None:
    dense = decided()
    small = prune(dense, images(), 0.5, shared_input="keep").net
    state = copy.deepcopy(small.state_dict())
    before, after = recovered(small, dense, lrn_rate=0.5, epochs=1)
    assert after == before
    assert all(torch.equal(tensor, state[name]) for name, tensor in small.state_dict().items())


def test_the_judge_gives_minus_the_divergence_and_needs_images() -> None:
    dense, other = resnet(1), resnet(1, size=14)
    x = torch.cat(images())
    with torch.no_grad():
        p, q = dense(x).softmax(1), other(x).softmax(1)
    expected = (p * (p / q).log()).sum(1).mean()
    assert agreement_with(dense, images())(other)[0] == pytest.approx(-float(expected), rel=1e-4)
    assert agreement_with(dense, images())(dense) == (0.0,)
    with pytest.raises(UserError, match="held_out: empty"):
        agreement_with(dense, [])
