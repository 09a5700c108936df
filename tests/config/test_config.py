"""Settings: flags follow from the fields, and a wrong value ends in one line."""

import dataclasses
import typing

import pytest

import config as config_module
from config import ChannelPruningConfig, Config, DataConfig, RunConfig, TrainConfig, help_page
from config.settings import FRACTION, SHARE, Interval, nearest
from learners import LEARNERS
from nets import NETS
from pocketprune.common.errors import UserError

FIELDS = [(concern, field) for concern in config_module._concerns().values() for field in dataclasses.fields(concern)]


def _another_value(field: dataclasses.Field) -> object:
    """A value that the setting accepts and that is not its default."""
    accept, default = field.metadata["accept"], field.default
    if isinstance(accept, tuple):
        return next(word for word in accept if word != default)
    if "bool" in str(field.type):
        return not default
    if isinstance(accept, Interval):
        return next(number for number in (1, 0, 2, 0.5) if number in accept and number != default)
    return "another"


def test_no_flags_give_the_defaults() -> None:
    assert Config.from_flags([]) == Config()


def test_every_setting_is_one_flag_and_reaches_its_field() -> None:
    names = [field.name for _, field in FIELDS]
    assert len(set(names)) == len(names)
    assert set(Config().as_dict()) == set(names)
    for concern_name, concern in config_module._concerns().items():
        for field in dataclasses.fields(concern):
            value = _another_value(field)
            config = Config.from_flags([f"--{field.name}={value}"])
            assert getattr(getattr(config, concern_name), field.name) == value


@pytest.mark.parametrize(("concern", "field"), FIELDS, ids=[field.name for _, field in FIELDS])
def test_every_setting_teaches_and_has_a_default_of_its_kind(concern: type, field: dataclasses.Field) -> None:
    hint = typing.get_type_hints(concern)[field.name]
    assert isinstance(field.default, hint)
    assert len(field.metadata["teach"]) >= 10


def test_defaults_are_pocketflows() -> None:
    config = Config()
    assert (config.run.learner, config.run.exec_mode) == ("full-prec", "train")
    assert (config.data.batch_size, config.data.batch_size_eval) == (128, 100)
    assert (config.train.momentum, config.train.nb_epochs_rat) == (0.9, 1.0)
    pruning = config.channel_pruning
    assert (pruning.cp_uniform_preserve_ratio, pruning.cp_prune_list_file) == (0.6, "ratio.list")
    assert (pruning.cp_nb_points_per_layer, pruning.cp_nb_batches) == (10, 60)
    assert (pruning.cp_lasso, pruning.cp_quadruple) == (True, False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--cp_quadruple"], True),
        (["--cp_quadruple=True"], True),
        (["--cp_quadruple=true"], True),
        (["--cp_quadruple=1"], True),
        (["--cp_quadruple=False"], False),
        (["--nocp_quadruple"], False),
        (["--cp_quadruple", "--seed", "3"], True),
    ],
)
def test_switches_are_written_as_pocketflow_users_do(arguments: list[str], expected: bool) -> None:
    assert Config.from_flags(arguments).channel_pruning.cp_quadruple is expected


def test_flags_in_pocketflows_forms() -> None:
    line = "--learner channel --batch_size_eval 64 --cp_uniform_preserve_ratio=5e-1 -resnet_size 56"
    config = Config.from_flags(line.split())
    assert config.run.learner == "channel"
    assert config.data.batch_size_eval == 64
    assert config.channel_pruning.cp_uniform_preserve_ratio == 0.5
    assert config.net.resnet_size == 56


@pytest.mark.parametrize(
    ("flag", "accepted"),
    [
        ("--batch_size=many", "a whole number"),
        ("--batch_size=1.5", "a whole number"),
        ("--batch_size=0", ">= 1"),
        ("--momentum=1", "in [0, 1)"),
        ("--momentum=high", "a number"),
        ("--lrn_rate_init=0", "> 0"),
        ("--lrn_rate_init=inf", "> 0"),
        ("--cp_uniform_preserve_ratio=0", "in (0, 1]"),
        ("--cp_uniform_preserve_ratio=1.5", "in (0, 1]"),
        ("--cp_uniform_preserve_ratio=-0.5", "in (0, 1]"),
        ("--cp_uniform_preserve_ratio=nan", "in (0, 1]"),
        ("--cp_quadruple=maybe", "true or false"),
        ("--exec_mode=trian", "train, eval, export, layers; did you mean train?"),
        ("--cp_selection=lassoo", "lasso, obs, magnitude, random; did you mean lasso?"),
        ("--cp_shared_input=both", "sample, couple, keep"),
        ("--seed=-1", "in [0, 4294967295]"),
    ],
)
def test_a_wrong_value_names_flag_value_and_what_is_accepted(flag: str, accepted: str) -> None:
    with pytest.raises(UserError) as caught:
        Config.from_flags([flag])
    message = str(caught.value)
    assert message.startswith(flag.split("=")[0] + "=")
    assert accepted in message
    assert "\n" not in message


def test_an_unknown_flag_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^--lerner: unknown; did you mean learner\?"):
        Config.from_flags(["--lerner", "channel"])
    with pytest.raises(UserError, match=r"^--zzzz: unknown \("):
        Config.from_flags(["--zzzz=1"])


@pytest.mark.parametrize("arguments", [["stray"], ["--cp_quadruple", "True"], ["--seed"], ["--nocp_lasso=1"]])
def test_a_malformed_command_line_is_one_line(arguments: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        Config.from_flags(arguments)
    assert "\n" not in str(caught.value)


def test_settings_made_in_code_are_checked_too() -> None:
    with pytest.raises(UserError, match=r"--cp_uniform_preserve_ratio=2: expected a number in \(0, 1\]"):
        ChannelPruningConfig(cp_uniform_preserve_ratio=2)
    with pytest.raises(UserError, match="--batch_size=0"):
        DataConfig(batch_size=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().momentum = 0.5  # type: ignore[misc]


def test_pocketflow_switches_translate() -> None:
    assert ChannelPruningConfig(cp_lasso=False).selection == "magnitude"
    assert ChannelPruningConfig(cp_lasso=False, cp_selection="obs").selection == "obs"
    assert ChannelPruningConfig(cp_quadruple=True).channel_multiple == 4
    assert ChannelPruningConfig(cp_quadruple=True, cp_channel_multiple=8).channel_multiple == 8
    assert ChannelPruningConfig(cp_quadruple=True, cp_channel_multiple=6).channel_multiple == 12


def test_help_shows_every_flag_with_its_default_under_its_concern() -> None:
    page = help_page(80)
    blocks = page.split("\n\n")
    for concern, field in FIELDS:
        block = next(block for block in blocks if block.startswith(f"{concern.__doc__}:"))
        assert f"  --{field.name} (" in block
    assert "--cp_uniform_preserve_ratio (0.6)  in (0, 1]" in page
    assert "--cp_quadruple (false)" in page
    assert all(len(line) <= 80 for line in page.split("What to do")[1].splitlines())


def test_help_names_every_net_and_learner() -> None:
    page = " ".join(help_page().split())
    for name in (*NETS, *LEARNERS):
        assert name in page


def test_workdir_is_named_after_the_run() -> None:
    assert str(Config().workdir) == "runs/resnet_at_digits"
    assert str(Config.from_flags(["--resnet_size=56"]).workdir) == "runs/resnet_56_at_digits"
    assert str(Config.from_flags(["--workdir", "out"]).workdir) == "out"
    named = Config.from_flags(["--net", "nets/mine.py:build", "--dataset", "my.data:load"])
    assert named.workdir.parent.name == "runs"
    assert named.workdir.name.startswith("mine_at_")


@pytest.mark.parametrize(
    ("interval", "inside", "outside", "text"),
    [
        (SHARE, [0.001, 1], [0, 1.001, -1, float("nan")], "in (0, 1]"),
        (FRACTION, [0, 0.999], [1, -0.1], "in [0, 1)"),
        (Interval(0, low_open=True), [1e-9, 1e9], [0, float("inf")], "> 0"),
        (Interval(1), [1, 10**9], [0, float("inf")], ">= 1"),
    ],
)
def test_intervals(interval: Interval, inside: list[float], outside: list[float], text: str) -> None:
    assert all(value in interval for value in inside)
    assert not any(value in interval for value in outside)
    assert str(interval) == text


def test_nearest_is_silent_without_a_likeness() -> None:
    assert nearest("chanel", ["channel", "full-prec"]) == "; did you mean channel?"
    assert nearest("xyz", ["channel"]) == ""


def test_run_config_accepts_any_learner_name_for_the_registry_to_judge() -> None:
    assert RunConfig(learner="mine.py:Mine").learner == "mine.py:Mine"
