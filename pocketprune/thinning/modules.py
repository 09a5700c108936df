"""Networks thinned as modules: a copy with thinner tensors and the widths that go with them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from pocketprune.thinning.recipes import Recipe, thin_tensor
from pocketprune.thinning.samplers import add_sampler


def thin_modules(net: nn.Module, recipe: Recipe) -> nn.Module:
    """A copy of the network with thinner tensors, its modules' declared widths adjusted, samplers in place."""
    thin = copy.deepcopy(net)
    kept = {id(_tensor(thin, name)): axes for name, axes in recipe.kept.items()}
    thinner: dict[int, Tensor] = {}
    for module in thin.modules():
        rows = kept.get(id(getattr(module, "weight", None)), {}).get(0)
        for table in (module._parameters, module._buffers):
            for key, tensor in table.items():
                if id(tensor) in kept:
                    table[key] = thinner.setdefault(id(tensor), _thin_like(tensor, kept[id(tensor)]))
        adjust_widths(module, rows)
    for name in recipe.new_biases:
        layer = thin.get_submodule(name)
        layer.bias = nn.Parameter(layer.weight.new_zeros(layer.weight.shape[0]))
    for name, inputs in recipe.samplers.items():
        add_sampler(thin.get_submodule(name.removesuffix(".weight")), inputs)
    return thin


def _tensor(net: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    return getattr(net.get_submodule(path), leaf)


def _thin_like(tensor: Tensor, kept: Mapping[int, Sequence[int]]) -> Tensor:
    thin = thin_tensor(tensor.detach(), kept).clone()
    return nn.Parameter(thin, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else thin


def adjust_widths(module: nn.Module, rows: Sequence[int] | None = None) -> None:
    """Make a module's declared widths those of its tensors.

    Args:
        rows: indices kept along the first axis of its weight; None: all.
    """
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.modules.conv._ConvNd):
        _adjust_convolution(module, rows)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        known = weight if weight is not None else module.running_mean
        if known is not None:
            module.num_features = known.shape[0]
    elif isinstance(module, nn.GroupNorm) and weight is not None:
        module.num_groups = groups_left(rows, module.num_channels, module.num_groups)
        module.num_channels = weight.shape[0]
    elif isinstance(module, nn.LayerNorm) and weight is not None:
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.shape[0]
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = weight.shape


def groups_left(kept: Sequence[int] | Tensor | None, channels: int, groups: int) -> int:
    """How many groups of channels still have one."""
    if kept is None:
        return groups
    return len(np.unique(np.asarray(kept) // (channels // groups)))


def _adjust_convolution(module: Any, rows: Sequence[int] | None) -> None:
    first = module.in_channels if module.transposed else module.out_channels
    module.groups = groups_left(rows, first, module.groups)
    if module.transposed:
        module.in_channels, module.out_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    else:
        module.in_channels, module.out_channels = module.weight.shape[1] * module.groups, module.weight.shape[0]
