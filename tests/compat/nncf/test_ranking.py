"""The learned ranking: a script's functions score candidates; coefficients are saved and read as NNCF's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compat.nncf import create_compressed_model, register_default_init_args
from tests.compat.nncf.networks import Small, configured

LEGR = {"interlayer_ranking_type": "learned_ranking", "pruning_flops_target": 0.3}
LOADER = [(torch.randn(4, 3, 8, 8), torch.arange(4))]


def test_learned_saved_and_read_again(tmp_path: Path) -> None:
    path, steps = tmp_path / "coefficients.json", list[int]()

    def train_steps(loader: Any, net: nn.Module, optimizer: Any, ctrl: Any, train_steps: int) -> None:
        assert loader is LOADER
        ctrl.scheduler.step()
        steps.append(train_steps)
        net(loader[0][0]).sum().backward()
        optimizer.step()

    def validate(net: nn.Module, loader: Any) -> tuple[float, float]:
        return 0.0, float((net.conv2.weight != 0).sum())  # the fewer the better

    legr = {"generations": 6, "population_size": 4, "train_steps": 2, "random_seed": 1}
    config = configured([1, 3, 8, 8], 0.3, **LEGR, legr_params=legr, save_ranking_coeffs_path=str(path))
    register_default_init_args(config, LOADER, train_steps_fn=train_steps, validate_fn=validate, val_loader=LOADER)
    torch.manual_seed(0)
    net = Small()
    before = net.fc.weight.clone()
    ctrl, _ = create_compressed_model(net, config)
    assert steps == [2] * 6
    assert torch.equal(net.fc.weight, before)
    saved = json.loads(path.read_text())
    assert list(saved) == [
        "Small/NNCFConv2d[conv1]/conv2d_0",
        "Small/Sequential[layer]/NNCFConv2d[0]/conv2d_0",
        "Small/NNCFConv2d[conv2]/conv2d_0",
    ]
    again = configured([1, 3, 8, 8], 0.3, **LEGR, load_ranking_coeffs_path=str(path))
    torch.manual_seed(0)
    other, _ = create_compressed_model(Small(), again)
    assert other.control.kept() == ctrl.control.kept()
    path.write_text("{}")
    with pytest.raises(UserError, match=r"^load_ranking_coeffs_path: .*json has no coefficients of 'conv1'"):
        create_compressed_model(Small(), again)
    path.write_text("[")
    with pytest.raises(UserError, match=r"^load_ranking_coeffs_path: .*json cannot be read"):
        create_compressed_model(Small(), again)


def test_what_learning_needs_is_named() -> None:
    with pytest.raises(
        UserError, match=r"^train_steps_fn: not registered; learned_ranking needs train_steps_fn, val_l"
    ):
        create_compressed_model(Small(), configured([1, 3, 8, 8], **LEGR))
