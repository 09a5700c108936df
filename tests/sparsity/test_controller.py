"""Masks on weights in a training: exact counts, bit-exact resumption, kinds of masks, the closed form."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compression.callback import callback as channel_callback
from pocketprune.compression.controller import compress
from pocketprune.sparsity.callback import SparsityCallback
from pocketprune.sparsity.controller import SparsityController, sparsify
from pocketprune.training.checkpoint import Checkpoints
from pocketprune.training.loop import train
from pocketprune.training.schedules import Cosine
from pocketprune.training.state import TrainSettings
from tests.training.methods import Interrupting
from tests.training.tiny import TinySplit, conv_net, same_tensors

SETTINGS = TrainSettings(
    batch_size=32, lrn_rate=0.05, epochs=6, schedule=Cosine(0.1), clip_norm=1.0, ema_decay=0.9, summ_step=2, save_step=5
)
RAMP = {"name": "agp", "init": 0.2, "target": 0.75, "start": 1, "steps": 4}
POLICIES: list[dict[str, Any]] = [
    {"mask": "hard", "schedule": RAMP},
    {"mask": "soft", "schedule": {**RAMP, "unit": "step", "steps": 10, "frequency": 3}, "ranking": "global"},
    {"mask": "live", "schedule": RAMP, "ranking": "sensitivity", "sensitivity": 0.8},
    {"mask": "soft", "schedule": {**RAMP, "target": 0.5}, "pattern": "2:4", "ignore": ["0"], "criterion": "obs"},
]
X = torch.randn(2, 3, 8, 8)


def prepared(policy: dict[str, Any], seed: int = 0) -> tuple[nn.Module, SparsityController]:
    net = conv_net(dropout=0.3, seed=seed)
    return net, sparsify(net, policy, X, list(TinySplit().batches(48)))


@pytest.mark.parametrize("policy", POLICIES, ids=["hard", "soft", "live", "obs"])
def test_interrupted_anywhere_the_training_ends_equal_to_the_bit(tmp_path: Path, policy: dict[str, Any]) -> None:
    expected, whole = prepared(policy)
    options = {"objective": Interrupting(None), "callbacks": [SparsityCallback(whole)], "progress": False}
    train(expected, TinySplit(), SETTINGS, **options)
    generator, checkpoints = random.Random(0), Checkpoints(tmp_path, keep=2)
    for at in (*(generator.randint(1, 12) for _ in range(2)), None):
        net, controller = prepared(policy, seed=1 if checkpoints.steps() else 0)
        options = {"callbacks": [SparsityCallback(controller)], "checkpoints": checkpoints, "progress": False}
        with contextlib.suppress(KeyboardInterrupt):
            train(net, TinySplit(), SETTINGS, objective=Interrupting(at), **options)
            break
    assert same_tensors(net, expected)
    assert str(controller.statistics()) == str(whole.statistics())
    assert not any(controller.masks.weights()[name][mask].any() for name, mask in controller.masks.masked.items())


@pytest.mark.parametrize(("ranking", "equal"), [("local", True), ("global", False)])
def test_counts_are_exact_by_layer_or_together(ranking: str, equal: bool) -> None:
    net, controller = prepared({"level": 0.8, "ranking": ranking})
    controller.epoch_step()
    sizes = [net[i].weight.numel() for i in (0, 3, 8)]
    zeros = [int((net[i].weight == 0).sum()) for i in (0, 3, 8)]
    assert sum(zeros) == (sum(round(0.8 * n) for n in sizes) if equal else round(0.8 * sum(sizes)))
    assert (zeros == [round(0.8 * n) for n in sizes]) is equal


def test_by_sensitivity_the_threshold_is_so_many_deviations() -> None:
    net, controller = prepared({"ranking": "sensitivity", "sensitivity": 0.5})
    expected = {i: net[i].weight.detach().abs() < 0.5 * net[i].weight.detach().std() for i in (0, 3, 8)}
    controller.epoch_step()
    assert all(torch.equal(net[i].weight == 0, mask) for i, mask in expected.items())


def test_what_hides_comes_back_unless_it_is_erased() -> None:
    for kind, returns in (("soft", True), ("hard", False)):
        net, controller = prepared({"mask": kind})
        before = net[3].weight.detach().clone()
        controller.set_levels([0.9])
        controller.set_levels([0.25])
        kept = ~controller.masks.masked["3"]
        assert torch.equal(net[3].weight[kept], before[kept]) is returns
        controller.detach()
        assert torch.equal(net[3].weight, before) is returns


def test_live_weights_are_trained_while_they_hide() -> None:
    net, controller = prepared({"mask": "live", "level": 0.5})
    before = net[3].weight.detach().clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    controller.epoch_step()
    net(torch.randn(4, 3, 8, 8)).square().sum().backward()
    controller.before_optimizer()
    optimizer.step()
    controller.step()
    mask = controller.masks.masked["3"]
    assert not net[3].weight[mask].any()
    controller.detach()
    assert (net[3].weight[mask] != before[mask]).float().mean() > 0.9


def test_they_stack_with_masks_on_channels() -> None:
    net = conv_net()
    weights = sparsify(net, {"level": 0.5, "mask": "soft"})
    channels = compress(net, X, {"ignore": ["8"], "channels": 0.5, "schedule": "one_shot"})
    train(net, TinySplit(), SETTINGS, callbacks=[channel_callback(channels), SparsityCallback(weights)], progress=False)
    assert all(int((net[i].weight == 0).sum()) >= net[i].weight.numel() // 2 for i in (0, 3, 8))
    smaller = channels.remove().eval()
    images = torch.randn(4, 3, 8, 8)
    assert smaller[3].weight.shape == (4, 4, 3, 3)
    assert torch.allclose(smaller(images), net.eval()(images), atol=1e-5)


def test_the_closed_form_stays_nearer_to_the_dense_outputs() -> None:
    images, left = torch.randn(64, 3, 8, 8), []
    for criterion in ("magnitude", "obs"):
        net = conv_net()
        dense = net.eval()(images).detach()
        sparsify(net, {"criterion": criterion, "level": 0.75}, X, [images]).set_levels([0.75])
        assert int((net[3].weight == 0).sum()) == round(0.75 * net[3].weight.numel())
        left.append(float((net(images) - dense).norm() / dense.norm()))
    assert left[1] < 0.5 * left[0]


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        ({"pattern": "2:4"}, "pattern: 2:4 given, and layer '0' does not fit: it has 3 inputs, which 4 does not"),
        ({"pattern": "2:4", "level": 0.6}, "target: 0.6 given; 2:4 masks at most 0.5"),
        ({"level": 1.0}, "target: 1.0 given; expected a number in"),
        ({"layers": ["conv"]}, "layers: 'conv' given"),
        ({"ignore": ["*"]}, "layers: *: no layer is left for it"),
        ({"ignore": ["Conv3d"]}, "ignore: 'Conv3d' given; did you mean 'Conv2d'?"),
        ({"criterion": "magnitud"}, "did you mean 'magnitude'?"),
        ({"ranking": "sensitivity", "sensitivity": 0.0}, "sensitivity: 0.0 given; expected"),
        ({"ranking": "sensitivity", "pattern": "4x1"}, "ranking: 'sensitivity' given; it is a threshold"),
        ({"mask": "firm"}, "mask: 'firm' given; expected one of hard, soft, live"),
        ({"patern": "2:4"}, "policy: 'patern' given; did you mean 'pattern'?"),
        ({"schedule": {"step": 3}}, "schedule: 'step' given; did you mean 'steps'?"),
    ],
)
def test_what_cannot_be_done_is_one_line(policy: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        sparsify(conv_net(), policy)
    assert line in str(caught.value)


def test_the_closed_form_asks_for_inputs() -> None:
    with pytest.raises(UserError, match=r"^batches: none given; the criterion 'obs' needs inputs$"):
        sparsify(conv_net(), {"criterion": "obs"}, X)
