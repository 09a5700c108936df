"""Tables for the terminal."""

import pytest

from pocketprune import ChannelGroup
from pocketprune.reporting import tables


def test_columns_are_aligned() -> None:
    text = tables.table([["", "n"], ["long name", "1"], ["x", "1000"]])
    assert text.splitlines() == ["              n", "-" * 15, "long name     1", "x          1000"]


@pytest.mark.parametrize(
    ("number", "text"), [(7, "7"), (999, "999"), (1234, "1.23 k"), (40.8e6, "40.80 M"), (4.1e9, "4.10 G")]
)
def test_counts_are_short(number: float, text: str) -> None:
    assert tables.count(number) == text


def test_groups_are_listed_with_what_touches_them() -> None:
    named = {"exact": True, "channels": (), "products": ()}
    groups = [
        ChannelGroup("a", 16, True, "", producers=("a", "b", "c"), consumers=("d",), **named),
        ChannelGroup("d", 4, False, "network output", producers=("d",), consumers=(), **named),
        ChannelGroup("e", 8, True, "", producers=("e",), consumers=("f",), **(named | {"exact": False})),
    ]
    lines = tables.group_listing(groups).splitlines()
    assert lines[2].split("  ")[0] == "a"
    assert "a + b + 1 more -> d" in lines[2]
    assert lines[2].endswith("yes")
    assert "d -> nothing" in lines[3]
    assert lines[3].endswith("no: network output")
    assert lines[4].endswith("inexact")
