"""Pruning shared by processes: what one process would do on the same images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pocketprune.channel_pruning.calibration import Calibration
from tests.channel_pruning.door import prune
from tests.structure import small
from tests.training.test_distributed import run_processes
from tests.training.worker import PRUNED, PRUNING, pruning_net


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    folder = tmp_path_factory.mktemp("together")
    ends, _ = run_processes("prune", folder)
    assert [status for status, _ in ends] == [0, 0], ends
    return folder


@pytest.mark.parametrize("name", sorted(PRUNED))
def test_two_processes_prune_as_one(folder: Path, name: str) -> None:
    batches = [batch.double() for batch in small.images(50, 10)]
    alone = prune(pruning_net(), batches, **PRUNING, **PRUNED[name])
    first, second = (torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in range(2))
    assert first["kept"] == second["kept"] == [list(layer.kept_index) for layer in alone.layers]
    assert first["errors"] == pytest.approx([layer.error_after for layer in alone.layers], rel=1e-9, abs=1e-12)
    for key, tensor in alone.net.state_dict().items():
        assert torch.equal(first["net"][key], second["net"][key])
        assert torch.allclose(first["net"][key], tensor, rtol=1e-9, atol=1e-9), key


@pytest.mark.parametrize(("world", "sizes"), [(2, [10, 10, 4]), (3, [12, 6]), (2, [7, 2, 1])])
def test_the_processes_hold_out_what_one_would(world: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [torch.arange(size) for size in sizes]
    parts = [[batch[rank::world] for batch in whole] for rank in range(world)]
    lengths = [[len(batch) for batch in part] for part in parts]
    monkeypatch.setattr("pocketprune.channel_pruning.calibration.gather_objects", lambda _: lengths)
    alone = Calibration(whole)
    shares = [Calibration(part, rank=rank, world=world) for rank, part in enumerate(parts)]
    for number, batch in enumerate(whole):
        fitted = [
            part[number][: share.fitted_rows(number, len(part[number]))]
            for part, share in zip(parts, shares, strict=True)
        ]
        assert torch.cat(fitted).sort().values.equal(batch[: alone.fitted_rows(number, len(batch))])
    held = sum(len(batch) - alone.fitted_rows(number, len(batch)) for number, batch in enumerate(whole))
    assert held == sum(sizes) // 5
