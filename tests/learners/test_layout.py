"""Channels-last, the default on a CPU, trains every network, dense and pruned, to what the other layout gives."""

import copy

import pytest
import torch

import pocketprune
from nets import create_net
from pocketprune.training.loop import train
from pocketprune.training.state import TrainSettings
from tests.training.tiny import TinySplit


@pytest.mark.parametrize(
    "name",
    [
        "lenet",
        "plain",
        "resnet",
        pytest.param("mobilenet_v1", marks=pytest.mark.slow),
        pytest.param("mobilenet_v2", marks=pytest.mark.slow),
    ],
)
def test_one_step_is_the_same_in_both_layouts(name: str) -> None:
    split = TinySplit(count=16)
    split.images = torch.nn.functional.interpolate(split.images, size=(16, 16)).double()
    torch.manual_seed(0)
    dense = create_net(name, num_classes=4, input_shape=(3, 16, 16), mobilenet_depth_mult=0.25).double()
    small = pocketprune.prune_channels(
        dense, [split.images], 0.5, options=pocketprune.PruningOptions(points_per_layer=2)
    ).net
    for net in (dense, small):
        ends = []
        for layout in (False, True):
            trained = copy.deepcopy(net)
            settings = TrainSettings(batch_size=16, lrn_rate=0.01, channels_last=layout, augment=False)
            train(trained, split, settings, progress=False)
            ends.append(trained.state_dict())
        for key, tensor in ends[0].items():
            assert torch.allclose(tensor, ends[1][key], rtol=1e-3, atol=1e-6), key
            assert ends[1][key].is_contiguous()
