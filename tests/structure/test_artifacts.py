"""Artifacts: what is saved comes back, and nothing else is believed."""
from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pocketprune
from pocketprune.errors import UserError
from pocketprune.structure import artifacts
from pocketprune.structure.thinning import recipe_of

from .deployable import Halves, Residual, images, plain, refitted, thinned


def trained(net: nn.Module) -> nn.Module:
    """The network after a few steps, so that every number and statistic has moved."""
    net.train()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(2):
        optimiser.zero_grad()
        net(images(seed=step)).square().sum().backward()
        optimiser.step()
    return net


def outputs(net: nn.Module) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(net).eval()(images(3, seed=9))


def snapshot(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def assert_same(mine: nn.Module, theirs: nn.Module) -> None:
    a, b = mine.state_dict(), theirs.state_dict()
    assert list(a) == list(b)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert torch.equal(outputs(mine), outputs(theirs))


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], nn.Module], str]] = {
    "module": (plain, thinned, "module"),
    "graph": (Halves, thinned, "graph"),
    "samplers": (Residual, refitted, "module"),
    "new biases": (plain, refitted, "module"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_saved_is_loaded(case: str, tmp_path: Path) -> None:
    build, prune, form = CASES[case]
    torch.manual_seed(0)
    dense = build()
    net = trained(prune(dense))
    assert recipe_of(net).form == form
    pocketprune.save(tmp_path / "net.pt", net)
    fresh = build()
    before = snapshot(fresh)
    loaded = pocketprune.load(tmp_path / "net.pt", fresh)
    assert_same(loaded, net)
    assert all(torch.equal(before[name], t) for name, t in fresh.state_dict().items())  # untouched
    assert all(t.data_ptr() not in {p.data_ptr() for p in fresh.parameters()} for t in loaded.parameters())
    assert sum(p.numel() for p in loaded.parameters()) < sum(p.numel() for p in fresh.parameters())
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]


def test_the_cases_are_what_they_are_called() -> None:
    torch.manual_seed(0)
    assert recipe_of(refitted(Residual())).samplers
    assert "3" in recipe_of(refitted(plain())).new_biases


@pytest.mark.parametrize("build", [plain, Halves])
def test_a_loaded_network_trains_and_is_saved_again(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    dense = build()
    pocketprune.save(tmp_path / "a.pt", thinned(dense))
    again = trained(pocketprune.load(str(tmp_path / "a.pt"), dense))
    assert all(p.grad is not None for p in again.parameters())
    pocketprune.save(str(tmp_path / "b.pt"), copy.deepcopy(again))
    assert_same(pocketprune.load(tmp_path / "b.pt", dense), again)
    with pytest.raises(UserError, match="pruned already"):
        pocketprune.remove_channels(again, images(), {})


@pytest.mark.parametrize("build", [plain, Halves])
def test_modes_frozen_parameters_and_dtypes_come_back(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    dense = build().train()
    net = thinned(dense).double()
    net.get_submodule("0" if build is plain else "conv").weight.requires_grad_(False)
    next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d)).eval()
    pocketprune.save(tmp_path / "net.pt", net)
    loaded = pocketprune.load(tmp_path / "net.pt", dense.eval())
    mine, theirs = dict(loaded.named_parameters()), dict(net.named_parameters())
    assert {n: p.requires_grad for n, p in mine.items()} == {n: p.requires_grad for n, p in theirs.items()}
    assert {n: m.training for n, m in loaded.named_modules()} == {n: m.training for n, m in net.named_modules()}
    assert {t.dtype for t in loaded.parameters()} == {torch.float64}


def test_a_network_that_was_not_pruned_is_saved_as_it_is(tmp_path: Path) -> None:
    net = trained(plain())
    pocketprune.save(tmp_path / "net.pt", net)
    loaded = pocketprune.load(tmp_path / "net.pt", plain())
    assert_same(loaded, net)
    assert recipe_of(loaded) is None


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        net = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2))
        net[2].weight = net[1].weight
        return net
    net = trained_linear(tied())
    pocketprune.save(tmp_path / "net.pt", net)
    loaded = pocketprune.load(tmp_path / "net.pt", tied())
    assert loaded[1].weight is loaded[2].weight
    assert torch.equal(loaded[1].weight, net[1].weight)


def trained_linear(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        net[1].weight.add_(1)
    return net


def test_a_compiled_or_parallel_network_is_saved_as_itself(tmp_path: Path) -> None:
    dense = plain()
    net = thinned(dense)
    for wrapped in (torch.compile(net), nn.DataParallel(net)):
        pocketprune.save(tmp_path / "net.pt", wrapped)
        assert_same(pocketprune.load(tmp_path / "net.pt", dense), net)


def test_the_file_holds_tensors_and_plain_values_only(tmp_path: Path) -> None:
    net = thinned(Halves())
    pocketprune.save(tmp_path / "net.pt", net)
    content = torch.load(tmp_path / "net.pt", weights_only=True)
    assert (content["format"], content["version"]) == ("pocketprune", 1)
    sizes = sum(t.numel() * t.element_size() for t in content["tensors"].values())
    assert sizes == sum(t.numel() * t.element_size() for t in net.state_dict().values())


def test_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"when": Path("now")}
    with pytest.raises(UserError, match=r"_extra_state.*cannot be saved"):
        pocketprune.save(tmp_path / "net.pt", nn.Sequential(Odd(2, 2)))
    assert not list(tmp_path.iterdir())


def test_a_crash_while_writing_leaves_the_file_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = plain()
    pocketprune.save(tmp_path / "net.pt", dense)
    before = (tmp_path / "net.pt").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        pocketprune.save(tmp_path / "net.pt", thinned(dense))
    assert (tmp_path / "net.pt").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def refusal(path: Path, dense: nn.Module) -> str:
    """The line `load` refuses a file with; the dense network is then as it was."""
    before = snapshot(dense)
    with pytest.raises(UserError) as caught:
        pocketprune.load(path, dense)
    assert all(torch.equal(before[name], t) for name, t in dense.state_dict().items())
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A pruned network's file."""
    path = tmp_path_factory.mktemp("artifact") / "net.pt"
    pocketprune.save(path, thinned(plain()))
    return path.read_bytes()


@pytest.fixture
def saved(artifact: bytes, tmp_path: Path) -> Path:
    (tmp_path / "net.pt").write_bytes(artifact)
    return tmp_path / "net.pt"


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The artifact with its content changed."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def test_truncated_files_are_refused(saved: Path) -> None:
    data = saved.read_bytes()
    for length in (0, 1, 2, 100, len(data) // 2, len(data) - 1):
        saved.write_bytes(data[:length])
        assert refusal(saved, plain()).startswith(f"{saved}: damaged")


def test_a_flipped_byte_is_noticed(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    weight = torch.load(saved, weights_only=True)["tensors"]["3.weight"].numpy().tobytes()
    data[data.find(weight[:64])] ^= 0x20
    saved.write_bytes(data)
    assert "damaged" in refusal(saved, plain())


class Code:
    def __reduce__(self) -> Any:
        return os.system, ("echo run > executed",)


def test_code_is_not_run(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.parent)
    rewrite(saved, lambda content: content.update(extra=Code()))
    assert "holds code" in refusal(saved, plain())
    assert not (saved.parent / "executed").exists()


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    torch.save(plain().state_dict(), tmp_path / "weights.pt")
    assert "no PocketPrune artifact" in refusal(tmp_path / "weights.pt", plain())
    (tmp_path / "text.pt").write_text("no network at all")
    assert "not a file of tensors" in refusal(tmp_path / "text.pt", plain())
    assert refusal(tmp_path / "absent.pt", plain()).endswith("no such file")
    assert refusal(tmp_path, plain()).endswith("no such file")


def test_a_newer_version_is_told(saved: Path) -> None:
    rewrite(saved, lambda content: content.update(version=artifacts.VERSION + 1))
    assert f"newer PocketPrune (artifact version {artifacts.VERSION + 1}" in refusal(saved, plain())


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to
    return change


TAMPERED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "other shape of a tensor": (_set("tensors", "3.weight", to=torch.zeros(10, 8, 3, 3)), "of another shape: 3.weight"),
    "missing tensor": (lambda c: c["tensors"].pop("6.bias"), "1 missing: 6.bias"),
    "unexpected tensor": (_set("tensors", "new", to=torch.zeros(1)), "1 unexpected: new"),
    "tensors of another kind": (_set("tensors", to=[]), "tensors malformed"),
    "a tensor that is none": (_set("tensors", "6.bias", to=3), "1 missing: 6.bias"),
    "no recipe": (lambda c: c.pop("recipe"), "recipe or version malformed"),
    "recipe of another kind": (_set("recipe", to=7), "lacks fields or has unknown ones"),
    "unknown field": (_set("recipe", "hook", to="x"), "lacks fields or has unknown ones"),
    "malformed field": (_set("recipe", "kept", to={"0.weight": [1, 2]}), "malformed kept"),
    "unknown form": (_set("recipe", "form", to="script"), "malformed form"),
    "unknown tensor name": (_set("recipe", "kept", "9.weight", to={0: [0]}), "thins '9.weight', which dense_net lacks"),
    "index out of range": (_set("recipe", "kept", "0.weight", 0, to=[1, 2, 8]), "keeps indices of '0.weight'"),
    "repeated index": (_set("recipe", "kept", "0.weight", 0, to=[1, 1, 2]), "keeps indices of '0.weight'"),
    "empty axis": (_set("recipe", "kept", "0.weight", 0, to=[]), "keeps indices of '0.weight'"),
    "unknown axis": (_set("recipe", "kept", "0.weight", 9, to=[0]), "keeps indices of '0.weight'"),
    "other indices": (_set("recipe", "kept", "0.weight", 0, to=[0, 1]), "of another shape: 0.weight"),
    "sampler without weight": (_set("recipe", "samplers", "0.weight", to=[0]), "sampler of '0.weight'"),
    "bias on nothing": (_set("recipe", "new_biases", to=["2"]), "adds a bias to '2'"),
    "shapes of another network": (_set("recipe", "dense", "0.weight", to=[9, 3, 3, 3]), "another architecture"),
    "frozen of another kind": (_set("frozen", to="all"), "frozen malformed"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_artifact_is_refused(case: str, saved: Path) -> None:
    change, words = TAMPERED[case]
    message = refusal(rewrite(saved, change), plain())
    assert message.startswith(f"{saved}: ")
    assert words in message


def test_a_tampered_graph_recipe_is_refused(tmp_path: Path) -> None:
    pocketprune.save(tmp_path / "net.pt", thinned(Halves()))
    rewrite(tmp_path / "net.pt", _set("recipe", "example", to=(({"shape": [2, 5], "dtype": "float32"},), {})))
    assert refusal(tmp_path / "net.pt", Halves()).startswith(f"{tmp_path / 'net.pt'}: ")


def test_another_architecture_is_told_by_its_tensors(saved: Path) -> None:
    message = refusal(saved, plain(width=9))
    assert "dense_net (Sequential) is of another architecture" in message
    assert "of another shape: 0.weight (9, 3, 3, 3) instead of (8, 3, 3, 3)" in message
    assert "missing: 0.weight" in refusal(saved, Halves())
    with pytest.raises(UserError, match="Module is accepted"):
        pocketprune.load(saved, saved)


def test_a_pruned_network_is_not_filled(saved: Path) -> None:
    assert "pruned already" in refusal(saved, thinned(plain()))


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_artifacts_move_between_devices(case: str, tmp_path: Path) -> None:
    build, prune, _ = CASES[case]
    net = prune(build().cuda().eval()) if case in ("samplers", "new biases") else thinned(build())
    pocketprune.save(tmp_path / "net.pt", net.cuda())
    on_cpu = pocketprune.load(tmp_path / "net.pt", build())
    on_gpu = pocketprune.load(tmp_path / "net.pt", build().cuda())
    assert {t.device.type for t in on_cpu.state_dict().values()} == {"cpu"}
    assert {t.device.type for t in on_gpu.state_dict().values()} == {"cuda"}
    with torch.no_grad():
        ours, theirs = on_cpu.eval()(images()), on_gpu.eval()(images().cuda()).cpu()
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)
