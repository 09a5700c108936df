"""Settings: flags follow from the fields, and a wrong value ends in one line."""

import dataclasses
import typing

import pytest

from config import CONCERNS, FLAG_OF_ARGUMENT, ChannelPruningConfig, Config, DataConfig, RunConfig, TrainConfig
from learners.train_settings import train_settings
from pocketprune.channel_pruning.options import PruningOptions
from pocketprune.common.errors import UserError
from pocketprune.common.options import Interval
from pocketprune.search import SEARCHES, Budget, DdpgSettings, SearchSettings
from pocketprune.training.state import TrainSettings

FIELDS = [(concern, field) for concern in CONCERNS.values() for field in dataclasses.fields(concern)]


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
    for concern_name, concern in CONCERNS.items():
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
        ("--exec_mode=trian", "train, eval, export, layers; did you mean 'train'?"),
        ("--cp_selection=lassoo", "lasso, obs, magnitude, random; did you mean 'lasso'?"),
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
    with pytest.raises(UserError, match=r"^--lerner: unknown; did you mean 'learner'\?"):
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


def test_workdir_is_named_after_the_run() -> None:
    assert str(Config().workdir) == "runs/resnet_at_digits"
    assert str(Config.from_flags(["--resnet_size=56"]).workdir) == "runs/resnet_56_at_digits"
    assert str(Config.from_flags(["--workdir", "out"]).workdir) == "out"
    named = Config.from_flags(["--net", "nets/mine.py:build", "--dataset", "my.data:load"])
    assert named.workdir.parent.name == "runs"
    assert named.workdir.name.startswith("mine_at_")


def test_run_config_accepts_any_learner_name_for_the_registry_to_judge() -> None:
    assert RunConfig(learner="mine.py:Mine").learner == "mine.py:Mine"


@pytest.mark.parametrize(
    ("options", "prefix", "names"),
    [
        (DdpgSettings, "ddpg_", [field.name for field in dataclasses.fields(DdpgSettings)]),
        (SearchSettings, "cp_", ["nb_rlouts", "nb_rlouts_min", "reward_policy", "noise_tolerance"]),
        (PruningOptions, "cp_", ["selection", "shared_input", "channel_multiple", "cache_gb"]),
        (TrainSettings, "", ["optimizer", "momentum", "label_smoothing", "ema_decay", "clip_norm", "amp", "compile"]),
    ],
)
def test_flags_of_the_engines_options_accept_what_the_engine_accepts(options: type, prefix: str, names: list) -> None:
    """The default, the accepted values and the kind."""
    flags = {field.name: (concern, field) for concern, field in FIELDS}
    of_engine = {field.name: field for field in dataclasses.fields(options)}
    for name in names:
        concern, flag = flags[prefix + name]
        assert flag.default == of_engine[name].default
        assert flag.metadata["accept"] is of_engine[name].metadata["accept"]
        assert typing.get_type_hints(concern)[flag.name] is typing.get_type_hints(options)[name]


def test_searches_and_budgets_are_those_of_the_engine() -> None:
    flags = {field.name: field for _, field in FIELDS}
    assert set(flags["cp_search"].metadata["accept"]) == set(SEARCHES)
    assert flags["cp_preserve_ratio"].default == Budget().share
    assert flags["cp_budget"].default == Budget().kind


def test_every_schedule_that_is_accepted_can_be_trained_with() -> None:
    schedules = next(field for _, field in FIELDS if field.name == "lrn_rate_dcy").metadata["accept"]
    made = [train_settings(Config.from_flags([f"--lrn_rate_dcy={name}"])).schedule for name in schedules]
    assert len({type(schedule) for schedule in made}) == len(schedules)


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("points_per_layer", "--cp_nb_points_per_layer=10: wrong"),
        ("selection", "--cp_selection=obs: wrong"),
        ("group_size", "--cp_list_group=1000: wrong"),
        ("method", "--cp_search=dp: wrong"),
        ("budget.share", "--cp_preserve_ratio=0.5: wrong"),
        ("nb_rlouts", "--cp_nb_rlouts=200: wrong"),
        ("ddpg.batch_size", "--ddpg_batch_size=64: wrong"),
        ("batch_size", "--batch_size=128: wrong"),
        ("device", "--device=auto: wrong"),
        ("lrn_rate", "--lrn_rate_init: wrong"),
        ("weight", "--loss_w_dst=4.0: wrong"),
        ("kept['3']", "kept['3']: wrong"),
        ("", "wrong"),
    ],
)
def test_an_error_about_an_argument_is_told_with_its_flag(argument: str, line: str) -> None:
    assert Config.from_flags(["--cp_selection=obs"]).told(UserError("wrong", argument=argument)) == line


def test_no_two_flags_set_one_argument() -> None:
    assert len(FLAG_OF_ARGUMENT) == len(FIELDS)
