"""The one door: a policy's type or names say what is masked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import pocketprune
from pocketprune import Controller, Policy, SparsityController, SparsityPolicy, UserError, WeightRule
from tests.training.tiny import conv_net

X = torch.randn(2, 3, 8, 8)


@pytest.mark.parametrize(
    ("policy", "kind"),
    [
        (Policy(), Controller),
        ({"channels": 0.5}, Controller),
        ({}, Controller),
        (SparsityPolicy(), SparsityController),
        ({"level": 0.75}, SparsityController),
        ({"rules": [{"pattern": "2:4"}], "ignore": ["0"]}, SparsityController),
        ({"rules": [WeightRule()]}, SparsityController),
    ],
)
def test_a_policy_says_what_is_masked(policy: Any, kind: type) -> None:
    assert isinstance(pocketprune.compress(conv_net(), X, policy), kind)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"pattern": "2:4", "groups": ["*"]}, "'pattern', of single weights, and 'groups', of channels, given"),
        ({"levle": 0.5}, "'levle' given"),
        (3, "int given; names with values are accepted"),
    ],
)
def test_what_is_of_neither_kind_is_told(policy: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        pocketprune.compress(conv_net(), X, policy)
