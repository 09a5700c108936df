"""What decides a training's result: its settings, and the state that a checkpoint saves and brings back."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pocketprune.errors import UserError
from pocketprune.training import distributed
from pocketprune.training.checkpoint import (
    Checkpoint,
    compare_configs,
    random_states,
    set_random_states,
)
from pocketprune.training.metrics import device_of
from pocketprune.training.schedules import Constant, Schedule, create_scheduler

NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
FORMAT = 1  # of a training checkpoint; raise it when what state_dict() returns changes
MAX_LISTED = 5  # differences named in an error
FREE_TO_CHANGE = ("summ_step", "save_step")  # between a run and its resumption: they do not touch the result


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How to train. The defaults are PocketFlow's for ResNet on CIFAR-10, but for a constant rate and one epoch.

    Attributes:
        epochs: passes over the split; fractions are fine. A pass is the full batches of a fresh order.
        batch_size: images a step over *all* processes: the same command gives the same steps on any number of them.
        lrn_rate: rate at the start, after `schedules.start_rate` scaled it.
        schedule: (step, total steps) -> factor of lrn_rate.
        optimizer: "sgd" (with momentum) or "adam".
        weight_decay: L2 on every parameter but those of normalisation layers, as PocketFlow: scale and shift of a batch norm
            do not set the size of the function, and decaying them only fights the recovery of thinned layers.
        ema_decay: of the exponential moving average of weights and statistics that the training ends with; 0 for none.
        clip_norm: largest norm of the whole gradient; 0 for no limit.
        amp: "off" or "bf16" (autocast). bfloat16 has float32's range, so no loss scaling is needed.
        tf32: TensorFloat-32 products on CUDA, during training only.
        compile: run the network through torch.compile.
        summ_step, save_step: steps between reading the sums, and between checkpoints.
        sync_bn: batch-norm statistics over all processes; on the CPU each process has its own (see distributed.py).
    """

    epochs: float = 1.0
    batch_size: int = 128
    lrn_rate: float = 0.1
    schedule: Schedule = Constant()
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 2e-4
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    clip_norm: float = 0.0
    augment: bool = True
    amp: str = "off"
    tf32: bool = False
    channels_last: bool = False
    compile: bool = False
    sync_bn: bool = False
    seed: int = 0
    summ_step: int = 100
    save_step: int = 10000

    def __post_init__(self) -> None:
        positive = ("epochs", "batch_size", "lrn_rate", "summ_step", "save_step")
        shares = ("momentum", "label_smoothing", "ema_decay")
        for name in (*positive, *shares, "weight_decay", "clip_norm"):
            value = getattr(self, name)
            if name in positive and not 0 < value < float("inf"):
                raise UserError(f"{name}={value}: must be positive")
            if name in shares and not 0 <= value < 1:
                raise UserError(f"{name}={value}: must lie in [0, 1)")
            if not 0 <= value < float("inf"):
                raise UserError(f"{name}={value}: must not be negative")
        for name, accepted in (("optimizer", ("sgd", "adam")), ("amp", ("off", "bf16"))):
            if getattr(self, name) not in accepted:
                raise UserError(f"{name}={getattr(self, name)!r}: accepted are {', '.join(accepted)}")

    def fingerprint(self) -> dict[str, Any]:
        """What decides the result, as primitives; the schedule by its repr."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in FREE_TO_CHANGE}
        return values | {"schedule": repr(self.schedule)}


@dataclass
class TrainState:
    """Everything a training carries from step to step. `sums` = (loss, correct, images) since the last summary."""

    net: nn.Module
    settings: TrainSettings
    optimizer: Optimizer
    scheduler: LambdaLR
    average: AveragedModel | None
    sums: Tensor
    per_epoch: int
    total: int
    step: int = 0

    @classmethod
    def create(cls, net: nn.Module, settings: TrainSettings, per_epoch: int) -> "TrainState":
        """A fresh state for `net`, on the device it lies on."""
        total = max(1, round(settings.epochs * per_epoch))
        optimizer = create_optimizer(net, settings)
        average = None
        if settings.ema_decay:
            average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay), use_buffers=True)
        sums = torch.zeros(3, dtype=torch.float64, device=device_of(net))
        scheduler = create_scheduler(optimizer, settings.schedule, total)
        return cls(net, settings, optimizer, scheduler, average, sums, per_epoch, total)

    @property
    def averaged(self) -> nn.Module:
        """The network to evaluate: the average where there is one."""
        return self.average.module if self.average else self.net

    def update(self) -> None:
        """One step along the gradients that lie in the parameters."""
        if self.settings.clip_norm:
            clip_grad_norm_(self.net.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update_parameters(self.net)
        self.step += 1

    def use_average(self) -> None:
        """End the training with the averaged weights and statistics."""
        if self.average:
            self.net.load_state_dict(self.average.module.state_dict())

    def health(self) -> Tensor:
        """A float64 scalar that is finite exactly when the losses so far and all weights and statistics are."""
        tensors = [tensor for tensor in self.net.state_dict().values() if tensor.is_floating_point()]
        return self.sums[0] * 0 + get_total_norm(tensors).double() * 0

    def state_dict(self) -> dict[str, Any]:
        """To be called in every process: each adds the state of its random generators."""
        return {
            "format": FORMAT, "settings": self.settings.fingerprint(), "step": self.step, "total": self.total,
            "per_epoch": self.per_epoch, "net": self.net.state_dict(), "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(), "sums": self.sums,
            "average": self.average.state_dict() if self.average else None,
            "random": distributed.gather_objects(random_states()),
        }

    def restore(self, checkpoint: Checkpoint | None) -> int:
        """Go back to a checkpoint; returns its step, 0 without one.

        Raises:
            UserError: it is of other settings, of a split of another size, or of another network.
        """
        if checkpoint is None:
            return 0
        saved = checkpoint.state
        self._refuse_other(checkpoint)
        self.net.load_state_dict(saved["net"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        if self.average:
            self.average.load_state_dict(saved["average"])
        self.sums.copy_(saved["sums"])
        self.step = saved["step"]
        if distributed.rank() < len(saved["random"]):
            set_random_states(saved["random"][distributed.rank()])
        return self.step

    def _refuse_other(self, checkpoint: Checkpoint) -> None:
        saved, path = checkpoint.state, checkpoint.path
        if saved.get("format") != FORMAT:
            raise UserError(f"{path}: not a training checkpoint of this version (format {saved.get('format')}, "
                            f"expected {FORMAT})")
        now = self.settings.fingerprint() | {"steps in an epoch": self.per_epoch}
        before = saved["settings"] | {"steps in an epoch": saved["per_epoch"]}
        differences = [line.removeprefix("--") for line in compare_configs(before, now)]
        differences += compare_tensors(saved["net"], self.net.state_dict())
        if differences:
            raise UserError(f"{path}: a checkpoint of another training: {'; '.join(differences[:MAX_LISTED])}"
                            + (f"; and {len(differences) - MAX_LISTED} more" if len(differences) > MAX_LISTED else ""))


def compare_tensors(saved: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> list[str]:
    """How two state dicts differ in names and shapes, one line a tensor."""
    shapes = ({name: tuple(value.shape) for name, value in tensors.items()} for tensors in (saved, now))
    return [line.removeprefix("--") for line in compare_configs(*shapes)]


def create_optimizer(net: nn.Module, settings: TrainSettings) -> Optimizer:
    """SGD with momentum, or Adam; fused into one pass over the memory where torch has that."""
    norms = {id(p) for module in net.modules() if isinstance(module, NORM_LAYERS) for p in module.parameters(recurse=False)}
    parameters = [p for p in net.parameters() if p.requires_grad]
    if not parameters:
        raise UserError("the network has no parameter to train")
    groups = [
        {"params": [p for p in parameters if id(p) not in norms], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if id(p) in norms], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
    if settings.optimizer == "adam":
        return Adam(groups, lr=settings.lrn_rate, fused=fused)
    return SGD(groups, lr=settings.lrn_rate, momentum=settings.momentum, fused=fused)
