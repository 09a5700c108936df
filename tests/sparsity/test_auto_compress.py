"""AutoCompress: each round searches, trains and thins, and the share is met."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.sparsity.admm import Admm, AdmmSettings
from pocketprune.sparsity.auto_compress import AutoCompressSettings, auto_compress
from pocketprune.structure.cost import count_macs
from pocketprune.training.loop import train
from pocketprune.training.state import TrainSettings
from tests.training.tiny import TinySplit


def wide_net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 24, 3), nn.ReLU(), nn.Conv2d(24, 24, 3), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1)]
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4))


@pytest.mark.slow
def test_rounds_get_smaller_until_the_share_is_met() -> None:
    split, net, sizes = TinySplit(count=160), wide_net(), []
    images, labels = next(iter(split.batches(160)))

    def tune(small: nn.Module, admm: Admm, number: int) -> None:
        sizes.append(count_macs(small, images[:2]))
        train(small, split, TrainSettings(batch_size=32, lrn_rate=0.01), callbacks=[admm], progress=False)
        assert number == len(sizes) - 1

    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    small, rounds = auto_compress(
        net, [images[:96]], 0.4, [(images[96:], labels[96:])], tune,
        settings=AutoCompressSettings(rounds=2, nb_rlouts=6, start="uniform"), admm=AdmmSettings(rounds=2, rho=0.1),
    )  # fmt: skip
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    dense = count_macs(net, images[:2])
    assert sizes[0] == dense > sizes[1] > count_macs(small, images[:2])
    assert [round(r.share, 2) for r in rounds] == [pytest.approx(0.4**0.5, abs=0.03), pytest.approx(0.4, abs=0.03)]
    assert small(images).shape == (160, 4)


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"search": "aneal"}, {"nb_rlouts": 0}, {"selection": "l1"}])
def test_settings_out_of_range_are_one_line(wrong: dict) -> None:
    with pytest.raises(UserError, match=f"^{next(iter(wrong))}: .* given; expected"):
        AutoCompressSettings(**wrong)
