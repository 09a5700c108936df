"""Channel samplers: a layer reads its own subset of a shared tensor, the tensor itself staying whole (He 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.common.errors import UserError


class _Sampled:
    """Mixed into a layer: keep the input channels listed in the buffer `sampled`, then do what the layer does."""

    channel_axis = 1
    sampled: Tensor

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = super().forward(x.index_select(self.channel_axis, self.sampled))  # type: ignore[misc]
        return made


class SampledConv1d(_Sampled, nn.Conv1d):
    """A 1-D convolution that reads a subset of its input's channels."""


class SampledConv2d(_Sampled, nn.Conv2d):
    """A 2-D convolution that reads a subset of its input's channels."""


class SampledConv3d(_Sampled, nn.Conv3d):
    """A 3-D convolution that reads a subset of its input's channels."""


class SampledLinear(_Sampled, nn.Linear):
    """A linear layer that reads a subset of its input's features."""

    channel_axis = -1


SAMPLED = {nn.Conv1d: SampledConv1d, nn.Conv2d: SampledConv2d, nn.Conv3d: SampledConv3d, nn.Linear: SampledLinear}


def add_sampler(layer: nn.Module, inputs: Sequence[int]) -> None:
    """Turn a layer, in place, into one that reads only these input channels.

    Raises:
        UserError: the layer is not a plain convolution or linear layer.
    """
    if type(layer) not in SAMPLED:
        raise UserError(
            f"cp_shared_input=sample: a {type(layer).__name__} cannot be given a channel sampler; "
            "couple and keep are accepted"
        )
    layer.__class__ = SAMPLED[type(layer)]
    weight: Any = layer.weight
    layer.register_buffer("sampled", torch.as_tensor(inputs, device=weight.device))
    if isinstance(layer, nn.Linear):
        layer.in_features = weight.shape[1]
    else:
        layer.in_channels = weight.shape[1]
