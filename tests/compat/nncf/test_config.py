"""Configurations: NNCF's own pass, mistakes are told with their path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pocketprune.common.errors import UserError
from pocketprune.compat.nncf import NNCFConfig, create_compressed_model
from pocketprune.compat.nncf.settings import FilterPruning, filter_pruning_of
from tests.compat.nncf.networks import Small

SAMPLE_CONFIG = """{
    "model": "resnet34",
    "pretrained": true,
    "input_info": { "sample_size": [1, 3, 8, 8] }, // one image
    "optimizer": { "type": "SGD", "base_lr": 0.1, "steps": [25, 45] },
    /* the part
       that counts */
    "compression": [
        {
            "algorithm": "filter_pruning",
            "pruning_init": 0.1,
            "params": {
                "schedule": "exponential",
                "pruning_target": 0.5, "pruning_steps": 20,
                "filter_importance": "geometric_median",
            },
            "ignored_scopes": ["{re}Small/NNCFConv2d\\\\[conv2\\\\].*"]
        }
    ]
}"""


def of(entry: dict[str, Any], **more: Any) -> FilterPruning:
    return filter_pruning_of(NNCFConfig.from_dict({"compression": {"algorithm": "filter_pruning", **entry}, **more}))


def test_a_file_with_comments(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(SAMPLE_CONFIG)
    config = NNCFConfig.from_json(tmp_path / "config.json")
    given = filter_pruning_of(config)
    assert (given.init, given.target, given.steps, given.importance) == (0.1, 0.5, 20, "geometric_median")
    ctrl, _ = create_compressed_model(Small(), config)
    assert list(ctrl.control.kept()) == ["layer.0"]


def test_defaults_are_those_of_nncf() -> None:
    given = of({})
    assert (given.init, given.target, given.flops, given.warmup, given.steps) == (0.0, 0.5, False, 0, 100)
    assert (given.schedule, given.importance, given.all_weights) == ("exponential", "L2", False)
    assert (given.first, given.strided, given.bn_samples) == (False, False, 2000)
    learned = of({"params": {"interlayer_ranking_type": "learned_ranking"}})
    assert (learned.all_weights, learned.first, learned.strided) == (True, True, True)
    evolution = learned.evolution
    assert (evolution.generations, evolution.population, evolution.samples, evolution.seed) == (400, 64, 16, 42)


def test_both_places_of_what_stands_beside_or_in_the_parameters() -> None:
    assert of({"pruning_init": 0.2}) == of({"params": {"pruning_init": 0.2}})
    assert of({"all_weights": True}) == of({"params": {"all_weights": True}})
    assert of({"params": {"weight_importance": "L1"}}).importance == "L1"
    assert of({"ignored_scopes": "a"}, ignored_scopes=["b"]).ignored == ("b", "a")


PARAMS = "compression[0].params"


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"params": {"pruning_target": 1.4}}, f"{PARAMS}.pruning_target: 1.4 given; [0, 1) accepted"),
        ({"params": {"pruning_target": True}}, f"{PARAMS}.pruning_target: True given; [0, 1) accepted"),
        ({"params": {"pruning_steps": 0}}, f"{PARAMS}.pruning_steps: 0 given; a whole number, 1 or more, accepted"),
        ({"params": {"prunning_steps": 3}}, f"{PARAMS}.prunning_steps: unknown; did you mean 'pruning_steps'?"),
        ({"params": {"schedule": "expo"}}, f"{PARAMS}.schedule: 'expo' given; accepted: exponential, "),
        ({"params": {"legr_params": {"seed": 1}}}, f"{PARAMS}.legr_params.seed: unknown; accepted: generations, "),
        ({"params": {"all_weights": 1}}, f"{PARAMS}.all_weights: 1 given; true and false are accepted"),
        ({"params": [0.5]}, f"{PARAMS}: [0.5] given; keys with values are accepted"),
        ({"pruning_init": 0.6}, "compression[0].pruning_init: 0.6 given; it must not be above the target, 0.5"),
        ({"ignored_scope": "a"}, "compression[0].ignored_scope: unknown; did you mean 'ignored_scopes'?"),
        ({"ignored_scopes": ["a", 2]}, "compression[0].ignored_scopes[1]: 2 given; a text is accepted"),
        ({"algorithm": "binarization"}, "compression[0].algorithm: 'binarization' given; one-bit weights are not"),
        ({"algorithm": "filter_prunning"}, "compression[0].algorithm: 'filter_prunning' given; did you mean 'filter_p"),
        (
            {"params": {"pruning_target": 0.5, "pruning_flops_target": 0.5}},
            f"{PARAMS}.pruning_flops_target: given beside pruning_target; one of the two is accepted",
        ),
        (
            {"params": {"interlayer_ranking_type": "learned_ranking", "all_weights": False}},
            f"{PARAMS}.all_weights: false given with learned_ranking, which needs true",
        ),
        ({"initializer": {"batchnorm_adaptation": {"num": 1}}}, "compression[0].initializer.batchnorm_adaptation.num"),
    ],
)
def test_mistakes_in_an_entry(entry: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        filter_pruning_of(NNCFConfig.from_dict({"compression": [{"algorithm": "filter_pruning", **entry}]}))
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"compresion": []}, "compresion: unknown; did you mean 'compression'?"),
        ({"compression": []}, "compression: 0 entries of filter_pruning given; one is accepted"),
        ({"compression": [{"algorithm": "filter_pruning"}] * 2}, "compression: 2 entries of filter_pruning given"),
        ({"compression": "filter_pruning"}, "compression: 'filter_pruning' given; {\"algorithm\""),
        ({"input_info": {"sample_size": [1, 3, 0]}}, "input_info.sample_size[2]: 0 given; a whole number, 1 or more,"),
        ({"accuracy_aware_training": {"mode": "early"}}, "accuracy_aware_training.mode: 'early' given; "),
        ({}, "compression: none given; "),
    ],
)
def test_mistakes_around_the_entries(config: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        filter_pruning_of(NNCFConfig.from_dict(config))
    assert str(caught.value).startswith(line)


def test_mistakes_in_a_file_name_it(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text, line in (
        (json.dumps({"compression": {"algorithm": "prune"}}), "compression.algorithm"),
        ("{", "no JSON"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=f"^{path}: {line}"):
            NNCFConfig.from_json(path)
    with pytest.raises(UserError, match="cannot be read"):
        NNCFConfig.from_json(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (
            {"ignored_scopes": ["Small/NNCFConv2d[conv9]/conv2d_0"]},
            "compression.ignored_scopes[0]: 'Small/NNCFConv2d[c",
        ),
        ({"target_scopes": ["{re}Resnet"]}, "compression.target_scopes[0]: '{re}Resnet' names no operation of the net"),
    ],
)
def test_scopes_that_mean_nothing(more: dict[str, Any], line: str) -> None:
    entry = {"algorithm": "filter_pruning", **more}
    config = {"input_info": {"sample_size": [2, 3, 8, 8]}, "compression": entry}
    with pytest.raises(UserError) as caught:
        create_compressed_model(Small(), NNCFConfig.from_dict(config))
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("scope", "pruned"),
    [
        ({"ignored_scopes": "Small/NNCFConv2d[conv2]/conv2d_0"}, ["layer.0"]),
        ({"ignored_scopes": ["Small/Conv2d[conv2]", "{re}.*RELU.*"]}, ["layer.0"]),
        ({"ignored_scopes": ["conv2", "nothing"], "validate_scopes": False}, ["layer.0"]),
        ({"target_scopes": ["{re}Small/Sequential\\[layer\\].*"]}, ["layer.0"]),
        ({}, ["layer.0", "conv2"]),
    ],
)
def test_scopes(scope: dict[str, Any], pruned: list[str]) -> None:
    entry = {"algorithm": "filter_pruning", **scope}
    config = NNCFConfig.from_dict({"input_info": {"sample_size": [2, 3, 8, 8]}, "compression": entry})
    assert list(create_compressed_model(Small(), config)[0].control.kept()) == pruned
