"""What decides a training's result: its settings, and the state that a checkpoint saves and restores."""

import math
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import SGD, Adam, Optimizer

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.common.kinds import refuse_other_kinds
from pocketprune.common.options import COUNT, FRACTION, NOT_NEGATIVE, POSITIVE, check_options, option
from pocketprune.common.registry import one_line
from pocketprune.training import distributed
from pocketprune.training.callbacks import CallbackList, TrainContext
from pocketprune.training.checkpoint import Checkpoint, compare_configs, random_states, set_random_states
from pocketprune.training.schedules import Constant, Schedule, set_rates

FORMAT = 2  # of a training checkpoint; raise it when what state_dict() returns changes
MAX_LISTED = 5  # differences named in an error
FREE_TO_CHANGE = ("summ_step", "save_step")  # between a run and its resumption: they do not touch the result
NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The settings of a training.

    The defaults are PocketFlow's for ResNet on CIFAR-10, except for a constant rate and one epoch.

    The weight decay leaves out the parameters of normalisation layers, as in PocketFlow: the scale of a batch norm does
    not bound the function, and a decay would change what reconstruction has set. bfloat16 has float32's range, so the
    loss needs no scaling.

    Raises:
        UserError: a value that is not accepted.
    """

    epochs: float = option(1.0, "passes over the split, each its full batches in a fresh order", accept=POSITIVE)
    batch_size: int = option(128, "images a step over all processes: the steps do not depend on them", accept=COUNT)
    lrn_rate: float = option(0.1, "rate at the start, already scaled by `schedules.start_rate`", accept=POSITIVE)
    schedule: Schedule = field(default_factory=Constant)  # (step, total steps) -> factor of lrn_rate
    optimizer: str = option("sgd", "sgd (with momentum) or adam", accept=("sgd", "adam"))
    momentum: float = option(0.9, "momentum of SGD", accept=FRACTION)
    weight_decay: float = option(2e-4, "weight decay", accept=NOT_NEGATIVE)
    label_smoothing: float = option(0.0, "share of each label spread evenly over all classes", accept=FRACTION)
    ema_decay: float = option(
        0.0, "end with a moving average of the weights, of this decay a step; 0: without", accept=FRACTION
    )
    clip_norm: float = option(0.0, "largest norm of the gradient; 0: no limit", accept=NOT_NEGATIVE)
    augment: bool = option(True, "let the split augment its images")
    amp: str = option("off", "bf16: compute in bfloat16 where that is safe", accept=("off", "bf16"))
    tf32: bool = option(False, "TensorFloat-32 products while training on a GPU")
    channels_last: bool = option(False, "channels-last memory layout while training")
    compile: bool = option(False, "train through torch.compile")
    sync_bn: bool = option(False, "batch-norm statistics over all processes, on GPUs")
    seed: int = option(0, "of the order of the images and of their augmentation")
    summ_step: int = option(100, "steps between two points of the training curves", accept=COUNT)
    save_step: int = option(10000, "steps between two checkpoints", accept=COUNT)

    def __post_init__(self) -> None:
        check_options(self)

    def fingerprint(self) -> dict[str, Any]:
        """Return what decides the result, as primitives. The schedule is given by its repr."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        values["schedule"] = repr(self.schedule)
        return {name: value for name, value in values.items() if name not in FREE_TO_CHANGE}


@dataclass
class TrainState:
    """Everything that a training keeps from step to step.

    Attributes:
        net: the network as it is trained.
        settings: those of the training.
        optimizer: of all parameters that require a gradient.
        callbacks: what takes part in the training; their state is saved with it.
        sums: (loss, correct, images) since the last reading, on the device.
        per_epoch: steps in one pass over the split.
        total: steps of the whole training.
        step: steps done.
        means: the last (loss, accuracy) that was read.
        seconds: spent before this process resumed the training.
    """

    net: nn.Module
    settings: TrainSettings
    optimizer: Optimizer
    callbacks: CallbackList
    sums: Tensor
    per_epoch: int
    total: int
    step: int = 0
    means: tuple[float, float] = (math.nan, math.nan)
    seconds: float = 0.0

    @classmethod
    def create(cls, net: nn.Module, settings: TrainSettings, per_epoch: int, callbacks: CallbackList) -> "TrainState":
        """Return a fresh state for `net`, on the device where it lies, for epochs of `per_epoch` steps."""
        total = max(1, round(settings.epochs * per_epoch))
        sums = torch.zeros(3, dtype=torch.float64, device=device_of(net))
        return cls(net, settings, create_optimizer(net, settings), callbacks, sums, per_epoch, total)

    @property
    def context(self) -> TrainContext:
        """The training at this moment, for callbacks."""
        return TrainContext(self.net, self.optimizer, self.sums.device, self.total, self.per_epoch, self.step)

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step == self.total

    def ends_epoch(self) -> bool:
        """Return whether the last step ended an epoch, or the training."""
        return self.finished or self.step % self.per_epoch == 0

    def set_rate(self) -> None:
        """Set the learning rate of the next step."""
        set_rates(self.optimizer, self.settings.schedule(self.step, self.total))

    def update(self) -> None:
        """Do one step along the gradients that lie in the parameters."""
        if self.settings.clip_norm:
            clip_grad_norm_(self.net.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def count(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch to the sums, from its mean loss, a scalar, its logits (b, classes) and its labels (b,)."""
        correct = (logits.detach().argmax(1) == labels).sum()
        images = torch.full_like(correct, len(labels))
        self.sums += torch.stack([loss.detach() * len(labels), correct, images])

    def health(self) -> Tensor:
        """Return a float64 scalar that is 0 if weights, statistics and the losses since the last reading are finite."""
        tensors = [tensor for tensor in self.net.state_dict().values() if tensor.is_floating_point()]
        return 0 * self.sums[0] + 0 * get_total_norm(tensors).double()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint saves. Every process must call this, as each adds its random generators."""
        return {
            "format": FORMAT,
            "settings": self.settings.fingerprint(),
            "per_epoch": self.per_epoch,
            "step": self.step,
            "means": self.means,
            "seconds": self.seconds,
            "sums": self.sums,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "callbacks": self.callbacks.state_dict(),
            "random": distributed.gather_objects(random_states()),
        }

    def restore(self, checkpoint: Checkpoint | None) -> None:
        """Go back to a checkpoint, if there is one. The callbacks must have started.

        Raises:
            UserError: the checkpoint is damaged, or of other settings, other callbacks, another network or a split of
                another size, or the processes do not all see the same one.
        """
        found = checkpoint.step if checkpoint else 0
        if len(set(distributed.gather_objects(found))) > 1:
            raise UserError("checkpoints: the processes do not see the same ones; all machines must share their folder")
        if checkpoint is None:
            return
        try:
            self._restore(checkpoint)
        except UserError:
            raise
        except Exception as error:  # what is not as state_dict() made it can fail anywhere
            raise UserError(f"{checkpoint.path}: damaged ({one_line(error)})") from error

    def _restore(self, checkpoint: Checkpoint) -> None:
        self._refuse_other(checkpoint)
        saved = checkpoint.state
        self.net.load_state_dict(saved["net"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.callbacks.load_state_dict(saved["callbacks"])
        self.sums.copy_(saved["sums"])
        self.step, self.means, self.seconds = saved["step"], tuple(saved["means"]), saved["seconds"]
        if distributed.rank() < len(saved["random"]):
            set_random_states(saved["random"][distributed.rank()])

    def _refuse_other(self, checkpoint: Checkpoint) -> None:
        saved, path = checkpoint.state, checkpoint.path
        if saved.get("format") != FORMAT:
            raise UserError(f"{path}: of format {saved.get('format')}; accepted is {FORMAT}")
        before = saved["settings"] | {"steps_per_epoch": saved["per_epoch"], "callbacks": list(saved["callbacks"])}
        now = self.settings.fingerprint() | {
            "steps_per_epoch": self.per_epoch,
            "callbacks": list(self.callbacks.by_name),
        }
        shapes = [
            {name: tuple(value.shape) for name, value in tensors.items()}
            for tensors in (saved["net"], self.net.state_dict())
        ]
        lines = compare_configs(before, now) + compare_configs(*shapes)
        if lines:
            more = f"; and {len(lines) - MAX_LISTED} more" if len(lines) > MAX_LISTED else ""
            raise UserError(f"{path}: of another training: {'; '.join(lines[:MAX_LISTED])}{more}")
        refuse_other_kinds(saved["net"], self.net.state_dict(), str(path))


def create_optimizer(net: nn.Module, settings: TrainSettings) -> Optimizer:
    """Return SGD with momentum, or Adam. It is fused into one pass over the memory where torch offers that.

    Raises:
        UserError: the network has no parameter to train.
    """
    layers = (module for module in net.modules() if isinstance(module, NORM_LAYERS))
    norms = {id(parameter) for layer in layers for parameter in layer.parameters(recurse=False)}
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if not parameters:
        raise UserError("it has no parameter to train", argument="net")
    groups = [
        {"params": [p for p in parameters if id(p) not in norms], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if id(p) in norms], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
    if settings.optimizer == "adam":
        return Adam(groups, lr=settings.lrn_rate, fused=fused)
    return SGD(groups, lr=settings.lrn_rate, momentum=settings.momentum, fused=fused)
