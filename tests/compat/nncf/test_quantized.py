"""The pair: weights are masked and pass through integer codes; what is stripped is smaller and in integers."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pocketprune.common.errors import UserError
from pocketprune.common.steps import in_integers
from pocketprune.compat.nncf import (
    CompressionStage,
    FilterPruningController,
    NNCFConfig,
    create_compressed_model,
    register_default_init_args,
)
from pocketprune.deploy.runtimes import open_onnx, open_openvino
from pocketprune.structure.cost import count_macs
from tests.compat.nncf.networks import Small

IMAGES, LABELS = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 10
LOADER = list(zip(IMAGES.split(16), LABELS.split(16), strict=True))


def pair(state: Any = None, **quantization: Any) -> tuple[FilterPruningController, nn.Module]:
    pruning = {"algorithm": "filter_pruning", "pruning_init": 0.25, "params": {"pruning_steps": 2}}
    entries = [pruning, {"algorithm": "quantization", **quantization}]
    config = NNCFConfig.from_dict({"input_info": {"sample_size": [1, 3, 8, 8]}, "compression": entries})
    torch.manual_seed(0)
    return create_compressed_model(Small(), register_default_init_args(config, LOADER), state)


@torch.no_grad()
def output(net: nn.Module) -> Tensor:
    return net.eval()(IMAGES)


@pytest.mark.slow
def test_trained_saved_and_stripped_together() -> None:
    ctrl, net = pair()
    assert ctrl.compression_stage() == CompressionStage.PARTIALLY_COMPRESSED
    optimizer = torch.optim.SGD(net.parameters(), 0.02, momentum=0.9)
    scales = net.quantizers.weights["conv2"].scale.detach().clone()
    for _ in range(2):
        ctrl.scheduler.epoch_step()
        net.train()
        for images, labels in LOADER:
            optimizer.zero_grad()
            F.cross_entropy(net(images), labels).backward()
            optimizer.step()
    assert ctrl.compression_stage() == CompressionStage.FULLY_COMPRESSED
    assert not torch.equal(net.quantizers.weights["conv2"].scale, scales)
    expected = output(net)
    assert torch.equal(output(net), expected), "in evaluation mode nothing is measured"
    assert torch.equal(output(copy.deepcopy(net)), expected)
    file = io.BytesIO()
    torch.save({"state_dict": net.state_dict(), "compression_state": ctrl.get_compression_state()}, file)
    file.seek(0)
    read = torch.load(file, weights_only=True)
    _, again = pair(read["compression_state"])
    again.load_state_dict(read["state_dict"])
    assert torch.equal(output(again), expected)
    stripped = ctrl.strip()
    assert in_integers(stripped)
    assert count_macs(stripped, IMAGES[:2]) < 0.6 * count_macs(Small(), IMAGES[:2])
    assert (output(stripped) - expected).norm() < 0.02 * expected.norm()
    assert torch.equal(output(net), expected), "stripping leaves the network as it was"


def test_what_the_entry_says() -> None:
    ctrl, net = pair(weights={"bits": 4}, overflow_fix="disable", ignored_scopes=["{re}.*NNCFLinear.*"])
    shown = ctrl.statistics().quantization
    assert shown.weights == {"conv1": 4, "layer.0": 4, "conv2": 4}
    assert "fc (asked for)" in shown.in_float
    assert "Statistics of the quantization algorithm:" in ctrl.statistics().to_str()
    assert "quantizers" in dict(net.named_children())
    with pytest.raises(UserError, match=r"^compression\[1\]\.weights\.bits: 9 given; 2 to 8 are accepted"):
        pair(weights={"bits": 9})
    config = NNCFConfig.from_dict(
        {
            "input_info": {"sample_size": [1, 3, 8, 8]},
            "compression": [{"algorithm": "filter_pruning"}, {"algorithm": "quantization"}],
        }
    )
    with pytest.raises(UserError, match=r"^train_loader: none registered; quantization measures ranges"):
        create_compressed_model(Small(), config)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "xml"])
def test_the_exported_pair_computes_what_the_stripped_network_does(tmp_path: Path, suffix: str) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime") if suffix == "onnx" else ("openvino",):
        pytest.importorskip(package)
    ctrl, _ = pair()
    ctrl.set_pruning_level(0.5)
    ctrl.export_model(str(tmp_path / f"pair.{suffix}"))
    open_file = open_onnx if suffix == "onnx" else open_openvino
    expected, found = output(ctrl.strip()), open_file(tmp_path / f"pair.{suffix}")(IMAGES[:1])[0]
    assert float((found - expected[:1]).norm()) < 0.05 * float(expected[:1].norm())
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"QuantizeLinear" in written or b"FakeQuantize" in written
