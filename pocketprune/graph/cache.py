"""Hold the values between two stops of the sweep: in memory up to a bound, past it on disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, fx

from pocketprune.graph.nodes import Env


class EnvCache:
    """Hold one environment (node -> value) for each calibration batch.

    Args:
        limit_gb: GiB of tensors kept in memory; batches that would exceed it are written to a temporary folder.
    """

    def __init__(self, limit_gb: float) -> None:
        self._limit = limit_gb * 2**30
        self._memory: dict[int, Env] = {}
        self._sizes: dict[int, int] = {}
        self._on_disk: dict[int, list[fx.Node]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def put(self, batch: int, env: Env) -> None:
        """Hold the values of one batch."""
        size = sum(v.numel() * v.element_size() for v in env.values() if isinstance(v, Tensor))
        if sum(self._sizes.values()) + size <= self._limit:
            self._memory[batch], self._sizes[batch] = env, size
            return
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="pocketprune-")
        torch.save(list(env.values()), self._path(batch))
        self._on_disk[batch] = list(env)

    def take(self, batch: int) -> Env:
        """Return the values of one batch and let go of them."""
        if batch in self._memory:
            self._sizes.pop(batch)
            return self._memory.pop(batch)
        nodes = self._on_disk.pop(batch)
        values = torch.load(self._path(batch), weights_only=True)
        self._path(batch).unlink()
        return dict(zip(nodes, values, strict=True))

    def _path(self, batch: int) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / f"{batch}.pt"
