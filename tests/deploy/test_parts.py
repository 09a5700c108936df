"""Whatever can be saved can be loaded: wrapped networks, networks inside larger ones, and what is left of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pocketprune
from pocketprune.common.errors import UserError
from pocketprune.common.steps import PART, steps_of
from pocketprune.common.wrappers import unwrapped
from tests.deploy.deployable import Halves, images, plain, refitted, thinned


class System(nn.Module):
    """A network in front of others, one of which is used twice."""

    def __init__(self, part: Callable[[], nn.Module] = plain) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.twice = part(), nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
        self.deep = nn.ModuleDict({"again": self.twice})
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(self.deep["again"](self.twice(x))))


def outputs(net: nn.Module) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(net).eval()(images(3, seed=9))


def saved_and_loaded(folder: Path, net: nn.Module, dense: nn.Module) -> nn.Module:
    pocketprune.save(folder / "net.pt", net)
    loaded = pocketprune.load(folder / "net.pt", dense)
    assert list(loaded.state_dict()) == list(unwrapped(net).state_dict())
    assert torch.equal(outputs(loaded), outputs(net))
    pocketprune.save(folder / "again.pt", loaded)
    assert torch.equal(outputs(pocketprune.load(folder / "again.pt", dense)), outputs(net))
    return loaded


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": torch.compile,
    "parallel": nn.DataParallel,
    "both": lambda net: nn.DataParallel(torch.compile(net)),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("build", [plain, Halves])
def test_a_wrapped_network_is_pruned_inside(tmp_path: Path, build: Callable[[], nn.Module], wrapper: str) -> None:
    wrapped, dense = WRAPPERS[wrapper](build().train()), build()
    groups = pocketprune.find_channel_groups(wrapped, images())
    assert [g.name for g in groups] == [g.name for g in pocketprune.find_channel_groups(dense, images())]
    for small in (thinned(wrapped), pocketprune.prune_channels(wrapped, [images(16)], 0.5).net):
        assert unwrapped(small) is small
        assert all(module.training for module in small.modules())
        assert pocketprune.count_params(small) < pocketprune.count_params(dense)
        saved_and_loaded(tmp_path, small, dense)
        saved_and_loaded(tmp_path, nn.DataParallel(small), nn.DataParallel(dense))


@pytest.mark.parametrize("build", [plain, Halves], ids=["module", "graph"])
def test_a_system_with_pruned_parts_is_loaded(tmp_path: Path, build: Callable[[], nn.Module]) -> None:
    system, dense = System(build), System(build)
    system.first = thinned(system.first)
    system.twice = system.deep["again"] = pocketprune.prune_channels(system.twice, [images(16)], 0.5).net
    loaded = saved_and_loaded(tmp_path, system, dense)
    assert loaded.twice is loaded.deep["again"]
    assert [(step.kind, step.data[0]) for step in steps_of(loaded)] == [(PART, "first"), (PART, "twice")]
    assert steps_of(loaded) == steps_of(system)
    saved_and_loaded(tmp_path, loaded.first, dense.first)  # a part carries its own steps
    with pytest.raises(UserError, match="was pruned already"):
        pocketprune.load(tmp_path / "net.pt", loaded)


def test_parts_and_the_whole_are_pruned_in_any_order(tmp_path: Path) -> None:
    whole = System()
    whole.first = refitted(whole.first)
    whole = thinned(whole)
    kinds = ["part", "channels"]
    assert [step.kind for step in steps_of(saved_and_loaded(tmp_path, whole, System()))] == kinds
    whole.first = thinned(whole.first)
    assert [step.kind for step in steps_of(saved_and_loaded(tmp_path, whole, System()))] == [*kinds, "part"]
    whole = thinned(whole)
    assert [step.kind for step in steps_of(saved_and_loaded(tmp_path, whole, System()))] == [*kinds, *kinds]


def test_a_pruned_network_in_a_longer_one(tmp_path: Path) -> None:
    """A network is nested in others, by more than one level."""
    dense = nn.Sequential(nn.Identity(), nn.Sequential(plain(), nn.Softmax(1)))
    net = copy.deepcopy(dense)
    net[1][0] = thinned(net[1][0])
    saved_and_loaded(tmp_path, net, dense)


def test_parts_torn_out_of_a_pruned_network_are_refused(tmp_path: Path) -> None:
    system = thinned(System())
    layers = list(thinned(plain()))
    for torn in (system.first, thinned(system.first), nn.Sequential(*layers), System(lambda: nn.Sequential(*layers))):
        with pytest.raises(UserError, match="was taken out of a pruned network") as caught:
            pocketprune.save(tmp_path / "net.pt", torn)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_system_without_the_part_is_refused(tmp_path: Path) -> None:
    system = System()
    system.first = thinned(system.first)
    pocketprune.save(tmp_path / "net.pt", system)
    with pytest.raises(UserError, match=r"net\.pt: dense_net \(Sequential\) has no part 'first', which was pruned"):
        pocketprune.load(tmp_path / "net.pt", plain())
    with pytest.raises(UserError, match=r"net\.pt: dense_net \(Halves\) is of another architecture"):
        pocketprune.load(tmp_path / "net.pt", System(Halves))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(name=3),
        lambda data: data.update(name=""),
        lambda data: data.update(name="head"),
        lambda data: data.update(steps=None),
        lambda data: data.update(steps=[{"kind": "part", "version": 1, "data": dict(data)}]),
        lambda data: data.clear(),
    ],
)
def test_a_part_from_a_file_is_not_believed(tmp_path: Path, change: Callable[[dict], object]) -> None:
    system = System()
    system.first = thinned(system.first)
    pocketprune.save(tmp_path / "net.pt", system)
    content = torch.load(tmp_path / "net.pt", weights_only=True)
    change(content["steps"][0]["data"])
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(UserError, match=r"net\.pt: "):
        pocketprune.load(tmp_path / "net.pt", System())
