"""Weights from outside: every state dict that fits is read, and what does not fit is told by its keys."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

import pocketprune
from pocketprune.common.errors import UserError
from pocketprune.deploy import state_dict
from tests.common.hostile import deflate, inside_itself, odd_tensors

ODD = odd_tensors((3, 1, 3, 3))


def _net(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, 2))


def _same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def _refusal(path: Path, net: nn.Module) -> str:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(UserError) as caught:
        state_dict.load_into(net, path, source=f"--init_checkpoint={path}")
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    message = str(caught.value)
    assert message.startswith(f"--init_checkpoint={path}: ")
    assert "\n" not in message
    return message


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    trained, fresh = _net(), _net()
    state_dict.save(tmp_path / "checkpoints" / "dense.pt", trained)
    state_dict.load_into(fresh, tmp_path / "checkpoints" / "dense.pt", source="x")
    assert _same(trained, fresh)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["dense.pt"]


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "net", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_and_prefixes_are_taken_off(tmp_path: Path, wrapper: str | None, prefix: str) -> None:
    trained, fresh = _net(), _net()
    content: dict = {prefix + name: tensor for name, tensor in trained.state_dict().items()}
    if wrapper:
        content = {wrapper: content, "epoch": 7, "best": 0.9}
    torch.save(content, tmp_path / "given.pth")
    state_dict.load_into(fresh, tmp_path / "given.pth", source="x")
    assert _same(trained, fresh)


def test_the_networks_own_prefix_is_no_prefix(tmp_path: Path) -> None:
    def inside() -> nn.Module:
        return nn.ModuleDict({"module": _net()})

    trained, fresh = inside(), inside()
    torch.save(trained.state_dict(), tmp_path / "given.pt")
    state_dict.load_into(fresh, tmp_path / "given.pt", source="x")
    assert _same(trained, fresh)


def test_the_only_mapping_of_tensors_is_the_state_dict(tmp_path: Path) -> None:
    trained, fresh = _net(), _net()
    optimiser = {"state": {0: {"momentum": torch.zeros(1)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"best": trained.state_dict(), "optimiser": optimiser, "epoch": 7}, tmp_path / "given.pt")
    state_dict.load_into(fresh, tmp_path / "given.pt", source="x")
    assert _same(trained, fresh)


def test_what_is_no_tensor_is_left_out(tmp_path: Path) -> None:
    trained, fresh = _net(), _net()
    torch.save({**trained.state_dict(), "epoch": 7}, tmp_path / "given.pt")
    state_dict.load_into(fresh, tmp_path / "given.pt", source="x")
    assert _same(trained, fresh)


@pytest.mark.parametrize("prefix", ["", "module.", "model.module."])
def test_safetensors_are_read(tmp_path: Path, prefix: str) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    trained, fresh = _net(), _net()
    content = {prefix + name: tensor for name, tensor in trained.state_dict().items()}
    safetensors.save_file(content, tmp_path / "given.safetensors")
    state_dict.load_into(fresh, tmp_path / "given.safetensors", source="x")
    assert _same(trained, fresh)
    data = (tmp_path / "given.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(data[: len(data) // 2])
    assert "damaged, or not a safetensors file" in _refusal(tmp_path / "half.safetensors", fresh)
    assert "no such file" in _refusal(tmp_path / "absent.safetensors", fresh)


def test_a_missing_safetensors_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "given.safetensors").write_bytes(b"")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert 'pip install "pocketprune[safetensors]"' in _refusal(tmp_path / "given.safetensors", _net())


def test_a_pruned_network_is_not_taken_for_a_dense_one(tmp_path: Path) -> None:
    pocketprune.save(tmp_path / "pruned.pt", _net())
    assert "a pruned network; expected is" in _refusal(tmp_path / "pruned.pt", _net())


def test_a_file_in_the_old_format_is_read(tmp_path: Path) -> None:
    trained, fresh = _net(), _net()
    torch.save(trained.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    state_dict.load_into(fresh, tmp_path / "old.pth", source="x")
    assert _same(trained, fresh)


def test_batch_counters_may_be_missing(tmp_path: Path) -> None:
    trained, fresh = _net(), _net()
    content = {name: t for name, t in trained.state_dict().items() if "num_batches" not in name}
    torch.save(content, tmp_path / "given.pt")
    state_dict.load_into(fresh, tmp_path / "given.pt", source="x")
    assert _same(trained, fresh)


def test_another_architecture_is_told_by_its_keys(tmp_path: Path) -> None:
    content = _net().state_dict()
    content["extra.weight"] = content.pop("3.bias")
    torch.save(content, tmp_path / "other.pt")
    message = _refusal(tmp_path / "other.pt", _net())
    assert "1 missing: 3.bias" in message
    assert "1 unexpected: extra.weight" in message


def test_other_shapes_are_told(tmp_path: Path) -> None:
    torch.save(_net(width=5).state_dict(), tmp_path / "wide.pt")
    message = _refusal(tmp_path / "wide.pt", _net())
    assert "other shape: 0.weight (5, 1, 3, 3) instead of (3, 1, 3, 3)" in message
    assert message.endswith(", ...")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    torch.save(_net().state_dict(), whole)
    data = whole.read_bytes()
    damaged = {"truncated.pt": data[: len(data) // 2], "empty.pt": b"", "text.pt": b"no network at all\n"}
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        assert "damaged" in _refusal(tmp_path / name, _net())


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    torch.save(inside_itself(), tmp_path / "file.pt")
    assert "contains itself" in _refusal(tmp_path / "file.pt", _net())
    torch.save({"0.weight": torch.zeros(1_000_000)}, tmp_path / "file.pt")
    deflate(tmp_path / "file.pt")
    assert "would grow to" in _refusal(tmp_path / "file.pt", _net())


@pytest.mark.parametrize("kind", ODD)
def test_tensors_of_other_kinds_are_named(tmp_path: Path, kind: str) -> None:
    torch.save({**_net().state_dict(), "0.weight": ODD[kind]}, tmp_path / "file.pt")
    assert f"tensor '0.weight' is {kind}; expected float32" in _refusal(tmp_path / "file.pt", _net())


def test_a_flipped_byte_in_the_weights_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "flipped.pt"
    net = _net()
    torch.save(net.state_dict(), path)
    data = bytearray(path.read_bytes())
    position = data.find(net.state_dict()["0.weight"].numpy().tobytes())
    assert position > 0
    data[position] ^= 0x40
    path.write_bytes(data)
    assert "damaged" in _refusal(path, _net())


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save(_net(), tmp_path / "pickled_net.pt")
    assert "holds code" in _refusal(tmp_path / "pickled_net.pt", _net())


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(1)], {"state_dict": {"a": "text"}}])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "odd.pt")
    assert "holds no state dict" in _refusal(tmp_path / "odd.pt", _net())


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "no such file" in _refusal(tmp_path / "absent.pt", _net())
    assert "no such file" in _refusal(tmp_path, _net())
