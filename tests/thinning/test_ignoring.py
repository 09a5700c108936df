"""Names to ignore, groups that do not hold, and networks in wrappers."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm, weight_norm

import pocketprune
from pocketprune import UserError, find_channel_groups, list_layers, remove_channels
from pocketprune.structure.channel_groups import analyse
from pocketprune.structure.ignoring import LEFT_ALONE
from pocketprune.structure.propagation import RULES
from pocketprune.structure.propagation.elementwise import elementwise
from pocketprune.thinning.holding import NOT_PROVED, check_removal
from pocketprune.thinning.recipes import recipe_of
from tests.structure.oracle import difference, outputs
from tests.thinning.reading import without_reading


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.body = nn.Sequential(nn.Conv2d(8, 10, 1), nn.ReLU(), nn.Conv2d(10, 12, 1), nn.ReLU())
        self.head = nn.Conv2d(12, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.norm(self.stem(x)).relu()))


class Running(Net):
    """A running sum over the channels of the first layer, which a wrong rule may take for something else."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.norm(self.stem(x)).cumsum(1)))


def built(kind: type[nn.Module] = Net) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return kind().eval(), torch.randn(2, 3, 6, 6)


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        ([], {"stem", "body.0", "body.2"}),
        (["stem"], {"body.0", "body.2"}),
        (["norm"], {"body.0", "body.2"}),
        (["norm.weight"], {"body.0", "body.2"}),
        (["body"], set()),
        (["body.0"], {"body.2"}),
        (["body.?"], set()),
        (["he*"], {"stem", "body.0"}),
        (["stem", "head"], {"body.0"}),
        (["*"], set()),
    ],
)
def test_ignored_layers_keep_their_channels(ignore: list[str], left: set[str]) -> None:
    net, x = built()
    groups = find_channel_groups(net, x, ignore=ignore)
    assert {g.name for g in groups if g.prunable} == left
    assert {g.reason for g in groups if not g.prunable} <= {LEFT_ALONE, "network output"}
    for group in groups:
        if group.reason == LEFT_ALONE:
            with pytest.raises(UserError, match="ignore"):
                remove_channels(net, x, {group.name: [0]}, ignore=ignore)


def test_ignored_layers_stay_in_the_list_and_whole() -> None:
    net, x = built()
    rows = {row.name: row for row in list_layers(net, x, ignore=["body.2"])}
    assert len(rows) == 4
    assert (rows["body.2"].removable, rows["body.2"].reason) == (False, LEFT_ALONE)
    assert rows["body.0"].removable


def test_an_ignored_reader_of_a_shared_input_reads_all_of_it() -> None:
    class Shared(Net):
        def __init__(self) -> None:
            super().__init__()
            self.side = nn.Conv2d(8, 5, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x).relu()
            return self.side(y) + self.head(self.body(y))

    net, x = built(Shared)
    ways = {row.name: row.way for row in list_layers(net, x)}
    assert ways["body.0"] == "sample"
    assert {row.name: row.way for row in list_layers(net, x, ignore=["body.0"])}["body.0"] == "fixed"


@pytest.mark.parametrize(
    ("ignore", "message"),
    [
        (["boddy.0"], r"^ignore: no group or layer 'boddy.0'; did you mean 'body.0'\?$"),
        (["x.*"], r"^ignore: no group or layer 'x\.\*'"),
        ("stem", r"^ignore: 'stem' given; a list of names"),
        ([3], r"^ignore: \[3\] given; a list of names"),
    ],
)
def test_names_that_fit_nothing_are_refused(ignore: list[str], message: str) -> None:
    net, x = built()
    with pytest.raises(UserError, match=message):
        find_channel_groups(net, x, ignore=ignore)


def test_groups_that_do_not_hold_stay_and_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "cumsum", elementwise)  # wrong: a running sum mixes channels
    net, x = built(Running)
    with pytest.warns(UserWarning, match=r"^remove_channels: left whole: stem \(network Running: .*\)$"):
        thin = remove_channels(net, x, {"stem": range(4, 8), "body.0": range(5), "body.2": range(6)}, check=False)
    assert set(recipe_of(thin).groups) == {"body.0", "body.2"}
    assert thin.stem.out_channels == 8
    with torch.no_grad():
        net.body[2].weight[:, 5:], net.head.weight[:, 6:] = 0, 0
    assert difference(outputs(thin, x), outputs(net, x)) < 1e-5


def test_where_nothing_holds_the_error_names_the_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "cumsum", elementwise)
    net, x = built(Running)
    with pytest.raises(UserError, match=r"leave out groups of it \(ignore=\[\.\.\.\]\): stem$"):
        remove_channels(net, x, {"stem": range(4, 8)}, check=False)
    thin = remove_channels(net, x, {"body.0": range(4)}, ignore=["stem"], check=False)
    assert thin.body[0].out_channels == 4


def test_a_trial_removal_marks_what_will_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "cumsum", elementwise)
    net, x = built(Running)
    structure = analyse(net, x)
    assert check_removal(structure) == ["stem"]
    assert structure.group("stem").reason == NOT_PROVED
    assert structure.group("body.0").prunable
    assert check_removal(analyse(*built())) == []


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_networks_are_taken_out_of_their_wrappers(wrap: type[nn.Module]) -> None:
    net, x = built()
    names = [g.name for g in find_channel_groups(net, x)]
    assert [g.name for g in find_channel_groups(wrap(net), x)] == names
    thin = remove_channels(wrap(net), x, {"stem": range(3)})
    assert type(thin) is Net
    assert difference(outputs(thin, x), without_reading(net, x, "body.0", range(3, 8))) < 1e-5
    assert pocketprune.count_macs(wrap(net), x) == pocketprune.count_macs(net, x)


def test_a_network_of_one_process_of_many_is_taken_out(tmp_path: Path) -> None:
    net, x = built()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(net)
        assert [row.name for row in list_layers(wrapped, x)] == [row.name for row in list_layers(net, x)]
        assert remove_channels(wrapped, x, {"stem": range(3)}).stem.out_channels == 3
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("norm", [weight_norm, spectral_norm])
def test_old_reparametrisations_load_into_a_fresh_network(norm: type[nn.Module], tmp_path: Path) -> None:
    def fresh() -> nn.Module:
        net = Net()
        net.body[0] = norm(net.body[0])
        return net

    torch.manual_seed(0)
    net, x = fresh().eval(), built()[1]
    thin = remove_channels(net, x, {"body.2": range(5)})
    pocketprune.save(tmp_path / "thin.pt", thin)
    loaded = pocketprune.load(tmp_path / "thin.pt", fresh())
    assert difference(outputs(loaded, x), outputs(thin, x)) == 0


def test_one_reader_is_told_in_words_of_its_own() -> None:
    class Padded(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            return self.head(self.body(torch.cat([y[:, :5], x], 1)))

    reasons = [row.reason for row in list_layers(*built(Padded), "keep")]
    assert not [reason for reason in reasons if "1 layers" in reason]


def test_nothing_is_warned_of_where_all_holds() -> None:
    net, x = built()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        remove_channels(net, x, {"stem": range(4), "body.2": range(3)})


@pytest.mark.parametrize("name", ["graph", "code", "meta", "self"])
def test_a_part_with_a_name_of_torch_fx_is_refused(name: str) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module(name, nn.Conv2d(3, 8, 1))
            self.out = nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self._modules[name](x))

    with pytest.raises(UserError, match=f"^network Named: its part '{name}' has a name"):
        remove_channels(*built(Named), {name: range(4)})


@pytest.mark.parametrize(
    ("name", "number", "words"),
    [
        ("body.0.weight", float("nan"), "NaN"),
        ("norm.running_var", float("nan"), "NaN"),
        ("stem.bias", float("inf"), "infinite"),
    ],
)
def test_a_network_of_no_numbers_is_told_of_its_own_tensor(name: str, number: float, words: str) -> None:
    net, x = built()
    net.state_dict()[name].view(-1)[0] = number
    message = f"^net: its tensor '{name}' holds {words}"
    with pytest.raises(UserError, match=message):
        remove_channels(net, x, {"stem": range(4)})
    with pytest.raises(UserError, match=message):
        pocketprune.prune_channels(net, [x], 0.5)


def test_infinite_numbers_of_a_mask_are_no_fault() -> None:
    net, x = built()
    net.register_buffer("mask", torch.full((3,), -torch.inf))
    assert remove_channels(net, x, {"stem": range(4)}).stem.out_channels == 4


def test_a_view_by_the_number_of_inputs_is_pruned_on_batches_of_any_size() -> None:
    class Viewed(Net):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y.view(len(y), -1)

    net, x = built(Viewed)
    result = pocketprune.prune_channels(net, [torch.randn(9, 3, 6, 6), torch.randn(4, 3, 6, 6)], 0.5)
    assert result.net(x[:1]).shape == (1, 5 * 36)
    assert recipe_of(result.net) is not None
