"""The picture of the groups shows what the recipe says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import pocketprune
from pocketprune.common.errors import UserError
from pocketprune.deploy.drawing import _figure, group_rows
from pocketprune.thinning.recipes import Recipe, recipe_of
from tests.deploy.deployable import Residual, images, plain, refitted, thinned


def groups_of(net: torch.nn.Module) -> list[pocketprune.ChannelGroup]:
    return pocketprune.find_channel_groups(net, images())


def test_rows_are_groups_then_samplers() -> None:
    torch.manual_seed(0)
    dense = Residual()
    net = refitted(dense)
    recipe, groups = recipe_of(net), groups_of(dense)
    rows = group_rows(groups, recipe)
    assert [row.label for row in rows[: len(groups)]] == [group.name for group in groups]
    assert [len(row.kept) for row in rows[: len(groups)]] == [group.size for group in groups]
    sampled = rows[len(groups) :]
    assert [row.label for row in sampled] == [f"read by {w.removesuffix('.weight')}" for w in recipe.samplers]
    for row, kept in zip(sampled, recipe.samplers.values(), strict=True):
        assert row.kept.nonzero()[0].tolist() == kept
        assert len(row.kept) == 8
    assert [row.stays for row in rows] == [not group.prunable for group in groups] + [False] * len(sampled)


def test_removed_channels_are_shown_as_removed() -> None:
    dense = plain()
    rows = {row.label: row for row in group_rows(groups_of(dense), recipe_of(thinned(dense)))}
    assert rows["0"].kept.tolist() == [False] + [True] * 7
    assert rows["6"].stays
    assert rows["6"].kept.all()


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_picture_is_written(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    dense = plain()
    pocketprune.draw_groups(tmp_path / f"groups{suffix}", groups_of(dense), thinned(dense))
    data = (tmp_path / f"groups{suffix}").read_bytes()
    assert data.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix])
    assert len(list(tmp_path.iterdir())) == 1


def test_every_piece_of_the_strips_has_the_width_of_its_channels() -> None:
    pytest.importorskip("matplotlib")
    dense = plain()
    rows = group_rows(groups_of(dense), Recipe(groups={"0": [1, 2, 5]}))
    strip = _figure(rows).axes[0].collections[0]
    edges = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in strip.get_paths()]
    assert [(round(8 * a), round(8 * b)) for a, b in edges] == [(0, 1), (1, 3), (3, 5), (5, 6), (6, 8)]
    colours = [tuple(colour) for colour in strip.get_facecolor()]
    assert colours[0] == colours[2] == colours[4] != colours[1] == colours[3]


def test_what_cannot_be_drawn_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    dense = plain()
    groups = groups_of(dense)
    with pytest.raises(UserError, match=r"ends in \.png"):
        pocketprune.draw_groups(tmp_path / "groups.txt", groups)
    with pytest.raises(UserError, match="1 to 400 can be drawn"):
        pocketprune.draw_groups(tmp_path / "groups.png", [])
    with pytest.raises(UserError, match="not those of the network"):
        pocketprune.draw_groups(tmp_path / "groups.png", groups_of(Residual()), thinned(dense))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pocketprune\[plots\]"):
        pocketprune.draw_groups(tmp_path / "groups.png", groups)
    assert not list(tmp_path.iterdir())
