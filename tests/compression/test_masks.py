"""A masked network computes what the thinned one does; masks can be lifted and taken off."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pocketprune.compression.masks import KINDS, ChannelMasks
from pocketprune.compression.views import views_of
from pocketprune.structure.channel_groups import Structure
from tests.structure.families import CONVOLUTIONAL
from tests.structure.families_dense import DENSE
from tests.structure.families_modern import MODERN
from tests.structure.oracle import analysed, difference, drop_some, outputs, randomise, thinned_by
from tests.training.tiny import conv_net, same_tensors

FAMILIES = CONVOLUTIONAL | MODERN | DENSE
QUICK = ("resnet_padded", "densenet", "mobilenet_v3", "unet", "vit")
CASES = [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in FAMILIES]


def masks_of(net: nn.Module, structure: Structure, kind: str) -> ChannelMasks:
    return ChannelMasks(net, [views_of(structure, g) for g in structure.groups if g.prunable], kind)


def booleans(dropped: list[tuple[object, list[int]]]) -> dict[str, Tensor]:
    found = {}
    for group, channels in dropped:
        found[group.name] = torch.zeros(group.size, dtype=torch.bool)
        found[group.name][channels] = True
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_masked_equals_removed(name: str, kind: str) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    net = randomise(FAMILIES[name](), generator)
    before = copy.deepcopy(net)
    inputs = torch.randn(3, 3, 16, 16, dtype=torch.float64, generator=generator)
    structure = analysed(net, inputs[:2])
    dropped = drop_some(structure, generator)
    thinned = thinned_by(structure, dropped)
    masks = masks_of(net, structure, kind)
    masks.set(booleans(dropped))
    assert difference(outputs(net, inputs), outputs(thinned, inputs)) <= 1e-9
    again = thinned_by(structure, dropped)  # what masks erase is not in the thinned network
    assert same_tensors(again, thinned)
    with masks.lifted():
        assert same_tensors(net, before)
    copied = copy.deepcopy(net)
    masks.detach()
    assert same_tensors(net, before)
    assert difference(outputs(copied, inputs), outputs(thinned, inputs)) <= 1e-9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["resnet_padded", "densenet", "unet"])
def test_masked_equals_removed_in_training_mode(name: str, kind: str) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    net = randomise(FAMILIES[name](), generator)
    inputs = torch.randn(6, 3, 16, 16, dtype=torch.float64, generator=generator)
    structure = analysed(net, inputs[:2])
    dropped = drop_some(structure, generator)
    thinned = thinned_by(structure, dropped).train()
    masks_of(net, structure, kind).set(booleans(dropped))
    net.train()
    for _ in range(2):
        made, expected = net(inputs).detach(), thinned(inputs).detach()
        assert difference([made], [expected]) <= 1e-9
    assert difference(outputs(net, inputs), outputs(thinned, inputs)) <= 1e-9


def small(kind: str) -> tuple[nn.Sequential, ChannelMasks]:
    net = conv_net()
    structure = analysed(net, torch.randn(2, 3, 8, 8))
    return net, masks_of(net, structure, kind)


FIRST, SECOND = (torch.arange(8) < 3), (torch.arange(8) < 5) & (torch.arange(8) > 1)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_optimizer_state_are_masked(kind: str) -> None:
    net, masks = small(kind)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    images = torch.randn(4, 3, 8, 8)
    for step in range(3):
        if step == 1:
            masks.set({"0": FIRST})
            masks.enforce_on(optimizer)
        optimizer.zero_grad()
        net(images).square().sum().backward()
        optimizer.step()
    weight = net[3].weight
    assert weight[:, FIRST].abs().max() == 0  # without a call of `enforce`
    assert weight[:, ~FIRST].abs().min() > 0
    assert optimizer.state[weight]["momentum_buffer"][:, FIRST].abs().max() == 0
    assert (net[0].weight[FIRST].abs().max() == 0) == (kind == "hard")
    assert (net[1].bias[FIRST].abs().max() == 0) == (kind == "hard")


def test_channels_come_back_as_they_were() -> None:
    net, masks = small("soft")
    before = net[3].weight.detach().clone()
    masks.set({"0": FIRST})
    with torch.no_grad():
        net[3].weight += 1  # an optimizer without masks
    masks.enforce()
    masks.set({"0": SECOND})
    assert torch.equal(net[3].weight[:, :2], before[:, :2])
    assert net[3].weight[:, SECOND].abs().max() == 0
    masks.set({"0": torch.zeros(8, dtype=torch.bool)})
    assert torch.equal(net[3].weight[:, :3], before[:, :3])
    assert torch.equal(net[3].weight[:, 3:], before[:, 3:] + 1)
    assert masks.state_dict()["stored"] == {}


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_comes_back_in_another_process(kind: str) -> None:
    net, masks = small(kind)
    before = copy.deepcopy(net)
    masks.set({"0": FIRST, "3": SECOND})
    other, others = small(kind)
    other.load_state_dict(net.state_dict())
    others.load_state_dict(masks.state_dict())
    assert same_tensors(net, other)
    assert others.kept("0") == [3, 4, 5, 6, 7]
    others.detach()
    assert same_tensors(other, before)
    assert not other[3].weight._backward_hooks


def test_a_compiled_forward_and_a_change_of_type_keep_the_masks() -> None:
    net, masks = small("soft")
    compiled = torch.compile(net, backend="aot_eager")
    masks.set({"0": FIRST})
    for dtype in (torch.float32, torch.float64):
        net.to(dtype).zero_grad()
        compiled(torch.randn(4, 3, 8, 8, dtype=dtype)).sum().backward()
        assert net[3].weight.grad[:, FIRST].abs().max() == 0
    masks.set({"0": SECOND})
    assert net[3].weight.dtype == torch.float64


def test_an_average_can_be_masked_too() -> None:
    net, masks = small("hard")
    average = copy.deepcopy(net)
    masks.set({"0": FIRST})
    masks.enforce(average)
    assert average[3].weight[:, FIRST].abs().max() == 0
