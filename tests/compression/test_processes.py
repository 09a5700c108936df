"""Several processes mask the same channels, those that one process would."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from pocketprune.compression.callback import callback
from pocketprune.compression.controller import Controller, compress
from pocketprune.training import distributed
from pocketprune.training.distributed import processes
from pocketprune.training.loop import train
from tests.training.launch import _CONTEXT
from tests.training.test_distributed import free_port
from tests.training.tiny import TinySplit, conv_net, same_tensors
from tests.training.worker import TOGETHER

POLICY = {"criterion": "gradient", "ignore": ["8"], "schedule": {"name": "linear", "target": 0.5, "steps": 3}}


def trained(rank: int, world: int) -> tuple[nn.Module, Controller]:
    """One process's part of a training with masks, in double precision."""
    net, split = conv_net(norm=False).double(), TinySplit(count=96).double()
    batches = list(split.batches(48 // world, rank=rank, world_size=world))
    controller = compress(net, split.images[:2], POLICY, batches)
    train(net, split, TOGETHER, callbacks=[callback(controller)], progress=False)
    return net, controller


def work(folder: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with processes("cpu"):
        net, controller = trained(distributed.rank(), distributed.world_size())
        kept = distributed.gather_objects(controller.kept())
        sums = distributed.gather_objects([tensor.sum().item() for tensor in net.state_dict().values()])
        torch.save({"kept": kept, "sums": sums, "net": net.state_dict()}, folder / f"{distributed.rank()}.pt")


def test_two_processes_mask_as_one(tmp_path: Path) -> None:
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    runs = [_CONTEXT.Process(target=work, args=(tmp_path, {**shared, "RANK": str(rank)})) for rank in range(2)]
    try:
        for run in runs:
            run.start()
        for run in runs:
            run.join(60)
        assert [run.exitcode for run in runs] == [0, 0]
    finally:
        for run in runs:
            run.kill()
            run.join()
    found = torch.load(tmp_path / "0.pt", weights_only=True)
    assert found["kept"][0] == found["kept"][1]
    assert found["sums"][0] == found["sums"][1]
    alone, controller = trained(0, 1)
    assert controller.kept() == found["kept"][0]
    assert [len(kept) for kept in controller.kept().values()] == [4, 4]
    other = conv_net(norm=False).double()
    other.load_state_dict(found["net"])
    assert not same_tensors(alone, conv_net(norm=False).double())
    for mine, theirs in zip(alone.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-9)
