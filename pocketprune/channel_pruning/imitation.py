"""Recovery without labels, end to end: a pruned network imitates the dense one on augmented images.

It is trained towards the dense network's outputs and towards its last features before pooling. Blocks that were
reconstructed one by one each end near the dense network's; this makes them work together.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from pocketprune.channel_pruning.segments import find_segments
from pocketprune.common.errors import UserError
from pocketprune.common.modes import evaluation_mode
from pocketprune.training.best import Judge, Quality
from pocketprune.training.callbacks import Callback, TrainContext
from pocketprune.training.distillation import distillation_loss
from pocketprune.training.distributed import all_reduce_sum

TEMPERATURE = 4.0  # softens both outputs, as for distillation


class Imitation(Callback):
    """An objective that needs no labels, and the callback that belongs to it.

    The loss is the divergence from the dense network's softened outputs plus, where both networks have a last block
    of equal output shapes, the squared difference of its outputs relative to their variance. The network is trained in
    evaluation mode: reconstruction has fitted its weights to the batch norms' statistics.

    Args:
        net: the pruned network that is trained.
        dense: the network from which it was pruned, on the same device. It stays as it is.
        example: images (2, C, H, W) on that device.
    """

    def __init__(self, net: nn.Module, dense: nn.Module, example: Tensor) -> None:
        self._dense = dense
        with evaluation_mode(net), evaluation_mode(dense):
            blocks = [segment.name for segment in find_segments(net, dense, example) if segment.name]
        self._block = blocks[-1] if blocks else ""
        self._features: dict[bool, Tensor] = {}  # of the dense network (True) and of the pruned one
        self._handles: list[RemovableHandle] = []

    def on_start(self, context: TrainContext) -> None:
        """Look at the features of both networks from now on."""
        if not self._block:
            return
        for is_dense, net in ((True, self._dense), (False, context.net)):

            def note(_module: nn.Module, _inputs: Any, output: Tensor, is_dense: bool = is_dense) -> None:
                self._features[is_dense] = output

            self._handles.append(net.get_submodule(self._block).register_forward_hook(note))

    def on_end(self, context: TrainContext) -> None:
        """Look no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._features = [], {}

    def before_step(self, context: TrainContext) -> None:
        """Train what evaluation mode computes: batch norms keep their statistics, and nothing is dropped out."""
        context.net.eval()

    def __call__(self, net: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss, a scalar, and the pruned network's logits (b, classes). The labels are not looked at."""
        logits = net(images)
        with torch.no_grad(), evaluation_mode(self._dense):
            target = self._dense(images)
        loss = distillation_loss(logits.float(), target.float(), TEMPERATURE)
        if self._block:
            found, wanted = self._features[False].float(), self._features[True].float()
            loss = loss + functional.mse_loss(found, wanted) / wanted.var().clamp_min(torch.finfo(wanted.dtype).tiny)
        return loss, logits


def agreement_with(dense: nn.Module, batches: Iterable[Tensor]) -> Judge:
    """Return a judge of networks: minus the mean divergence from the dense network's outputs on held-out images.

    Args:
        dense: the dense network.
        batches: images (m, C, H, W) on its device. Under several processes each brings its own.

    Raises:
        UserError: no image in any process.
    """
    with torch.no_grad(), evaluation_mode(dense):
        expected = [(x, dense(x.clone()).float().log_softmax(1)) for x in batches]
    if not float(all_reduce_sum(torch.tensor(float(sum(len(x) for x, _ in expected))))):
        raise UserError("empty; at least one image is needed", argument="held_out")

    @torch.no_grad()
    def judge(net: nn.Module) -> Quality:
        sums = torch.zeros(2, dtype=torch.float64)
        for x, wanted in expected:
            found = net(x.clone()).float().log_softmax(1)  # a network may work in place
            divergence = functional.kl_div(found, wanted, reduction="sum", log_target=True)
            sums += torch.tensor([float(divergence), float(len(x))], dtype=torch.float64)
        total, images = all_reduce_sum(sums).tolist()
        return (-total / images,)

    return judge
