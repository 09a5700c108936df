"""Zeros in weights stay zeros in eight bits."""

import torch

from pocketprune.quantization.quantizing import quantize
from pocketprune.sparsity.controller import sparsify
from tests.training.tiny import TinySplit, conv_net


def test_masked_weights_have_the_code_zero() -> None:
    net = conv_net().eval()
    controller = sparsify(net, {"level": 0.5, "pattern": "2:4", "ignore": ["0"]})
    controller.set_levels([0.5])
    codes = quantize(net, [next(iter(TinySplit().batches(64)))[0]]).state_dict()
    for name in ("3", "8"):
        found = codes[f"integers.{name}.codes"]
        assert found.dtype == torch.int8
        assert not found[controller.masks.masked[name]].any()
