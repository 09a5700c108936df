"""The training schedules are data: PocketFlow's values, and sane for every pair."""

import pytest

from datasets import DATASETS
from nets import NETS
from nets.schedules import Schedule, schedule_for


@pytest.mark.parametrize(
    ("net", "dataset", "expected"),
    [
        ("lenet", "cifar10", (0.01, 128, 5e-4, 250, (100, 150, 200))),
        ("resnet", "cifar10", (0.1, 128, 2e-4, 250, (100, 150, 200))),
        ("resnet", "fashion_mnist", (0.1, 128, 3e-4, 250, (100, 150, 200))),
        ("resnet_imagenet", "image_folder", (0.1, 256, 1e-4, 100, (30, 60, 80, 90))),
        ("mobilenet_v1", "image_folder", (0.045, 96, 4e-5, 100, (30, 60, 80, 90))),
    ],
)
def test_pocketflows_values(net: str, dataset: str, expected: tuple[object, ...]) -> None:
    assert schedule_for(net, dataset) == Schedule(*expected)


def test_mobilenet_v2_decays_exponentially() -> None:
    schedule = schedule_for("mobilenet_v2", "image_folder")
    assert (schedule.nb_epochs, schedule.lrn_rate_init) == (412, 0.045)
    for epoch in (10, 100, 400):
        passed = sum(at <= epoch for at in schedule.decay_epochs)
        assert schedule.decay_rate**passed == pytest.approx(0.98**epoch)


@pytest.mark.parametrize("dataset", [*DATASETS, "own.py:data"])
@pytest.mark.parametrize("net", [*NETS, "own.py:net"])
def test_every_pair_has_one(net: str, dataset: str) -> None:
    schedule = schedule_for(net, dataset)
    assert 0 < schedule.lrn_rate_init <= 0.1
    assert list(schedule.decay_epochs) == sorted(set(schedule.decay_epochs))
    assert 0 < schedule.decay_epochs[0] <= schedule.decay_epochs[-1] < schedule.nb_epochs
    assert (dataset == "digits") == (schedule.nb_epochs <= 60)


def test_unknown_networks_borrow() -> None:
    assert schedule_for("own.py:net", "cifar10") == schedule_for("resnet", "cifar10")
    assert schedule_for("own.py:net", "image_folder") == schedule_for("resnet_imagenet", "image_folder")
    assert schedule_for("lenet", "fashion_mnist") == schedule_for("lenet", "cifar10")
