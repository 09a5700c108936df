"""Several processes: starting, agreeing and leaving together. Without torchrun's variables all of it is one process."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

AGREE_EVERY = 8  # steps between two agreements of the processes on whether to stop


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Whether this process is the one that writes files and prints."""
    return rank() == 0


def barrier() -> None:
    if is_distributed():
        dist.barrier()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum `tensor` over the processes, in place; it comes back on every process."""
    if is_distributed():
        dist.all_reduce(tensor)
    return tensor


def gather_objects(value: object) -> list:
    """The values of all processes, by rank, on every process."""
    if not is_distributed():
        return [value]
    values: list = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_module(net: nn.Module) -> None:
    """Give every process the parameters and buffers of the first."""
    if is_distributed():
        for tensor in net.state_dict().values():
            dist.broadcast(tensor, 0)


def data_parallel(net: nn.Module, device: torch.device) -> nn.Module:
    """`net`, its gradients averaged over the processes in backward; buffers follow the first process."""
    if not is_distributed():
        return net
    return DistributedDataParallel(net, device_ids=[device.index] if device.type == "cuda" else None)


@contextmanager
def synchronised_batch_norm(net: nn.Module, wanted: bool, device: torch.device) -> Iterator[None]:
    yield


class Preempted(SystemExit):
    """SIGTERM asked the run to stop, and its state is saved. Uncaught, it ends the process with status 143, quietly."""

    def __init__(self, message: str) -> None:
        super().__init__(128 + signal.SIGTERM)
        self.message = message

    def __str__(self) -> str:
        return self.message


class StopSignal:
    """Inside, SIGTERM does not kill but is remembered, so that the work can end between two steps.

    Outside the main thread, where Python allows no handler, SIGTERM keeps its meaning.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "StopSignal":
        self._installed = threading.current_thread() is threading.main_thread()
        if self._installed:
            self._before = signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, self._before)

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True

    def agreed(self, step: int) -> bool:
        """Whether to stop after `step`: all processes get the same answer, asked every few steps when there are several.

        The flag travels as a CPU tensor: it waits for the other processes, never for a GPU.
        """
        if not is_distributed():
            return self.requested
        if step % AGREE_EVERY:
            return False
        return bool(all_reduce_sum(torch.tensor(float(self.requested))))
