"""A pruning run that is interrupted after any layer goes on to the same network, to the bit."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn

from pocketprune import PruneResult, UserError
from pocketprune.training.checkpoint import assert_plain
from tests.channel_pruning.door import prune
from tests.structure.small import images, resnet

OPTIONS = {"selection": "random", "points_per_layer": 5}


def nudge(net: nn.Module, number: int) -> None:
    """Tuning for the tests: the same small change each time."""
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)


def states_of(**options: Any) -> tuple[list[dict], PruneResult]:
    """Every state a run tells, through a file, and what it ends with."""
    states: list[dict] = []

    def keep(state: dict) -> None:
        assert_plain(state)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        states.append(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))

    return states, prune(resnet(1), images(), on_state=keep, **OPTIONS, **options)


def same(first: PruneResult, second: PruneResult) -> bool:
    tensors = zip(first.net.state_dict().values(), second.net.state_dict().values(), strict=True)
    return first.layers == second.layers and all(torch.equal(a, b) for a, b in tensors)


@pytest.mark.parametrize(
    "options", [{"shared_input": "sample"}, {"shared_input": "couple"}, {"group_size": 3, "tune": nudge}]
)
def test_from_every_state_the_run_ends_equal_to_the_bit(options: dict) -> None:
    states, expected = states_of(**options)
    assert len(states) >= 1 + len([layer for layer in expected.layers if layer.kept < layer.channels])
    for state in states[::3]:
        assert same(
            prune(resnet(1), images(), state=state, **OPTIONS, **options),
            expected,
        )


def test_a_kill_while_tuning_repeats_the_tuning_only() -> None:
    _, expected = states_of(group_size=3, tune=nudge)
    states: list[dict] = []
    tuned: list[int] = []

    def killed(net: nn.Module, number: int) -> None:
        tuned.append(number)
        if number == 1:
            raise KeyboardInterrupt
        nudge(net, number)

    with pytest.raises(KeyboardInterrupt):
        prune(resnet(1), images(), on_state=states.append, group_size=3, tune=killed, **OPTIONS)
    result = prune(resnet(1), images(), state=states[-1], group_size=3, tune=nudge, **OPTIONS)
    assert tuned == [0, 1]
    assert same(result, expected)


def test_a_finished_run_is_thinned_without_another_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    states, expected = states_of()
    monkeypatch.setattr("pocketprune.graph.sweep.Sweep.rows", None)
    assert same(prune(resnet(1), images(), state=states[-1], **OPTIONS), expected)


@pytest.mark.parametrize(
    ("net", "batches", "options", "words"),
    [
        (1, images(), {"seed": 1}, "seed: 0 saved, 1 now"),
        (1, images(seed=2), {}, "calibration inputs"),
        (1, images(), {"target": 0.25}, "kept channels of layer1.0.conv1"),
        (2, images(), {}, "of another pruning"),
    ],
)
def test_the_state_of_another_run_is_refused(net: int, batches: list, options: dict, words: str) -> None:
    states, _ = states_of()
    with pytest.raises(UserError, match="format 0; accepted is 3"):
        prune(resnet(1), images(), state=states[2] | {"format": 0}, **OPTIONS)
    with pytest.raises(UserError, match=words):
        prune(resnet(net), batches, state=states[2], **(OPTIONS | options))


def test_a_state_without_a_key_is_refused() -> None:
    states, _ = states_of()
    for key in ("cut", "results", "positions", "choices", "done"):
        with pytest.raises(UserError, match="state: incomplete or malformed"):
            prune(resnet(1), images(), state={k: v for k, v in states[2].items() if k != key}, **OPTIONS)
