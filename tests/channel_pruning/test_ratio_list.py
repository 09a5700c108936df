from __future__ import annotations

from pathlib import Path

import pytest

from pocketprune.channel_pruning.ratio_list import check_ratios, parse_ratio_list, write_ratio_list
from pocketprune.common.errors import UserError

NAMES = ["conv1", "conv2", "conv3"]
RESNET20 = (
    "1.0, 0.1875, 0.1875, 0.1875, 0.1875, 0.1875, 0.1875, 0.1875, 1.0, 0.25, 1.0, 0.25, 0.21875, "
    "0.21875, 0.21875, 1.0, 0.5625, 1.0, 0.546875, 0.546875, 0.546875, 1"
)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    return tmp_path / "ratio.list"


@pytest.mark.parametrize(
    "text",
    [
        "0.5,0.25,1",
        "0.5, 0.25, 1,\n",
        "0.5\n0.25\n1\n",
        "\ufeff0.5,0.25,1\r\n",
        "# three layers\n0.5,  # conv1\n0.25, 1 # the others\n\n",
    ],
)
def test_layouts_of_a_list(listed: Path, text: str) -> None:
    listed.write_text(text, encoding="utf-8")
    assert parse_ratio_list(listed, NAMES) == [0.5, 0.25, 1.0]


def test_a_resnet20_list_of_22_entries(listed: Path) -> None:
    listed.write_text(RESNET20)
    ratios = parse_ratio_list(listed, [f"conv{i}" for i in range(22)])
    assert (len(ratios), ratios[1], ratios[-1]) == (22, 0.1875, 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty, expected 3, one per prunable layer (conv1, conv2, conv3)"),
        ("# nothing\n\n", "is empty, expected 3, one per prunable layer (conv1, conv2, conv3)"),
        ("0.5,half,1", "entry 2 is 'half', expected a number in (0, 1]"),
        ("0.5,,1", "entry 2 is empty, expected a number in (0, 1]"),
        ("0.5,nan,1", "entry 2 is nan, expected a number in (0, 1]"),
        ("0.5,1,inf", "entry 3 is inf, expected a number in (0, 1]"),
        ("0,1,1", "entry 1 is 0.0, expected a number in (0, 1]"),
        ("0.5,1.5,1", "entry 2 is 1.5, expected a number in (0, 1]"),
        ("0.5,-0.5,1", "entry 2 is -0.5, expected a number in (0, 1]"),
        ("0.5", "has 1 entry, expected 3, one per prunable layer (conv1, conv2, conv3)"),
        ("1,1,1,1", "has 4 entries, expected 3, one per prunable layer (conv1, conv2, conv3)"),
    ],
)
def test_mistakes_in_a_list(listed: Path, text: str, message: str) -> None:
    listed.write_text(text)
    with pytest.raises(UserError) as caught:
        parse_ratio_list(listed, NAMES)
    assert str(caught.value) == f"ratio list {listed}: {message}"


def test_many_names_are_shortened(listed: Path) -> None:
    listed.write_text("0.5")
    with pytest.raises(UserError, match=r"expected 22, one per .* \(c0, c1, c2, c3, \.\.\., c21\)$"):
        parse_ratio_list(listed, [f"c{i}" for i in range(22)])


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        parse_ratio_list(tmp_path / "missing.list", NAMES)
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        parse_ratio_list(tmp_path, NAMES)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match=r"cannot be read \(not a text file\)"):
        parse_ratio_list(tmp_path / "binary", NAMES)


def test_written_lists_read_back_exactly(listed: Path) -> None:
    ratios = [1.0, 1 / 3, 0.1 + 0.2]
    write_ratio_list(listed, NAMES, ratios)
    assert parse_ratio_list(listed, NAMES) == ratios
    assert listed.read_text().splitlines()[1].endswith("# 2: conv2")
    assert [path.name for path in listed.parent.iterdir()] == ["ratio.list"]


def test_writing_refuses_what_could_not_be_read_back(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 2 entries, expected 3"):
        write_ratio_list(tmp_path / "ratio.list", NAMES, [1.0, 0.5])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        write_ratio_list(tmp_path / "file" / "ratio.list", NAMES, [1.0, 0.5, 0.5])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_ratios_from_code_are_checked_alike() -> None:
    check_ratios([1, 0.5, 0.25], NAMES, source="ratios")
    with pytest.raises(UserError, match=r"^ratios: entry 2 is half, expected a number in \(0, 1\]$"):
        check_ratios([1, "half", 0.25], NAMES, source="ratios")
