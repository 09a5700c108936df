"""Exported files: they load, compute what the network computes, at any batch size; or nothing is written."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pocketprune
from pocketprune.common.errors import UserError
from pocketprune.deploy import export
from pocketprune.deploy.runtimes import Runner, latencies, open_onnx, open_openvino, open_pt2, run_eagerly
from tests.deploy.deployable import Halves, Residual, images, plain, refitted, thinned

Writer = Callable[..., pocketprune.Exported]
WRITERS: dict[str, tuple[Writer, Callable[[Path], Runner]]] = {
    "net.onnx": (pocketprune.export_onnx, open_onnx),
    "net.pt2": (pocketprune.export_pt2, open_pt2),
    "net.xml": (pocketprune.export_openvino, open_openvino),
}
NETS: dict[str, Callable[[], nn.Module]] = {
    "own code": lambda: refitted(plain()),
    "graph": lambda: thinned(Halves()),
    "samplers": lambda: refitted(Residual()),
}


def require(name: str) -> None:
    """Skip the test where the format's packages are not installed."""
    for package in {"onnx": ("onnx", "onnxscript", "onnxruntime"), "xml": ("openvino", "onnx", "onnxscript")}.get(
        name.rpartition(".")[2], ()
    ):
        pytest.importorskip(package)


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kind", NETS)
def test_a_file_computes_what_the_network_computes(kind: str, name: str, tmp_path: Path) -> None:
    require(name)
    torch.manual_seed(0)
    net, (write, load) = NETS[kind]().train(), WRITERS[name]
    made = write(tmp_path / name, net, images(2), repeats=2)
    assert net.training
    assert (made.path, made.batch) == (tmp_path / name, None)
    assert made.size == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert 0 < made.latency_ms < 1000
    assert 0 < made.torch_latency_ms < 1000
    runner, eager = load(made.path), run_eagerly(net.eval())
    for count in (1, 2, 7):
        ours, theirs = eager(images(count, seed=5)), runner(images(count, seed=5))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        if count in (1, 3):
            assert made.max_difference <= 1e-4 * max(1.0, float(ours[0].abs().max()))
    companions = {"net.xml": ["net.bin", "net.xml"]}.get(name, [name])
    assert sorted(file.name for file in tmp_path.iterdir()) == companions


class Named(nn.Module):
    """Several inputs, one of them nested, and several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 5, 3), nn.Linear(5, 2)

    def forward(self, image: Tensor, extra: dict[str, Tensor], *, scale: Tensor) -> dict[str, Any]:
        pooled = self.conv(image).relu().mean((2, 3))
        return {"pooled": pooled * scale, "classes": (self.out(pooled), extra["shift"] + pooled.sum())}


@pytest.mark.parametrize("name", WRITERS)
def test_several_inputs_and_outputs_keep_their_order(name: str, tmp_path: Path) -> None:
    require(name)
    inputs = ((images(2), {"shift": torch.ones(2, 1)}), {"scale": torch.full((2, 1), 3.0)})
    net, (write, load) = Named().eval(), WRITERS[name]
    assert write(tmp_path / name, net, inputs, repeats=1).batch is None
    torch.testing.assert_close(run_eagerly(net)(inputs), load(tmp_path / name)(inputs))


def test_the_onnx_model_names_its_batch_and_output(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    require("net.onnx")
    pocketprune.export_onnx(tmp_path / "net.onnx", plain().eval(), images(1), repeats=1)
    graph = onnx.load(tmp_path / "net.onnx").graph
    onnx.checker.check_model(onnx.load(tmp_path / "net.onnx"))
    assert [graph.input[0].type.tensor_type.shape.dim[0].dim_param, graph.output[0].name] == ["batch", "output"]


class OneBatch(nn.Module):
    """Python's `len` fixes the batch size when the network is traced."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), 3 * 64).relu()


def test_a_fixed_batch_size_is_told(tmp_path: Path) -> None:
    made = pocketprune.export_pt2(tmp_path / "net.pt2", OneBatch(), images(2), repeats=1)
    assert made.batch == 2


@pytest.fixture
def kept_file(tmp_path: Path) -> Path:
    """A file that is there already."""
    (tmp_path / "net.pt2").write_text("of before")
    return tmp_path / "net.pt2"


def refusal(path: Path, net: nn.Module, write: Writer = pocketprune.export_pt2) -> str:
    """The line an export is refused with; what was in the folder is as it was."""
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    with pytest.raises(UserError) as caught:
        write(path, net, images(2), repeats=1)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _loads(change: Callable[[list[Tensor]], list[Tensor]]) -> Callable[[Path], Runner]:
    def load(path: Path) -> Runner:
        runner = open_pt2(path)
        return lambda inputs: change(runner(inputs))

    return load


WRONG: dict[str, tuple[Callable[[list[Tensor]], list[Tensor]], str]] = {
    "other numbers": (lambda outputs: [outputs[0] * 1.01], "differs from PyTorch's by 0.0"),
    "no numbers": (lambda outputs: [outputs[0] * float("nan")], "differs from PyTorch's by inf"),
    "another shape": (lambda outputs: [outputs[0][:, :2]], "differs from PyTorch's by inf"),
    "nothing": (lambda outputs: outputs[5], "does not run at batch 1: IndexError"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_computes_something_else_is_not_kept(
    case: str, kept_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, words = WRONG[case]
    kind = dataclasses.replace(export.FORMATS["torch.export"], load=_loads(change))
    monkeypatch.setitem(export.FORMATS, "torch.export", kind)
    torch.manual_seed(0)
    message = refusal(kept_file, plain().eval())
    assert words in message
    assert message.endswith("nothing was written")


def test_a_network_that_cannot_be_exported_says_why(kept_file: Path) -> None:
    class Undecided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    assert "network Undecided cannot be exported to torch.export: " in refusal(kept_file, Undecided())


def test_outputs_that_are_no_tensors_are_named(tmp_path: Path) -> None:
    require("net.onnx")

    class Flagged(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x.relu(), 3

    message = refusal(tmp_path / "net.onnx", Flagged(), pocketprune.export_onnx)
    assert message.endswith("cannot be exported to ONNX: it returns 3; a model of this format returns tensors only")


def test_names_and_folders_that_do_not_serve_are_told(tmp_path: Path) -> None:
    assert "ends in .pt2" in refusal(tmp_path / "net.onnx", plain())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        pocketprune.export_pt2(tmp_path / "file" / "net.pt2", plain(), images(2))


@pytest.mark.parametrize("name", ["net.onnx", "net.xml"])
def test_a_missing_extra_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "onnxscript" else found(n, *a))
    message = refusal(tmp_path / name, plain(), WRITERS[name][0])
    assert message.endswith('onnxscript, not installed here; pip install "pocketprune[export]" installs it')
    with pytest.raises(UserError, match="export: needs onnxscript"):
        export.check_extra()


def test_calls_are_timed_in_turns() -> None:
    order: list[str] = []

    def slow() -> None:
        order.append("slow")
        sum(range(200_000))

    def fast() -> None:
        order.append("fast")

    times = latencies([slow, fast], repeats=3, warmup=1)
    assert order == ["slow", "fast"] * 4
    assert times[0] > times[1] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("name", WRITERS)
def test_a_network_on_a_gpu_is_exported_for_the_cpu(name: str, tmp_path: Path) -> None:
    require(name)
    net, (write, load) = refitted(Residual().cuda().eval()), WRITERS[name]
    write(tmp_path / name, net, images(2).cuda(), repeats=1)
    assert {p.device.type for p in net.parameters()} == {"cuda"}
    torch.testing.assert_close(run_eagerly(net.cpu().eval())(images(3)), load(tmp_path / name)(images(3)))
