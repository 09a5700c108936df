from __future__ import annotations

import pytest
import torch

from pocketprune.numerics import conv_sums as module
from pocketprune.numerics.conv_sums import conv_sums
from pocketprune.numerics.patches import output_rows, output_size, patches
from tests.numerics.samples import assert_same, moments_of

# size, kernel, stride, padding, dilation
GEOMETRIES = {
    "3x3": ((8, 7), (3, 3), (1, 1), (1, 1), (1, 1)),
    "unpadded": ((5, 6), (3, 3), (1, 1), (0, 0), (1, 1)),
    "one output row": ((3, 3), (3, 3), (1, 1), (0, 0), (1, 1)),
    "map smaller than the dilation": ((3, 3), (3, 3), (1, 1), (4, 4), (4, 4)),
    "stride 2": ((8, 7), (3, 3), (2, 2), (1, 1), (1, 1)),
    "stride along the first axis": ((9, 8), (5, 3), (2, 1), (2, 1), (1, 2)),
    "stride along the last axis": ((9, 8), (5, 3), (1, 2), (2, 1), (2, 1)),
    "1x3": ((5, 6), (1, 3), (1, 1), (0, 1), (1, 1)),
    "1x1": ((5, 6), (1, 1), (1, 1), (0, 0), (1, 1)),
    "1x1 stride 2": ((5, 6), (1, 1), (2, 2), (0, 0), (1, 1)),
    "7x7": ((9, 9), (7, 7), (1, 1), (3, 3), (1, 1)),
    "1-d": ((9,), (5,), (1,), (2,), (1,)),
    "1-d stride 2": ((9,), (3,), (2,), (1,), (1,)),
    "3-d": ((4, 5, 3), (2, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "3-d stride 2": ((4, 5, 3), (1, 2, 3), (2, 2, 2), (0, 1, 1), (1, 1, 1)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("chunk", [1, 1 << 24])
def test_lags_equal_rows(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._CHUNK_BYTES, "cpu", chunk)
    size, *geometry = GEOMETRIES[name]
    x = torch.randn(4, 3, *size, dtype=torch.float64).relu() + 0.5
    y = torch.randn(4, 2, *output_size(size, *geometry), dtype=torch.float64)
    expected = moments_of(patches(x, *geometry), output_rows(y, None))
    assert_same(conv_sums(x, y, *geometry), expected, 1e-12)


def test_memory_layout_does_not_matter() -> None:
    x, y = torch.randn(3, 4, 6, 6, dtype=torch.float64), torch.randn(3, 2, 6, 6, dtype=torch.float64)
    geometry = ((3, 3), (1, 1), (1, 1), (1, 1))
    other = conv_sums(x.to(memory_format=torch.channels_last), y.transpose(2, 3).contiguous().mT, *geometry)
    assert_same(other, conv_sums(x, y, *geometry), 1e-13)
