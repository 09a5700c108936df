"""Artifacts that are damaged, tampered with or of another network are refused, and no code in them is run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pocketprune
from pocketprune.common.errors import UserError
from pocketprune.deploy import artifacts
from tests.common.hostile import deflate, inside_itself, odd_tensors
from tests.deploy.deployable import Halves, plain, thinned


def refusal(path: Path, dense: nn.Module) -> str:
    """The line `load` refuses a file with; the dense network is then as it was."""
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
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
    """Put a value somewhere into a file's content; "recipe" is its place in either version."""

    def change(content: dict[str, Any]) -> None:
        if path[0] == "recipe" and "steps" in content:
            _set("steps", 0, "data", *path[1:], to=to)(content)
            return
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return change


def _as_version_1(content: dict[str, Any]) -> None:
    content.update(version=1, recipe=content.pop("steps")[0]["data"])


def _in_itself(content: dict[str, Any]) -> None:
    recipe = content["steps"][0]["data"] if "steps" in content else content["recipe"]
    recipe.update(kept=recipe)


TAMPERED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "other shape of a tensor": (_set("tensors", "3.weight", to=torch.zeros(10, 8, 3, 3)), "of another shape: 3.weight"),
    "missing tensor": (lambda c: c["tensors"].pop("6.bias"), "1 missing: 6.bias"),
    "unexpected tensor": (_set("tensors", "new", to=torch.zeros(1)), "1 unexpected: new"),
    "tensors of another kind": (_set("tensors", to=[]), "tensors malformed"),
    "a tensor that is none": (_set("tensors", "6.bias", to=3), "1 missing: 6.bias"),
    "no recipe": (lambda c: c.pop("steps" if "steps" in c else "recipe"), " or version malformed"),
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
TAMPERED |= {
    f"a tensor that is {kind}": (_set("tensors", "0.weight", to=tensor), f"tensor '0.weight' is {kind}; expected float")
    for kind, tensor in odd_tensors((3, 3, 3, 3)).items()
}
TAMPERED |= {
    "recipe in itself": (_in_itself, "contains itself"),
    "inputs in themselves": (_set("recipe", "example", to=inside_itself()), "contains itself"),
}


@pytest.mark.parametrize("version", [1, artifacts.VERSION])
@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_artifact_is_refused(case: str, version: int, saved: Path) -> None:
    change, words = TAMPERED[case]
    if version == 1:
        rewrite(saved, _as_version_1)
    message = refusal(rewrite(saved, change), plain())
    assert message.startswith(f"{saved}: ")
    assert words in message


STEPS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no list": (_set("steps", to={}), "tampered with: its steps are malformed"),
    "no entry": (_set("steps", 0, to=7), "tampered with: its steps are malformed"),
    "unknown key": (_set("steps", 0, "hook", to="x"), "tampered with: its steps are malformed"),
    "no kind": (_set("steps", 0, "kind", to=None), "tampered with: its steps are malformed"),
    "no version": (_set("steps", 0, "version", to="1"), "tampered with: its steps are malformed"),
    "version 0": (_set("steps", 0, "version", to=0), "tampered with: its steps are malformed"),
    "newer step": (_set("steps", 0, "version", to=2), "newer PocketPrune (a step 'channels' of version 2; this one"),
    "unknown step": (_set("steps", 0, "kind", to="int9"), "newer PocketPrune (a step 'int9' of version 1; this one"),
    "a step twice": (lambda c: c["steps"].append(c["steps"][0]), "another architecture than"),
    "no version of the file": (_set("version", to=None), "steps or version malformed"),
}


@pytest.mark.parametrize("case", STEPS)
def test_tampered_steps_are_refused(case: str, saved: Path) -> None:
    change, words = STEPS[case]
    message = refusal(rewrite(saved, change), plain())
    assert message.startswith(f"{saved}: ")
    assert words in message


def test_an_artifact_may_not_grow(tmp_path: Path) -> None:
    pocketprune.save(tmp_path / "net.pt", nn.Linear(1000, 1000).requires_grad_(False))
    content = torch.load(tmp_path / "net.pt", weights_only=True)
    torch.save(content | {"tensors": {"weight": torch.zeros(1000, 1000)}}, tmp_path / "net.pt")
    deflate(tmp_path / "net.pt")
    assert "would grow to" in refusal(tmp_path / "net.pt", plain())


class Remembering(nn.Linear):
    """A layer whose extra state contains itself."""

    def get_extra_state(self) -> dict[str, Any]:
        return inside_itself()


def test_state_that_contains_itself_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains itself"):
        pocketprune.save(tmp_path / "net.pt", Remembering(1, 1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [[2, 5], [2, 3, 10**6, 10**6], [-1], "ab"])
def test_a_tampered_graph_recipe_is_refused(tmp_path: Path, shape: object) -> None:
    pocketprune.save(tmp_path / "net.pt", thinned(Halves()))
    rewrite(tmp_path / "net.pt", _set("recipe", "example", to=(({"shape": shape, "dtype": "float32"},), {})))
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
