"""What a training minimises. Whatever changes the loss is an objective, not another loop."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Objective(Protocol):
    """A function of a network and a batch that gives the loss."""

    def __call__(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss of the batch, a scalar, and the logits (b, classes)."""
        ...


@dataclass(frozen=True)
class Classification:
    """The cross-entropy. A share `label_smoothing` of the target goes to all classes (arXiv 1512.00567, section 7)."""

    label_smoothing: float = 0.0

    def __call__(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy of the batch, a scalar, and the logits (b, classes)."""
        logits = net(images)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing), logits
