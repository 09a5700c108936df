"""Quantisation-aware training, as a callback: the network computes with quantisers while the loop trains it."""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from pocketprune.common.errors import UserError
from pocketprune.quantization.prepared import PreparedNet
from pocketprune.training.callbacks import Callback, TrainContext

NAME = "quantizers"  # of the module that the network has meanwhile


class QuantizationAware(Callback):
    """A callback that puts quantisers into a network's forward, trains them with it, and takes them out at the end.

    The network stays the same object with the same tensors: masks on them act before their round trip through codes.

    Args:
        prepared: the network with its quantisers, calibrated.
        frozen_share: the share of the training, at its end, in which batch norms keep their statistics.
    """

    name = "quantization"

    def __init__(self, prepared: PreparedNet, frozen_share: float = 0.5) -> None:
        self._prepared, self._frozen_share = prepared, frozen_share

    def on_start(self, context: TrainContext) -> None:
        """Let the network compute with quantisers, and the optimizer train them, without weight decay.

        Raises:
            UserError: the training is of another network, or that has a part of the quantisers' name.
        """
        if context.net is not self._prepared.net:
            raise UserError("another network given than was prepared", argument="net")
        attach(self._prepared, context.device)
        context.optimizer.add_param_group({"params": list(self._prepared.quantizers.parameters()), "weight_decay": 0.0})

    def before_step(self, context: TrainContext) -> None:
        """Freeze the batch norms' statistics where the last part of the training begins."""
        if context.step >= (1 - self._frozen_share) * context.total:
            for module in context.net.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def on_end(self, context: TrainContext) -> None:
        """Give the network its own forward back. The quantisers keep what they have learned."""
        detach(self._prepared)


def attach(prepared: PreparedNet, device: torch.device) -> None:
    """Let a network compute with its quantisers, which become a part of it.

    Raises:
        UserError: it has a part of their name.
    """
    net = prepared.net
    if hasattr(net, NAME):
        raise UserError(f"its part '{NAME}' has a name that quantisation needs", argument="net")
    quantizers, running = prepared.quantizers.to(device), prepared.module()
    net.add_module(NAME, quantizers)
    net.forward = running.forward


def detach(prepared: PreparedNet) -> None:
    """Give a network its own forward back. The quantisers keep what they have learned."""
    vars(prepared.net).pop("forward", None)
    prepared.net._modules.pop(NAME, None)
