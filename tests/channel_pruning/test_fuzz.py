"""Random networks: the error that a pruning reports is the error that is measured, and the caller's things stay."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import pocketprune
from pocketprune import PruneResult, PruningOptions, PruningWarning
from pocketprune.channel_pruning import pruning
from pocketprune.channel_pruning.state import PruningState
from pocketprune.common.errors import UserError
from tests.channel_pruning.fuzzing import SIDE, Network

ENDS: Counter[str] = Counter()
"""How the prunings of this session ended."""


def _options(data: st.DataObject) -> PruningOptions:
    return PruningOptions(
        selection=data.draw(st.sampled_from(["lasso", "obs", "magnitude", "random"])),
        shared_input=data.draw(st.sampled_from(["sample", "couple", "keep"])),
        layers="all",
        refit=data.draw(st.sampled_from(["all", "all", "pruned"])),
        branch_drift=data.draw(st.booleans()),
        points_per_layer=0,
        cache_gb=data.draw(st.sampled_from([4.0, 0.0])),
    )


def _state(net: nn.Module) -> list[Any]:
    """All that a caller can see of a network."""
    modules = [(name, module, dict(vars(module)), module.training) for name, module in net.named_modules()]
    tensors = [(name, t, t.detach().clone(), t.requires_grad) for name, t in _tensors(net)]
    return [modules, tensors]


def _tensors(net: nn.Module) -> list[tuple[str, Tensor]]:
    return [*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False)]


def _assert_unchanged(net: nn.Module, before: list[Any]) -> None:
    for (name, module, attributes, training), (now, other) in zip(before[0], net.named_modules(), strict=True):
        assert (now, other, other.training) == (name, module, training)
        assert vars(other).keys() == attributes.keys(), name
        assert all(vars(other)[key] is value for key, value in attributes.items()), name
    for (name, tensor, numbers, grad), (now, other) in zip(before[1], _tensors(net), strict=True):
        assert now == name
        assert other is tensor
        assert other.requires_grad is grad
        assert torch.equal(other, numbers), name


def _pruned(net: nn.Module, batches: list[Tensor], options: PruningOptions) -> tuple[PruneResult, float | None]:
    """The pruning of a caller, and what its last layer promises of the output."""
    promises = []

    def measured(result: PruneResult, plan: Any, calibration: Any, state: PruningState) -> PruneResult:
        promises.append(state.promised)
        return told(result, plan, calibration, state)

    told = pruning.measured
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(pruning, "measured", measured)
        warnings.simplefilter("ignore", PruningWarning)  # that too much was removed
        result = pocketprune.prune_channels(net, batches, 0.5, options=options)
    return result, promises[0]


def _check(data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 99)))
    net = Network(lambda options: options[data.draw(st.integers(0, len(options) - 1))])
    options = _options(data)
    note(f"{net.story} {options}")
    net.train(data.draw(st.booleans()))
    batches = list(torch.randn(60, 3, SIDE, SIDE).split(20))
    before, given = _state(net), [batch.clone() for batch in batches]
    result, promised, refusal = None, None, ""
    try:
        result, promised = _pruned(net, batches, options)
    except UserError as error:
        refusal = str(error)
    if result is None:
        note(refusal)
        assert len(refusal.splitlines()) == 1
        ENDS["refused"] += 1
    else:
        if promised is not None:
            assert result.output_error == pytest.approx(promised, rel=0.01, abs=1e-4)
        ENDS["pruned" if promised is not None else "pruned, without a promise"] += 1
        _check_result(result.net, net)
    _assert_unchanged(net, before)
    assert all(map(torch.equal, batches, given))


@torch.no_grad()
def _check_result(small: nn.Module, net: nn.Module) -> None:
    """The pruned network takes any batch, image by image, and comes back from a file."""
    images = torch.randn(7, 3, SIDE, SIDE)
    modes = {name: module.training for name, module in net.named_modules()}
    assert all(module.training == modes.get(name, net.training) for name, module in small.named_modules())
    small = copy.deepcopy(small).eval()
    together = small(images.clone())
    torch.testing.assert_close(
        together, torch.cat([small(image[None].clone()) for image in images]), rtol=1e-3, atol=1e-3
    )
    with TemporaryDirectory() as folder:
        pocketprune.save(Path(folder, "net.pt"), small)
        torch.testing.assert_close(pocketprune.load(Path(folder, "net.pt"), net)(images), together, rtol=0, atol=0)


QUIET: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=6, derandomize=True, **QUIET)
@given(st.data())
def test_random_networks_keep_what_is_reported(data: st.DataObject) -> None:
    _check(data)


@settings(max_examples=200, derandomize=True, **QUIET)
@given(st.data())
def _many(data: st.DataObject) -> None:
    _check(data)


@pytest.mark.slow
def test_many_random_networks_keep_what_is_reported() -> None:
    ENDS.clear()
    _many()
    assert ENDS["pruned"] > ENDS["refused"], ENDS
