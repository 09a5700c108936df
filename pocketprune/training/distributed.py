"""Several processes, as torchrun starts them. Without its environment variables there is one process."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from pocketprune.common.errors import UserError
from pocketprune.training.stopping import LeaveTogether

AGREE_EVERY = 8  # steps between two agreements of the processes on whether to stop

Value = TypeVar("Value")


@dataclass(frozen=True)
class Launch:
    """What torchrun tells a process: its number among all and on its machine, and where the processes meet."""

    rank: int
    local_rank: int
    local_world: int  # number of processes on its machine
    world: int
    address: str
    port: int
    store_is_elsewhere: bool  # torchrun itself keeps the store; otherwise the first process does

    @classmethod
    def from_environment(cls) -> "Launch | None":
        """Read the environment. Return None where no launcher asked for several processes."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return None
        names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        missing = [name for name in names if name not in os.environ]
        if missing:
            raise UserError(f"environment: WORLD_SIZE is set, {', '.join(missing)} is not; use torchrun")
        rank, world, address, port = (os.environ[name] for name in names)
        local = int(os.environ.get("LOCAL_RANK", rank))
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", local + 1))
        elsewhere = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        return cls(int(rank), local, beside, int(world), address, int(port), elsewhere)

    def __str__(self) -> str:
        return f"process {self.rank} of {self.world}"


@contextmanager
def processes(device: str = "auto", *, connect_s: float = 60, timeout_s: float = 1800) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if any, and yield this process's device. All of them leave together.

    Args:
        device: "auto" (the GPU if there is one), "cpu", "cuda" (each process takes one of its own) or
            "cuda:N".
        connect_s: how long to wait for the other processes to appear.
        timeout_s: how long a collective may wait for a process that is alive but does not come.

    Yields:
        The device on which this process computes.

    Raises:
        UserError: the device does not exist, the GPUs are too few, or the other processes cannot be reached.
        PeerError: another process failed, inside.
    """
    launch = Launch.from_environment()
    if launch is None:
        yield pick_device(device)
        return
    store = _connect(launch, connect_s)
    _roll_call(store, launch, connect_s)
    watched = dist.PrefixStore("leave", _connect(launch, connect_s, client=True))
    with LeaveTogether(watched, launch.rank, launch.world):
        chosen = pick_device(device, launch)
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("group", store),
            rank=launch.rank,
            world_size=launch.world,
            timeout=timedelta(seconds=timeout_s),
        )
        yield chosen
        barrier()  # the first process keeps the store: it must not leave before the others are done
        dist.destroy_process_group()


def pick_device(device: str, launch: Launch | None = None) -> torch.device:
    """Return the torch device for `device`. Under torchrun, "cuda" is the GPU with the process's local number."""
    count = torch.cuda.device_count()
    if device == "auto":
        device = "cuda" if count else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"{device} is not a device; accepted are auto, cpu, cuda, cuda:N", argument="device") from error
    if chosen.type not in ("cpu", "cuda"):
        raise UserError(f"{device} is not supported; accepted are auto, cpu, cuda, cuda:N", argument="device")
    if chosen.type == "cpu":
        return torch.device("cpu")  # whatever its number
    together = launch.local_world if launch else 1
    _require_gpus(device, chosen.index, together, count)
    index = chosen.index if chosen.index is not None else launch.local_rank if launch else 0
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _require_gpus(device: str, index: int | None, together: int, count: int) -> None:
    """Refuse what this machine's `count` GPUs cannot do. Each of its processes says the same words."""
    if index is not None and together > 1:
        raise UserError(
            f"{together} processes cannot share the GPU of {device}; with cuda each takes its own", argument="device"
        )
    if index is None and together > max(count, 1):
        raise UserError(
            f"{together} processes need a GPU each for {device} and this machine has {count}; "
            "start fewer processes or use cpu",
            argument="device",
        )
    if (index or 0) >= count:
        message = f"{device} asks for GPU {index or 0} and this machine has {count}; use cpu"
        raise UserError(message, argument="device")


def _connect(launch: Launch, seconds: float, *, client: bool = False) -> dist.TCPStore:
    keeper = launch.rank == 0 and not launch.store_is_elsewhere and not client
    limit = timedelta(seconds=seconds)
    try:
        return dist.TCPStore(launch.address, launch.port, is_master=keeper, wait_for_workers=False, timeout=limit)
    except RuntimeError as error:
        raise UserError(
            f"{launch}: no rendezvous at {launch.address}:{launch.port} within {seconds:g} s "
            f"({str(error).splitlines()[0]}); check MASTER_ADDR, MASTER_PORT and that the first "
            "process runs"
        ) from error


def _roll_call(store: dist.Store, launch: Launch, seconds: float) -> None:
    names = [f"here/{rank}" for rank in range(launch.world)]
    store.set(names[launch.rank], "")
    try:
        store.wait(names, timedelta(seconds=seconds))
    except RuntimeError as error:
        absent = [str(rank) for rank, name in enumerate(names) if not store.check([name])]
        raise UserError(
            f"{launch}: after {seconds:g} s there is no sign of process {', '.join(absent)} at "
            f"{launch.address}:{launch.port}"
        ) from error


def is_distributed() -> bool:
    """Return whether several processes have joined."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return this process's number among all."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Return whether this process is the one that writes files and prints."""
    return rank() == 0


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum `tensor` over the processes, in place, and return it. Every process gets the same sum, to the bit."""
    if is_distributed():
        dist.all_reduce(tensor)
    return tensor


def barrier() -> None:
    """Wait for all processes. A CPU tensor does it, so that no GPU is waited for."""
    all_reduce_sum(torch.zeros(1))


def agree_to_stop(requested: bool, step: int) -> bool:
    """Return whether to stop after `step` because some process was asked to. The answer is the same in every process.

    Several processes ask one another every AGREE_EVERY steps only, by a CPU tensor.
    """
    if not is_distributed():
        return requested
    return step % AGREE_EVERY == 0 and bool(all_reduce_sum(torch.tensor(float(requested))))


def gather_objects(value: Value) -> list[Value]:
    """Return the values of all processes, in the order of their ranks. Every process gets them."""
    values = [value] * world_size()
    if is_distributed():
        dist.all_gather_object(values, value)
    return values


def broadcast_module(net: nn.Module) -> None:
    """Give every process the parameters and buffers of the first."""
    if is_distributed():
        for tensor in net.state_dict().values():
            dist.broadcast(tensor, 0)


def data_parallel(net: nn.Module, device: torch.device) -> nn.Module:
    """Wrap `net` so that backward averages its gradients over the processes. Its buffers follow the first process."""
    if not is_distributed():
        return net
    return DistributedDataParallel(net, device_ids=[device.index] if device.type == "cuda" else None)


@contextmanager
def synchronised_batch_norm(net: nn.Module, wanted: bool, device: torch.device) -> Iterator[None]:
    """Let batch norms use the images of all processes, inside. After that the network has its own modules again.

    torch offers this on CUDA only. On the CPU each process normalises by its own images, which a warning says. The
    running statistics are then those of the first process, as DistributedDataParallel broadcasts them.
    """
    if wanted and is_distributed() and device.type != "cuda":
        warnings.warn("sync_bn: needs CUDA; each process normalises by its own images", stacklevel=2)
        wanted = False
    norms = {name: module for name, module in net.named_modules() if isinstance(module, _BatchNorm) and name}
    if not wanted or not is_distributed():
        yield
        return
    for name, module in norms.items():
        net.set_submodule(name, nn.SyncBatchNorm.convert_sync_batchnorm(module))
    try:
        yield
    finally:
        for name, module in norms.items():  # the same parameters and buffers, trained meanwhile
            net.set_submodule(name, module)
