"""The controller in a training script: checkpoints, momentum, stripping, export."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pocketprune
from pocketprune.common.errors import UserError
from pocketprune.compat.nncf import (
    CompressionStage,
    FilterPruningController,
    NNCFConfig,
    create_compressed_model,
    load_state,
    register_default_init_args,
)
from tests.compat.nncf.networks import Small, configured

SHAPE = [1, 3, 8, 8]
IMAGES, LABELS = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 10


def pruned(init: float = 0.5, **params: Any) -> tuple[FilterPruningController, nn.Module]:
    torch.manual_seed(0)
    return create_compressed_model(Small(), configured(SHAPE, init, **params))


def train(ctrl: FilterPruningController, net: nn.Module, optimizer: torch.optim.Optimizer, epochs: int = 1) -> None:
    """A script's loop, which calls nothing after `optimizer.step()`."""
    net.train()
    for _ in range(epochs):
        ctrl.scheduler.epoch_step()
        for images, labels in zip(IMAGES.split(16), LABELS.split(16), strict=True):
            ctrl.scheduler.step()
            loss = F.cross_entropy(net(images), labels) + ctrl.loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def momentum(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)


@torch.no_grad()
def output(net: nn.Module) -> Tensor:
    return net.eval()(IMAGES)


@pytest.mark.parametrize(
    ("params", "levels", "frozen"),
    [
        (
            {"schedule": "exponential_with_bias", "pruning_target": 0.7, "num_init_steps": 3, "pruning_steps": 5},
            [0, 0, 0, 0.1, 0.6489741, 0.6956869, 0.6996617, 0.7, 0.7, 0.7],
            8,
        ),
        (
            {"pruning_target": 0.7, "num_init_steps": 3, "pruning_steps": 5},
            [0, 0, 0, 0.1, 0.316148, 0.480385, 0.605178, 0.7, 0.7, 0.7],
            8,
        ),
        ({"pruning_target": 0.4, "pruning_steps": 15}, [0.1, 0.125692, 0.150650, 0.174896], 15),
        ({"schedule": "baseline", "num_init_steps": 1}, [0, 0.5, 0.5], 1),
    ],
)
def test_levels_and_freezing(params: dict[str, Any], levels: list[float], frozen: int) -> None:
    ctrl, _ = pruned(0.1, **params)
    assert ctrl.pruning_level == 0.1
    for epoch, level in enumerate(levels):
        ctrl.scheduler.epoch_step()
        assert ctrl.pruning_level == ctrl.scheduler.current_pruning_level == pytest.approx(level, abs=1e-6)
        assert ctrl.frozen == (epoch >= frozen)
    ctrl.scheduler.epoch_step(14)
    assert ctrl.pruning_level == pytest.approx(params.get("pruning_target", 0.5))


def test_stages() -> None:
    ctrl, net = pruned(0.0, pruning_steps=3)
    stages = [ctrl.compression_stage()]
    for _ in range(4):
        ctrl.scheduler.epoch_step()
        stages.append(ctrl.compression_stage())
    assert [int(stage) for stage in stages] == [0, 0, 1, 2, 2]
    ctrl.set_pruning_level(0.1)
    assert len(ctrl.control.kept()["layer.0"]) == 16, "frozen"
    ctrl.compression_rate = 0.25
    assert len(ctrl.control.kept()["layer.0"]) == 24
    assert ctrl.frozen
    ctrl.freeze(False)
    ctrl.disable_scheduler()
    ctrl.scheduler.epoch_step()
    assert len(ctrl.control.kept()["layer.0"]) == 24
    assert "Filter pruning level in current epoch" in ctrl.statistics().to_str()
    assert ctrl.model is net


def test_masked_places_stay_zero_whatever_momentum_does() -> None:
    ctrl, net = pruned()
    train(ctrl, net, momentum(net), epochs=2)
    masked = ctrl.control.masks.masked["layer.0"]
    expected = output(net)
    assert not net.conv2.weight[:, masked].any()
    assert not net.state_dict()["conv2.weight"][:, masked].any()
    assert torch.equal(output(copy.deepcopy(net)), expected)
    smaller, zeroed = ctrl.strip(), ctrl.strip(remove=False)
    assert smaller.conv2.weight.shape == (16, 16, 3, 3)
    assert (output(smaller) - expected).abs().max() < 1e-5
    assert torch.equal(output(zeroed), expected)
    assert not zeroed.layer[0].weight[masked].any()
    assert not zeroed.layer[1].bias[masked].any()
    assert int((zeroed.conv2.weight != 0).sum()) * 4 == zeroed.conv2.weight.numel()
    assert not any(module._forward_pre_hooks for module in [*smaller.modules(), *zeroed.modules()])


def test_stripping_in_place() -> None:
    ctrl, net = pruned()
    expected = output(net)
    assert ctrl.strip(do_copy=False) is net
    assert net.conv2.weight.shape == (16, 16, 3, 3)
    assert (output(net) - expected).abs().max() < 1e-5
    ctrl, net = pruned()
    assert ctrl.strip(do_copy=False, remove=False) is net
    assert torch.equal(output(net), expected)


def test_a_checkpoint_goes_on_to_the_same_bits() -> None:
    params = {"pruning_steps": 6, "pruning_target": 0.7}
    ctrl, net = pruned(0.1, **params)
    optimizer = momentum(net)
    train(ctrl, net, optimizer, epochs=4)
    file = io.BytesIO()
    checkpoint = {
        "state_dict": net.state_dict(),
        "compression_state": ctrl.get_compression_state(),
        "compression_stage": ctrl.compression_stage(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(checkpoint, file)
    file.seek(0)
    read = torch.load(file, weights_only=True)
    assert read["compression_stage"] is CompressionStage.PARTIALLY_COMPRESSED
    other, again = create_compressed_model(Small(), configured(SHAPE, 0.1, **params), read["compression_state"])
    assert other.scheduler.current_epoch == 3
    again.load_state_dict(read["state_dict"])
    second = momentum(again)
    second.load_state_dict(read["optimizer"])
    for control, own, each in ((ctrl, net, optimizer), (other, again, second)):
        train(control, own, each, epochs=2)
    assert ctrl.control.kept() == other.control.kept()
    assert torch.equal(output(net), output(again))
    with pytest.raises(UserError, match="of another policy"):
        create_compressed_model(Small(), configured(SHAPE, 0.1), read["compression_state"])


def test_weights_of_the_uncompressed_network_loaded_later_are_hidden_not_lost() -> None:
    dense = Small()
    with torch.no_grad():
        dense.conv2.weight.fill_(3.0)
    ctrl, net = pruned()
    wrapped = {f"module.{name}": tensor for name, tensor in dense.state_dict().items()}
    assert load_state(net, wrapped, is_resume=True) == len(wrapped)
    assert int((net.conv2.weight == 0).sum()) * 2 == net.conv2.weight.numel()
    ctrl.set_pruning_level(0.0)
    assert (net.conv2.weight == 3).all()
    with pytest.warns(UserWarning, match="1 tensors do not match: more"):
        load_state(net, {**wrapped, "more": torch.ones(1)})
    with pytest.raises(UserError, match=r"^state_dict_to_load: 1 tensors do not match: fc\.bias"):
        load_state(net, {**wrapped, "module.fc.bias": torch.ones(1)}, is_resume=True)


def test_batch_norms_are_adapted_to_registered_data() -> None:
    config = register_default_init_args(configured(SHAPE, 0.5), [(IMAGES, LABELS)])
    torch.manual_seed(0)
    ctrl, net = create_compressed_model(Small(), config)
    assert net.bn1.running_mean.abs().max() > 0
    net.bn1.reset_running_stats()
    ctrl.set_pruning_level(0.25, run_batchnorm_adaptation=True)
    assert net.bn1.running_mean.abs().max() > 0
    without = configured(SHAPE, 0.5)
    without["compression"]["initializer"] = {"batchnorm_adaptation": {"num_bn_adaptation_samples": 0}}
    _, net = create_compressed_model(Small(), register_default_init_args(without, [(IMAGES, LABELS)]))
    assert net.bn1.running_mean.abs().max() == 0
    with pytest.raises(UserError, match=r"^train_loader: can be read only once"):
        register_default_init_args(without, iter([IMAGES]))


def test_the_input_comes_from_the_data_where_the_configuration_has_none() -> None:
    config = NNCFConfig.from_dict({"compression": {"algorithm": "filter_pruning"}})
    with pytest.raises(UserError, match=r"^input_info: none given"):
        create_compressed_model(Small(), config)
    ctrl, _ = create_compressed_model(Small(), register_default_init_args(config, [(IMAGES, LABELS)]))
    ctrl.distributed()


@pytest.mark.parametrize("suffix", [pytest.param("onnx", marks=pytest.mark.slow), "pt2"])
def test_the_exported_file_is_that_of_the_smaller_network(tmp_path: Path, suffix: str) -> None:
    if suffix == "onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    ctrl, net = pruned()
    ctrl.export_model(str(tmp_path / f"small.{suffix}"), save_format="onnx_14")
    write = pocketprune.export_onnx if suffix == "onnx" else pocketprune.export_pt2
    write(tmp_path / f"dense.{suffix}", net, IMAGES[:2])
    sizes = [(tmp_path / f"{name}.{suffix}").stat().st_size for name in ("small", "dense")]
    assert sizes[0] < 0.8 * sizes[1]


def test_other_formats_are_refused() -> None:
    ctrl, _ = pruned()
    with pytest.raises(UserError, match=r"^save_format: 'tf' given; onnx is accepted"):
        ctrl.export_model("model.onnx", "tf")
    with pytest.raises(
        UserError, match=r"^save_path: 'model' given; a name that ends in .onnx, .xml, .pt2 is accepted"
    ):
        ctrl.export_model("model")
