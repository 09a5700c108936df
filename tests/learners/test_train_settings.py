"""How long and how fast a network trains: PocketFlow's values unless a flag says otherwise."""

import pytest

from config import Config
from datasets import DATASETS
from learners.train_settings import finetune_settings, group_settings, train_settings
from nets import NETS
from pocketprune.training.schedules import Constant, Cosine
from pocketprune.training.state import TrainSettings


def _settings(line: str, share: float = 1.0) -> TrainSettings:
    return train_settings(Config.from_flags(line.split()), share)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_every_net_can_train_on_every_data_set(net: str, dataset: str) -> None:
    settings = _settings(f"--net {net} --dataset {dataset}")
    assert settings.schedule(0, 1000) == 1.0
    assert 0 < settings.schedule(999, 1000) < 0.05


def test_resnet_on_cifar10_is_pocketflows() -> None:
    settings = _settings("--net resnet --dataset cifar10")
    assert (settings.epochs, settings.lrn_rate, settings.weight_decay) == (250, 0.1, 2e-4)
    rates = [settings.schedule(epoch, 250) for epoch in (0, 99, 100, 150, 200, 249)]
    assert rates == pytest.approx([1, 1, 0.1, 0.01, 0.001, 0.001])


def test_the_start_rate_follows_the_batch_size() -> None:
    assert _settings("--batch_size 256").lrn_rate == pytest.approx(0.2)
    assert _settings("--batch_size 256 --batch_size_norm 256").lrn_rate == pytest.approx(0.1)
    assert _settings("--net mobilenet_v1 --dataset cifar10 --batch_size 96").lrn_rate == pytest.approx(0.045)
    assert _settings("--lrn_rate_init 0.02").lrn_rate == pytest.approx(0.02)


def test_flags_win_over_the_networks_own() -> None:
    line = "--nb_epochs 8 --loss_w_dcy 0 --momentum 0.5 --optimizer adam --lrn_rate_dcy cosine --warmup 0.1"
    settings = _settings(line, 0.25)
    assert (settings.epochs, settings.weight_decay, settings.momentum) == (2.0, 0.0, 0.5)
    assert settings.optimizer == "adam"
    assert settings.schedule == Cosine(0.1)
    assert _settings("--lrn_rate_dcy constant").schedule == Constant()


def test_an_unknown_net_trains_like_resnet() -> None:
    own = _settings("--net mine.py:build --dataset cifar10 --channels_last")
    assert own == _settings("--dataset cifar10")


def test_channels_last_is_for_the_nets_known_to_work_with_it() -> None:
    assert _settings("").channels_last
    assert not _settings("--nochannels_last").channels_last
    assert not _settings("--net mine.py:build").channels_last
    assert not train_settings(Config.from_flags([]), device="cuda").channels_last
    assert train_settings(Config.from_flags(["--amp=bf16"]), device="cuda").channels_last


def _tuned(line: str, share: float = 1.0) -> TrainSettings:
    return finetune_settings(Config.from_flags(line.split()), share)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_a_pruned_network_starts_with_a_rate_that_suits_the_length(net: str, dataset: str) -> None:
    line = f"--net {net} --dataset {dataset}"
    rate = _settings(line).lrn_rate
    for share, factor in ((1, 1), (0.25, 1), (0.04, 0.4), (0.01, 0.2)):
        settings = _tuned(line, share)
        assert settings.lrn_rate == pytest.approx(rate * factor)
        assert (settings.schedule, settings.clip_norm) == (Cosine(0.1), 1.0)
    short = _tuned(f"{line} --nb_epochs 1")  # the share is one of the network's own schedule
    assert short.lrn_rate == pytest.approx(_tuned(line, short.epochs / _settings(line).epochs).lrn_rate)


def test_flags_win_over_the_fitted_recipe_and_pocketflows_is_one_flag_away() -> None:
    assert _tuned("--optimizer adam").lrn_rate == 0.002
    line = "--lrn_rate_init 0.03 --lrn_rate_dcy piecewise --clip_norm 5"
    settings = _tuned(line, 0.05)
    assert (settings.lrn_rate, settings.clip_norm) == (0.03, 5)
    assert settings.schedule == _settings(line).schedule
    assert _tuned("--warmup 0.2").schedule == Cosine(0.2)
    assert _tuned("--ft_recipe pocketflow", 0.05) == _settings("", 0.05)
    assert _tuned("--ft_recipe pocketflow --lrn_rate_dcy cosine").schedule == Cosine()


def test_groups_are_tuned_briefly_or_for_the_full_schedule() -> None:
    def between(line: str) -> TrainSettings:
        return group_settings(Config.from_flags(["--nb_epochs=10", "--nb_epochs_rat=0.5", *line.split()]))

    full = between("")
    assert (full.epochs, full.optimizer, full.clip_norm) == (5, "sgd", 1.0)
    assert between("--cp_finetune --cp_retrain") == full
    brief = between("--cp_finetune --cp_nb_iters_ft_ratio=0.4 --cp_lrn_rate_ft=0.002")
    assert (brief.epochs, brief.optimizer, brief.lrn_rate, brief.schedule) == (2, "adam", 0.002, Constant())


def test_every_training_flag_reaches_the_settings() -> None:
    line = "--label_smoothing 0.1 --ema_decay 0.9 --clip_norm 2 --amp bf16 --tf32 --channels_last --compile"
    settings = _settings(f"{line} --sync_bn --summ_step 7 --seed 3")
    assert (settings.label_smoothing, settings.ema_decay, settings.clip_norm) == (0.1, 0.9, 2.0)
    assert (settings.amp, settings.summ_step, settings.seed) == ("bf16", 7, 3)
    assert settings.tf32
    assert settings.channels_last
    assert settings.compile
    assert settings.sync_bn
