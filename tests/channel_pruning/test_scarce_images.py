"""Calibration images that are too few, or all alike: the owner is told, and nothing ends worse than the old weights."""

from __future__ import annotations

import pytest
import torch

from pocketprune import PruningOptions, PruningWarning, prune_channels
from tests.structure.small import images, resnet

OPTIONS = PruningOptions(shared_input="keep", points_per_layer=2, check=False)


def test_fewer_rows_than_unknowns_are_told_with_both_numbers() -> None:
    """8 images at 2 positions: 16 patches, for some channels of 9 taps each."""
    with pytest.warns(PruningWarning, match=r"has \d+ unknowns to refit, and 16 patches"):
        result = prune_channels(resnet(1, "pad", 14), images(8, 4), 0.25, options=OPTIONS)
    assert all("\n" not in warning for warning in result.warnings)
    assert all(layer.error_after <= layer.error_before for layer in result.layers)


def test_without_held_out_images_a_layer_of_too_many_unknowns_keeps_its_weight() -> None:
    net = resnet(1, "pad", 14)
    result = prune_channels(net, images(2, 2), [1.0] * 10 + [0.5, 1.0, 1.0], options=OPTIONS)
    layer = result.layers[10]
    assert 1 < layer.kept < layer.channels
    small, dense = result.net.layer3[0].conv2.weight, net.layer3[0].conv2.weight
    assert torch.equal(small, dense[:, list(layer.kept_index)])


def test_enough_rows_are_not_mentioned() -> None:
    result = prune_channels(resnet(1, "pad", 14), images(320, 64), 0.5, options=OPTIONS)
    assert not any("unknowns" in warning for warning in result.warnings)


def test_images_that_are_all_equal_are_told_of() -> None:
    batches = [image[:1].expand(16, -1, -1, -1).clone() for image in images(16)] * 2
    with pytest.warns(PruningWarning, match="does not vary over the held-out images"):
        prune_channels(resnet(1, "pad", 14), batches, 0.5, options=OPTIONS)
