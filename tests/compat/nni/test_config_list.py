"""What a config list must not say, and how that is told."""

from __future__ import annotations

from typing import Any

import pytest

from pocketprune.common.errors import UserError
from pocketprune.compat.nni import ActivationAPoZRankFilterPruner, L1FilterPruner, ModelSpeedup, NetAdaptPruner
from tests.compat.small import digits, small_net

CONV = ["Conv2d"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"sparsity": "0.2", "op_types": CONV}, r"config_list\[0\].sparsity: '0.2' given; \[0, 1\) accepted"),
        ({"sparsity": 1.6, "op_types": CONV}, r"config_list\[0\].sparsity: 1.6 given; \[0, 1\) accepted"),
        ({"sparsity": 0.2, "op_types": "default"}, r"config_list\[0\].op_types: 'default' given; a list"),
        ({"sparsity": 0.2, "op_names": "abc"}, r"config_list\[0\].op_names: 'abc' given; a list"),
        ({"sparsity": 0.2, "op_names": ["cnov1"]}, r"config_list\[0\].op_names: 'cnov1' .* did you mean 'conv1'"),
        ({"sparsity": 0.2, "op_types": ["Conv2D"]}, r"op_types: 'Conv2D' given; did you mean 'Conv2d'"),
        ({"sparsty": 0.2, "op_types": CONV}, r"config_list\[0\].sparsty: no such key; did you mean 'sparsity'"),
        ({"op_types": CONV}, r"config_list\[0\]: no share given"),
        ({"sparsity": 0.2, "sparse_ratio": 0.2, "op_types": CONV}, "sparsity and sparse_ratio given"),
        ({"sparsity": 0.2, "sparse_threshold": 0.1}, "sparse_threshold: not here: a share is accepted"),
        ({"sparsity": 0.2, "op_types": ["BatchNorm2d"]}, "'bn' is a BatchNorm2d; Conv1d"),
        ("conv", r"config_list\[0\]: 'conv' given; a dict is accepted"),
    ],
)
def test_bad_entry(entry: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        L1FilterPruner(small_net(), [entry])


def test_bad_arguments() -> None:
    net, config = small_net(), [{"sparsity": 0.5, "op_types": CONV}]
    with pytest.raises(UserError, match="dummy_input: none given"):
        L1FilterPruner(net, config, dependency_aware=True)
    with pytest.raises(UserError, match="optimizer: True given; dependency_aware=True has to be given by name"):
        L1FilterPruner(net, config, True)
    with pytest.raises(UserError, match="activation: 'rellu' given; did you mean 'relu'"):
        ActivationAPoZRankFilterPruner(net, config, activation="rellu")
    with pytest.raises(UserError, match="trainer: none given, and no optimizer"):
        ActivationAPoZRankFilterPruner(net, config).compress()
    with pytest.raises(UserError, match="evaluator: none given"):
        NetAdaptPruner(net, config)
    with pytest.raises(UserError, match="masks_file: masks of layer 'convv1' given; did you mean 'conv1'"):
        ModelSpeedup(net, digits()[0][:2], {"convv1": {}})


def test_a_list_with_gaps_is_completed_and_said() -> None:
    net = small_net()
    with pytest.warns(UserWarning, match="conv2 depends on conv, which it does not mean"):
        pruner = L1FilterPruner(
            net,
            [{"sparsity": 0.5, "op_names": ["conv2"], "op_types": CONV}],
            dependency_aware=True,
            dummy_input=digits()[0][:2],
        )
    pruner.compress()
    assert (pruner.masks["conv"]["bias"] == pruner.masks["conv2"]["bias"]).all()
    assert pruner.masks["conv"]["bias"].sum() == 4
