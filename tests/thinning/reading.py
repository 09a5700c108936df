"""A reference for thinned networks: the dense one, a layer of which reads zeros in place of some channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tests.structure.oracle import outputs


def without_reading(net: nn.Module, x: Tensor, reader: str, channels: Sequence[int], axis: int = 1) -> list[Tensor]:
    """The network's output where the layer `reader` reads zeros in place of some channels; no weight is changed."""

    def blank(module: nn.Module, args: tuple[Tensor]) -> Tensor:
        return args[0].index_fill(axis, torch.tensor(list(channels)), 0)

    handle = net.get_submodule(reader).register_forward_pre_hook(blank, prepend=True)
    made = outputs(net, x)
    handle.remove()
    return made
