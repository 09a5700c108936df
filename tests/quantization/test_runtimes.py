"""Networks in integers in ONNX Runtime and OpenVINO: integer kernels, the same predictions, smaller files."""

import importlib.util
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

import pocketprune
from pocketprune import QuantizationOptions
from pocketprune.deploy.runtimes import open_onnx, open_openvino
from tests.quantization.small import images, pruned, rewritten, small

for _name in ("onnx", "onnxscript", "onnxruntime", "openvino"):
    if importlib.util.find_spec(_name) is None:
        pytest.skip(f"{_name} is not installed (extra `export`)", allow_module_level=True)


def _optimised(path: Path) -> Counter[str]:
    """Operators of a model as ONNX Runtime runs it."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = f"{path}.optimised"
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


@pytest.mark.parametrize("make", [small, pruned, rewritten])
def test_every_layer_runs_in_integer_kernels(make: object, tmp_path: Path) -> None:
    net: nn.Module = make()  # type: ignore[operator]
    x = images(32, seed=4)
    made = pocketprune.quantize(net, [images()])
    pocketprune.export_onnx(tmp_path / "net.onnx", made, x[:2], tolerance=0.1, repeats=1)
    found = _optimised(tmp_path / "net.onnx")
    layers = sum(isinstance(module, nn.Conv2d) for module in net.modules())
    assert found["QLinearConv"] == layers, found
    assert found["Conv"] == 0
    assert make is rewritten or found["QLinearAdd"] == 1
    with torch.no_grad():
        expected = made(x)
    gap = (open_onnx(tmp_path / "net.onnx")(x)[0] - expected).abs().max()
    assert float(gap) < 0.05 * float(expected.abs().max())


def test_openvino_takes_the_same_network_and_few_bits_are_clipped(tmp_path: Path) -> None:
    x = images(32, seed=4)
    made = pocketprune.quantize(small(), [images()], QuantizationOptions(weight_bits=4, activation_bits=4))
    pocketprune.export_openvino(tmp_path / "net.xml", made, x[:2], tolerance=0.3, repeats=1)
    with torch.no_grad():
        expected = made(x)
    gap = (open_openvino(tmp_path / "net.xml")(x)[0] - expected).square().mean()
    assert float(gap) < 0.03 * float(expected.var())


def test_pytorch_alone_runs_its_program(tmp_path: Path) -> None:
    made = pocketprune.quantize(rewritten(), [images()])
    pocketprune.export_pt2(tmp_path / "net.pt2", made, images(2), repeats=1)
    targets = {str(node.target) for node in torch.export.load(tmp_path / "net.pt2").graph.nodes}
    assert not any("pocketprune" in target for target in targets)
