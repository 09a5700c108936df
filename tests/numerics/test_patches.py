from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pocketprune.numerics.patches import output_rows, output_size, patches

GEOMETRIES = [
    ((3, 3), (1, 1), (1, 1), (1, 1)),
    ((3, 3), (2, 2), (1, 1), (1, 1)),
    ((2, 3), (1, 2), (0, 2), (2, 1)),
    ((1, 1), (1, 1), (0, 0), (1, 1)),
    ((1, 1), (2, 2), (0, 0), (1, 1)),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_all_patches_equal_unfold(geometry: tuple[tuple[int, int], ...]) -> None:
    kernel, stride, padding, dilation = geometry
    x = torch.randn(3, 2, 8, 7)
    unfolded = F.unfold(x, kernel, dilation, padding, stride)
    assert torch.equal(patches(x, *geometry), unfolded.transpose(1, 2).flatten(0, 1))


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_chosen_positions_are_rows_of_all(geometry: tuple[tuple[int, int], ...], layout: torch.memory_format) -> None:
    x = torch.randn(3, 2, 8, 7).contiguous(memory_format=layout)
    count = torch.Size(output_size((8, 7), *geometry)).numel()
    everything = patches(x, *geometry).view(3, count, -1)
    shared = torch.randint(0, count, (4,))
    own = torch.randint(0, count, (3, 4))
    assert torch.equal(patches(x, *geometry, shared), everything[:, shared].flatten(0, 1))
    expected = torch.stack([everything[image, own[image]] for image in range(3)]).flatten(0, 1)
    assert torch.equal(patches(x, *geometry, own), expected)


@pytest.mark.parametrize(("axes", "convolve"), [(1, F.conv1d), (2, F.conv2d), (3, F.conv3d)])
def test_patches_times_weight_is_the_convolution(axes: int, convolve: object) -> None:
    kernel, stride, padding, dilation = (3, 2, 1)[:axes], (1, 2, 1)[:axes], (1, 1, 0)[:axes], (2, 1, 1)[:axes]
    x = torch.randn(2, 3, *(7, 6, 5)[:axes], dtype=torch.float64)
    weight = torch.randn(4, 3, *kernel, dtype=torch.float64)
    y = convolve(x, weight, stride=stride, padding=padding, dilation=dilation)
    count = y[0, 0].numel()
    for positions in (None, torch.arange(0, count, 2), torch.randint(0, count, (2, 3))):
        rows = patches(x, kernel, stride, padding, dilation, positions)
        torch.testing.assert_close(rows @ weight.flatten(1).T, output_rows(y, positions))
