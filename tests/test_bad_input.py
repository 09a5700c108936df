"""Every mistake ends in one line that says what is accepted; nothing is written, the caller's network is as it was."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pocketprune
from pocketprune import UserError
from tests.channel_pruning.door import prune
from tests.deploy.deployable import images, plain, thinned

Act = Callable[[nn.Module, Path], Any]
Case = tuple[Callable[[], Any], Act, str]
"""The network, what is done with it and a folder, and words of the message (a pattern)."""

X = images()
EXAMPLES: dict[str, tuple[Any, str]] = {
    "channels": (torch.randn(2, 4, 8, 8), r"example_inputs \(2x4x8x8 float32\) do not fit network Sequential: .* 3 ch"),
    "rank": (torch.randn(2, 8), r"example_inputs \(2x8 float32\) do not fit"),
    "spatial size": (torch.randn(2, 3, 9, 9), r"do not fit .*cannot be multiplied"),
    "whole numbers": (X.long(), r"example_inputs \(6x3x8x8 int64\) do not fit"),
    "float64": (X.double(), r"example_inputs \(6x3x8x8 float64\) do not fit"),
    "no images": (X[:0], r"example_inputs \(0x3x8x8 float32\) are empty; a batch of one or more is accepted"),
    "numpy": (X.numpy(), "example_inputs: ndarray given; a tensor, a tuple of arguments or a dict of keyword"),
    "nothing": (None, "example_inputs: NoneType given"),
    "text": ("images", "example_inputs: str given"),
    "an argument too many": ((X, X), r"\(6x3x8x8 float32, 6x3x8x8 float32\) do not fit .*3 were given"),
    "no argument": ((), "do not fit .*missing 1 required positional argument"),
    "an unknown keyword": ({"image": X}, "do not fit .*unexpected keyword argument 'image'"),
}
TAKES_EXAMPLES: dict[str, Callable[[nn.Module, Any, Path], Any]] = {
    "find_channel_groups": lambda net, x, _: pocketprune.find_channel_groups(net, x),
    "remove_channels": lambda net, x, _: pocketprune.remove_channels(net, x, {"0": [0]}),
    "list_layers": lambda net, x, _: pocketprune.list_layers(net, x),
    "count_macs": lambda net, x, _: pocketprune.count_macs(net, x),
    "measure_latency": lambda net, x, _: pocketprune.measure_latency(net, x),
}


def _pruned(net: nn.Module, batches: Any, **options: Any) -> Any:
    return prune(net, batches, **options)


def _batches(batches: Any, words: str, **options: Any) -> Case:
    return plain, lambda net, _: _pruned(net, batches, **options), words


BATCHES: dict[str, Case] = {
    "a tensor for a list": _batches(X, r"batches: Tensor given; .*images.split\(64\)"),
    "nothing": _batches(None, "batches: NoneType given"),
    "no batch": _batches([], "batches: empty"),
    "an empty batch": _batches([X[:0]], "batches: empty"),
    "text": _batches(["images"], "example_inputs: str given"),
    "labels too": _batches([(X, torch.zeros(6))], "do not fit network Sequential: .*3 were given"),
    "another shape later": _batches([X, X[:, :2]], r"batches\[1\]: \(6x2x8x8 float32\): .* 2 channels"),
    "another size later": _batches([X, torch.randn(2, 3, 9, 9)], r"batches\[1\]: \(2x3x9x9 float32\): "),
    "another type later": _batches([X, "images"], "example_inputs: str given"),
    "an argument less later": _batches([(X,), ()], "inputs: 0 values given, the network takes 1"),
    "NaN": _batches([X * float("nan")], "layer '0' meets NaN or infinite values"),
    "NaN, coupled": _batches([X / 0], "layer '0' meets NaN or infinite values", shared_input="couple"),
    "ratio as text": _batches([X], r"target: half given; a preserve ratio in \(0, 1\]", target="half"),
    "no ratio": _batches([X], r"target: None given; a preserve ratio in \(0, 1\]", target=None),
    "too few ratios for a list": _batches([X], "target: 1 given; 2 are accepted, one for each of", target=[0.5]),
    "fraction of a point": _batches([X], "points_per_layer: 1.5 given; .* a whole number", points_per_layer=1.5),
    "fraction of a channel": _batches([X], "channel_multiple: 2.5 given", channel_multiple=2.5),
    "negative cache": _batches([X], "cache_gb: -1 given", cache_gb=-1),
    "layers": _batches([X], "layers: 'conv2' given; .*did you mean 'conv2d'", layers="conv2"),
}


def _kept(kept: Any, words: str) -> Case:
    return plain, lambda net, _: pocketprune.remove_channels(net, X, kept), words


KEPT: dict[str, Case] = {
    "too large": _kept({"0": [0, 8]}, r"kept\['0'\] has index 8; 0 to 7 are accepted"),
    "negative": _kept({"0": [-1]}, r"kept\['0'\] has index -1; 0 to 7 are accepted"),
    "duplicated": _kept({"0": [1, 1]}, r"kept\['0'\] repeats a channel index"),
    "empty": _kept({"0": []}, r"kept\['0'\] is empty; 1 to 8 channel indices are accepted"),
    "empty tensor": _kept({"0": torch.empty(0, dtype=torch.long)}, r"kept\['0'\] is empty"),
    "one number": _kept({"0": 3}, r"kept\['0'\]: int given; a sequence of channel indices is accepted"),
    "text": _kept({"0": "01"}, r"kept\['0'\]: str given"),
    "fractions": _kept({"0": [1.5]}, r"kept\['0'\] holds 1.5 \(float\); whole channel indices are accepted"),
    "a mask": _kept({"0": torch.arange(8) < 2}, r"kept\['0'\] holds True \(bool\); whole channel indices"),
    "rows of indices": _kept({"0": torch.tensor([[0, 1]])}, r"kept\['0'\] holds \[0, 1\] \(list\)"),
    "no dict": _kept([0, 1], "kept: list given; a dict from group name to channel indices"),
    "a near name": _kept({"33": [0]}, "kept: no channel group '33'; did you mean '3'?"),
    "an unknown name": _kept({"conv": [0]}, "kept: no channel group 'conv'; accepted: 0, 3, 6"),
    "a name that is none": _kept({0: [0]}, "kept: no channel group '0'"),
    "a group that stays": _kept({"6": [0]}, r"kept\['6'\]: this group must stay whole: network output"),
}


class Chooser(nn.Module):
    """Two layers with the data's own way between them."""

    def __init__(self, way: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.way = nn.Linear(192, 8), nn.Linear(8, 4), way

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.way(self.a(x.flatten(1)).relu()))


def _frozen() -> nn.Module:
    return torch.jit.freeze(torch.jit.script(plain().eval()))


def _quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear})


def _exported() -> nn.Module:
    return torch.export.export(plain().eval(), (X,)).module()


def _halved(y: Tensor) -> Tensor:
    while y.norm() > 1:
        y = y / 2
    return y


NETS: dict[str, tuple[Callable[[], Any], str]] = {
    "a function": (lambda: torch.relu, "net: .* given; a torch.nn.Module is accepted"),
    "a class": (lambda: nn.Linear, "net: type given; a torch.nn.Module is accepted"),
    "frozen": (_frozen, "is a TorchScript module; the Python module it was made from is accepted"),
    "scripted": (lambda: torch.jit.script(plain()), "is a TorchScript module"),
    "quantised": (_quantised, r"net: layer '6' \(Linear\) is quantised; prune the floating-point network first"),
    "exported": (_exported, "net: GraphModule has no evaluation mode of its own, as what torch.export makes"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), r"net: layer '0' \(LazyConv2d\) has no weights yet"),
    "a branch": (
        lambda: Chooser(lambda y: y if y.sum() > 0 else -y),
        r"network Chooser cannot be traced: control flow in .*test_bad_input.py, line \d+, depends on the",
    ),
    "a loop": (lambda: Chooser(_halved), r"control flow in .*test_bad_input.py, line \d+, depends on the"),
    "a number": (lambda: Chooser(lambda y: y + int(y.argmax())), "control flow in .* depends on the data"),
    "a size": (lambda: Chooser(lambda y: y[y.sum(1) > 0]), r"index \(index\): the size of its result depends on"),
    "torch.cond": (
        lambda: Chooser(lambda y: torch.cond(y.sum() > 0, torch.sin, torch.cos, (y,))),
        r"cond \(cond\): control flow that depends on the data is not supported",
    ),
    "numpy": (lambda: Chooser(lambda y: torch.from_numpy(y.detach().numpy() + 1)), "network Chooser cannot be traced"),
}


def _file(content: Callable[[bytes], Any], words: str) -> Case:
    """Loading the artifact of a thinned network after `content` made something else of its bytes."""

    def act(net: nn.Module, folder: Path) -> Any:
        pocketprune.save(folder / "net.pt", thinned(plain()))
        made = content((folder / "net.pt").read_bytes())
        if isinstance(made, bytes):
            (folder / "net.pt").write_bytes(made)
        else:
            torch.save(torch.load(folder / "net.pt", weights_only=True) | made, folder / "net.pt")
        return pocketprune.load(folder / "net.pt", net)

    return plain, act, words


class Code:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


FILES: dict[str, Case] = {
    "newer": _file(lambda _: {"version": 99}, r"net.pt: written by a newer PocketPrune \(artifact version 99"),
    "truncated": _file(lambda data: data[:-100], "net.pt: damaged or truncated"),
    "tampered": _file(lambda _: {"frozen": "all"}, "net.pt: tampered with: frozen malformed"),
    "other tensors": _file(lambda _: {"tensors": {}}, "net.pt: its tensors do not fit its recipe"),
    "code inside": _file(lambda _: {"extra": Code()}, r"net.pt: holds code \(.*mkdir\), which is not executed"),
    "a pickle": _file(lambda _: pickle.dumps(Code()), "net.pt: damaged, or not a file of tensors"),
    "text": _file(lambda _: b"no network", "net.pt: damaged, or not a file of tensors"),
    "none": (plain, lambda net, folder: pocketprune.load(folder / "none.pt", net), "none.pt: no such file"),
    "into a pruned network": (
        lambda: thinned(plain()),
        _file(lambda data: data, "")[1],
        "was pruned already; the dense",
    ),
    "of another network": (lambda: plain(width=9), _file(lambda data: data, "")[1], "is of another architecture than"),
    "no network to save": (plain, lambda _, f: pocketprune.save(f / "net.pt", None), "net: NoneType given"),
    "no network to export": (plain, lambda _, f: pocketprune.export_pt2(f / "net.pt2", None, X), "net: NoneType given"),
    "no evaluation mode": (_exported, lambda net, f: pocketprune.export_pt2(f / "net.pt2", net, X), "no evaluation"),
    "inputs to export": (plain, lambda net, f: pocketprune.export_pt2(f / "net.pt2", net, X[:, :2]), "net.pt2: net"),
    "no repeats": (plain, lambda net, _: pocketprune.measure_latency(net, X, repeats=0), "repeats: 0 given; 1 or more"),
    "no parameters": (plain, lambda _, __: pocketprune.count_params(None), "net: NoneType given"),
}

TABLE: dict[str, Case] = {
    **{
        f"examples, {call}: {name}": (plain, lambda net, f, call=call, x=x: TAKES_EXAMPLES[call](net, x, f), words)
        for name, (x, words) in EXAMPLES.items()
        for call in (TAKES_EXAMPLES if name in ("channels", "text") else ("find_channel_groups",))
    },
    **{f"batches: {name}": case for name, case in BATCHES.items()},
    **{f"kept: {name}": case for name, case in KEPT.items()},
    **{
        f"network: {name}": (build, lambda net, _: pocketprune.remove_channels(net, X, {}), words)
        for name, (build, words) in NETS.items()
    },
    **{
        f"pruned network: {name}": (build, lambda net, _: _pruned(net, [X]), words)
        for name, (build, words) in NETS.items()
    },
    **{f"files: {name}": case for name, case in FILES.items()},
}


def _state(net: Any) -> Any:
    """All that a person may notice of a network."""
    if not isinstance(net, nn.Module):
        return None
    tensors = {
        name: (t if isinstance(t, nn.parameter.UninitializedTensorMixin) else t.detach().clone())
        for name, t in (*net.named_parameters(), *net.named_buffers())
    }
    modules = [
        (name, type(m), getattr(m, "training", None), len(m._forward_hooks), sorted(vars(m)))
        for name, m in net.named_modules()
    ]
    return tensors, modules, [p.requires_grad for p in net.parameters()]


@pytest.mark.parametrize("case", TABLE)
def test_a_mistake_is_told_in_one_line(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build, act, words = TABLE[case]
    torch.manual_seed(0)
    net = build()
    before = _state(net)
    with pytest.raises(UserError, match=words) as error:
        act(net, tmp_path)
    assert "\n" not in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"net.pt"}  # which the case itself wrote
    if before is not None:
        tensors, *rest = _state(net)
        assert list(rest) == list(before[1:])
        assert list(tensors) == list(before[0])
        assert all(t is before[0][name] or torch.equal(t, before[0][name]) for name, t in tensors.items())


def test_frozen_parameters_stay_frozen() -> None:
    """What does not require gradients is pruned and refitted all the same: no gradient is taken."""
    net = plain().eval()
    net[0].requires_grad_(False)
    for pruned in (_pruned(net, [X]).net, thinned(net)):
        frozen = [name for name, p in pruned.named_parameters() if not p.requires_grad]
        assert frozen == ["0.weight", "0.bias"]
