"""Pruning and quantisation in one configuration, from creation to export."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compat.nncf import CompressionStage, NNCFConfig, create_compressed_model, register_default_init_args
from tests.compat.nncf.networks import Small

IMAGES, LABELS = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 10
PAIR = [
    {"algorithm": "filter_pruning", "pruning_init": 0.5, "params": {"pruning_target": 0.5}},
    {"algorithm": "quantization", "initializer": {"range": {"num_init_samples": 32}}},
]


def made(compression: Any, state: Any = None, *, data: bool = True) -> tuple[Any, nn.Module]:
    torch.manual_seed(0)
    config = NNCFConfig.from_dict({"input_info": {"sample_size": [1, 3, 8, 8]}, "compression": compression})
    if data:
        register_default_init_args(config, [(IMAGES, LABELS)])
    return create_compressed_model(Small(), config, state)


def test_the_pair_trains_and_is_stripped_to_a_smaller_network_in_integers() -> None:
    ctrl, net = made(PAIR)
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9)
    first = None
    for _ in range(8):
        ctrl.scheduler.step()
        loss = F.cross_entropy(net.train()(IMAGES), LABELS) + ctrl.loss()
        last = float(loss.detach())
        first = first or last
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert last < first
    assert ctrl.compression_stage() is CompressionStage.FULLY_COMPRESSED
    told = ctrl.statistics()
    assert told.quantization.layers == {"conv1": 8, "layer.0": 8, "conv2": 8, "fc": 8}
    assert "Statistics of the quantization algorithm" in told.to_str()
    with torch.no_grad():
        expected = net.eval()(IMAGES)
        small = ctrl.strip()
        assert torch.equal(net(IMAGES), expected)
    assert small.get_buffer("integers.layer__0.codes").shape[0] == 16


def test_refusals() -> None:
    with pytest.raises(
        UserError, match=r"^compression\[1\]: ranges are measured on images; register_default_init_args"
    ):
        made(PAIR, data=False)
    with pytest.raises(UserError, match=r"^compression\[1\]\.weights\.bits: 16 given; \[2, 8\]"):
        made([PAIR[0], {"algorithm": "quantization", "weights": {"bits": 16}}])
    with pytest.raises(UserError, match=r"^compression\[1\]\.ignored_scopes\[0\]: 'nothing' names no operation"):
        made([PAIR[0], {"algorithm": "quantization", "ignored_scopes": ["nothing"]}])
    with pytest.raises(UserError, match=r"^compression: 2 entries of quantization given"):
        made([*PAIR, PAIR[1]])
