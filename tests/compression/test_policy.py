"""Policies: what they accept, how they are written down, which groups they mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compression.policy import Policy, Rule
from pocketprune.compression.schedules import Schedule
from pocketprune.compression.scopes import scopes_of
from pocketprune.structure.group import ChannelGroup


def group(name: str, *producers: str, reason: str = "") -> ChannelGroup:
    return ChannelGroup(name, 8, not reason, reason, True, ((),) * 8, (name, *producers), ("after",))


GROUPS = [group("stem", "block.1.second"), group("block.1.first"), group("up"), group("last", reason="network output")]
NET = nn.ModuleDict({"stem": nn.Conv2d(3, 8, 3), "up": nn.ConvTranspose2d(8, 8, 2), "last": nn.Linear(8, 2)})


def names(policy: Policy) -> list[list[str]]:
    return [[g.name for g in scope.groups] for scope in scopes_of(policy, GROUPS, NET)]


def rules(*patterns: str, ignore: tuple[str, ...] = ()) -> Policy:
    return Policy(rules=tuple(Rule(groups=(pattern,)) for pattern in patterns), ignore=ignore)


def test_groups_go_by_their_layers_names_and_the_first_rule_takes_them() -> None:
    assert names(Policy()) == [["stem", "block.1.first", "up"]]
    assert names(rules("block.*", "*")) == [["stem", "block.1.first"], ["up"]]
    assert names(rules("*", ignore=("ConvTranspose2d", "block.1.second"))) == [["block.1.first"]]
    assert names(rules("block.*.first", "stem")) == [["block.1.first"], ["stem"]]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (rules("block.2.*"), "groups: 'block.2.*' given; did you mean 'block.1.first'?"),
        (rules("last"), "groups: 'last' must stay whole: network output"),
        (rules("la*"), "groups: la*: all of its groups must stay whole: network output"),
        (rules("*", "stem"), "groups: stem: earlier rules take all of its groups"),
        (rules("*", ignore=("dropout",)), "ignore: 'dropout' given; accepted: stem, "),
        (
            rules("stem", ignore=("block.1.second",)),
            "ignore: 'stem' is asked for and shares its channels with 'block.1.second', which is ignored",
        ),
        (rules("stem", ignore=("stem",)), "ignore: 'stem' is asked for and ignored"),
        (rules("u*", ignore=("u*",)), "groups: u*: all of its groups are ignored"),
    ],
)
def test_patterns_that_cannot_be_followed(policy: Policy, message: str) -> None:
    with pytest.raises(UserError) as caught:
        names(policy)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_policy_comes_back_from_its_dict() -> None:
    schedule = Schedule(name="multi_step", milestones=((1, 0.25), (4, 0.5)))
    policy = Policy(
        rules=(Rule(groups=("a.*", "b"), schedule=schedule, regulariser="group_lasso"), Rule(ranking="global")),
        ignore=("Linear",),
        mask="hard",
    )
    plain = policy.to_dict()
    assert plain["rules"][0]["schedule"]["milestones"] == [[1, 0.25], [4, 0.5]]
    assert Policy.from_dict(plain) == policy


def test_a_short_dict_is_a_single_rule() -> None:
    found = Policy.from_dict({"macs": 0.4, "criterion": "l2", "schedule": {"name": "agp", "steps": 5}, "multiple": 8})
    schedule = Schedule(name="agp", steps=5, target=0.4)
    assert found == Policy(rules=(Rule(criterion="l2", share_of="macs", schedule=schedule),), multiple=8)
    assert Policy.from_dict({"schedule": "one_shot"}).rules[0].schedule == Schedule(name="one_shot")
    assert replace(found, rules=(Rule(),), multiple=1) == Policy()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"criterion": "taylr"}, "criterion: 'taylr' given; expected one of l1, "),
        ({"citerion": "l1"}, "policy: 'citerion' given; did you mean 'criterion'?"),
        ({"channels": 0.5, "macs": 0.5}, "rules: channels and macs given; one target is accepted"),
        ({"macs": 0.5, "share_of": "macs"}, "rules: macs and share_of given; one target is accepted"),
        ({"macs": 0.5, "schedule": {"target": 0.5}}, "rules: macs and the schedule's target given; one is accepted"),
        ({"macs": 1.5}, "target: 1.5 given; expected a number in [0, 1)"),
        ({"rules": [{"mask": "soft"}]}, "rules: 'mask' given"),
        ({"rules": [{}], "criterion": "l1"}, "rules: given beside 'criterion', which belongs into a rule"),
        ({"rules": []}, "rules: none given; at least one is needed"),
        ({"rules": 3}, "rules: int given; a list of rules is accepted"),
        ({"schedule": {"stepz": 3}}, "schedule: 'stepz' given; did you mean 'steps'?"),
        ({"schedule": {"name": "agp", "init": 0.6}}, "init: 0.6 given; it must not be above the target, 0.5"),
        ({"ranking": "global", "criterion": "obs"}, "ranking: 'global' given with 'obs', which has no scores"),
        ({"mask": "sift"}, "mask: 'sift' given; expected one of soft, hard; did you mean 'soft'?"),
        ({"multiple": 0}, "multiple: 0 given; expected a whole number >= 1"),
        ({"floor": 1}, "floor: 1 given; expected a number in [0, 1)"),
        ({"multiple": True}, "multiple: True given; expected a whole number >= 1"),
        ({"allow_inexact": 1}, "allow_inexact: 1 given; True and False are accepted"),
        ({"ignore": 5}, "ignore: 5 given; a list of names"),
        ({"groups": []}, "groups: none given; at least one pattern is needed"),
        ([], "policy: list given; names with values are accepted"),
    ],
)
def test_what_a_policy_refuses(given: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        Policy.from_dict(given)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
