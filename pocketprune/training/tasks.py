"""What a training minimises, as an object: whatever changes the loss is a task, not another loop."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Task(Protocol):
    """(network, images, labels) -> (mean loss of the batch, a scalar; logits (b, classes))."""

    def __call__(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Classification:
    """Cross-entropy; the share `label_smoothing` of the target goes to all classes (arXiv 1512.00567, 7)."""

    label_smoothing: float = 0.0

    def __call__(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = net(images)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing), logits
