"""Artifacts: what is saved comes back, and nothing else is believed."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pocketprune
from pocketprune.common.errors import UserError
from pocketprune.common.steps import Step, carry_steps, steps_of
from pocketprune.deploy import state_dict
from pocketprune.deploy.steps import STEPS, StepKind
from pocketprune.thinning.recipes import recipe_of
from tests.deploy.deployable import Halves, Residual, images, plain, refitted, thinned


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
        pocketprune.load(tmp_path / "b.pt", again)


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
    assert steps_of(loaded) == ()


def coupled(dense: nn.Module) -> nn.Module:
    options = pocketprune.PruningOptions(points_per_layer=0, shared_input="couple")
    return pocketprune.prune_channels(dense, [images(16)], 0.5, options=options).net


TWICE: dict[str, tuple[Callable[[], nn.Module], list[Callable[[nn.Module], nn.Module]]]] = {
    "module, module": (plain, [thinned, thinned]),
    "graph, graph": (Halves, [thinned, thinned]),
    "new biases, module": (plain, [refitted, thinned]),
    "samplers, graph": (Residual, [refitted, coupled]),
    "a shared input, samplers": (Residual, [coupled, refitted]),
    "three times": (plain, [thinned, refitted, thinned]),
}


@pytest.mark.parametrize("case", TWICE)
def test_a_network_is_pruned_again_and_all_steps_are_saved(case: str, tmp_path: Path) -> None:
    build, prunings = TWICE[case]
    torch.manual_seed(0)
    nets = [build()]
    for prune in prunings:
        before = snapshot(nets[-1])
        nets.append(trained(prune(nets[-1].eval())))
        assert all(torch.equal(before[name], t) for name, t in nets[-2].state_dict().items())
    sizes = [sum(p.numel() for p in net.parameters()) for net in nets]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    last = nets[-1]
    for copied in (last, copy.deepcopy(last)):
        assert [step.kind for step in steps_of(copied)] == ["channels"] * len(prunings)
        assert recipe_of(copied) == steps_of(copied)[-1].data
        pocketprune.save(tmp_path / "net.pt", copied)
        loaded = pocketprune.load(tmp_path / "net.pt", build())
        assert_same(loaded, last)
        assert steps_of(loaded) == steps_of(last)


@pytest.mark.parametrize("build", [plain, Halves])
def test_thinning_a_thinned_network_again_is_exact(build: Callable[[], nn.Module]) -> None:
    """Two removals equal the one that keeps what both keep."""
    torch.manual_seed(0)
    dense = build().eval()
    groups = [g for g in pocketprune.find_channel_groups(dense, images()) if g.prunable]
    twice = thinned(thinned(dense))
    once = pocketprune.remove_channels(dense, images(), {g.name: range(2, g.size) for g in groups})
    torch.testing.assert_close(outputs(twice), outputs(once))


def test_a_file_of_version_1_is_loaded(tmp_path: Path) -> None:
    """Its layout held one recipe, or None, in place of steps."""
    for number, net in enumerate((trained(refitted(plain())), trained(plain()))):
        recipe = recipe_of(net)
        torch.save(
            {
                "format": "pocketprune",
                "version": 1,
                "recipe": None if recipe is None else dataclasses.asdict(recipe),
                "tensors": dict(net.state_dict()),
                "frozen": ["0.weight"],
                "evaluating": [name for name, module in net.named_modules() if not module.training],
            },
            tmp_path / f"{number}.pt",
        )
        loaded = pocketprune.load(tmp_path / f"{number}.pt", plain())
        assert_same(loaded, net)
        assert recipe_of(loaded) == recipe
        assert [name for name, p in loaded.named_parameters() if not p.requires_grad] == ["0.weight"]


def test_a_kind_of_step_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of another kind is stacked on channels; a program without that kind says that it is older."""

    def scale(net: nn.Module, factor: float, source: str) -> nn.Module:
        assert source.endswith("net.pt")
        return nn.Sequential(*copy.deepcopy(net), nn.Hardtanh(-factor, factor))

    dense, small = plain(), thinned(plain())
    kind = StepKind(1, write=lambda data: {"factor": data}, read=lambda plain, _: plain["factor"], apply=scale)
    monkeypatch.setitem(STEPS, "scaled", kind)
    net = carry_steps(scale(small, 0.5, "net.pt"), (*steps_of(small), Step("scaled", 0.5)))
    pocketprune.save(tmp_path / "net.pt", net)
    loaded = pocketprune.load(tmp_path / "net.pt", dense)
    assert_same(loaded, net)
    assert [step.kind for step in steps_of(loaded)] == ["channels", "scaled"]
    monkeypatch.delitem(STEPS, "scaled")
    with pytest.raises(
        UserError, match=r"written by a newer PocketPrune \(a step 'scaled' of version 1; .*channels up"
    ):
        pocketprune.load(tmp_path / "net.pt", dense)


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


class Versioned(nn.Conv2d):
    """A layer that asks which version of it was saved, as torchvision's MNASNet does."""

    _version = 2

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
        assert metadata.get("version") == 2
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def test_modules_that_ask_for_their_version_are_loaded(tmp_path: Path) -> None:
    net, other = (nn.Sequential(Versioned(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)) for _ in range(2))
    pocketprune.save(tmp_path / "net.pt", net)
    assert torch.equal(outputs(pocketprune.load(tmp_path / "net.pt", other)), outputs(net))
    state_dict.save(tmp_path / "weights.pt", net)
    state_dict.load_into(other, tmp_path / "weights.pt", source="weights.pt")
    assert torch.equal(outputs(other), outputs(net))


def test_the_file_holds_tensors_and_plain_values_only(tmp_path: Path) -> None:
    net = thinned(Halves())
    pocketprune.save(tmp_path / "net.pt", net)
    content = torch.load(tmp_path / "net.pt", weights_only=True)
    assert (content["format"], content["version"]) == ("pocketprune", 2)
    assert [(step["kind"], step["version"]) for step in content["steps"]] == [("channels", 1)]
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
