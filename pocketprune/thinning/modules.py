"""Networks thinned as modules: a copy with thinner tensors and the widths that go with them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from pocketprune.common.modes import evaluation_mode
from pocketprune.thinning.recipes import Recipe, thin_tensor
from pocketprune.thinning.samplers import add_sampler


def thin_modules(net: nn.Module, recipe: Recipe) -> nn.Module:
    """A copy of the network with thinner tensors, its modules' declared widths adjusted, samplers in place."""
    thin = copied_module(net)
    kept = {id(_tensor(thin, name)): axes for name, axes in recipe.kept.items()}
    thinner: dict[int, Tensor] = {}
    rows = {module: kept.get(id(_stored_weight(module)), {}).get(0) for module in thin.modules()}
    for module in rows:
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for table in tables:
            for key, tensor in table.items():
                if id(tensor) in kept:
                    table[key] = thinner.setdefault(id(tensor), _thin_like(tensor, kept[id(tensor)]))
    _recompute_weights(thin)
    for module in rows:
        adjust_widths(module, rows[module])
    for name in recipe.new_biases:
        layer: Any = thin.get_submodule(name)
        layer.bias = nn.Parameter(layer.weight.new_zeros(layer.weight.shape[0]))
    for name, inputs in recipe.samplers.items():
        add_sampler(thin.get_submodule(name.removesuffix(".weight")), inputs)
    return thin


def copied_module(net: nn.Module) -> nn.Module:
    """A copy of a network, also of one that keeps computed tensors as attributes, which Python's deepcopy refuses."""
    held = [t for module in net.modules() for t in vars(module).values() if isinstance(t, Tensor) and t.grad_fn]
    return copy.deepcopy(net, {id(t): t.detach().clone() for t in held})


def _stored_weight(module: nn.Module) -> Tensor | None:
    """The parameter that a module's weight is, or is computed from."""
    stored: list[Tensor | None] = [module._parameters.get(name) for name in ("weight", "weight_v", "weight_orig")]
    if parametrize.is_parametrized(module, "weight"):
        parametrizations: Any = module.parametrizations
        parameters: list[Tensor] = list(parametrizations["weight"].parameters(recurse=False))
        parameters.sort(key=Tensor.numel, reverse=True)
        stored += parameters
    return next((tensor for tensor in stored if tensor is not None), None)


def _recompute_weights(net: nn.Module) -> None:
    """Make anew, of the thinner tensors, the weights that torch's older reparametrisations keep as attributes."""
    with torch.no_grad(), evaluation_mode(net):
        for module in net.modules():
            for hook in module._forward_pre_hooks.values():
                if isinstance(hook, (WeightNorm, SpectralNorm)):
                    hook(module, None)


def _tensor(net: nn.Module, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    tensor: Tensor = getattr(net.get_submodule(path), leaf)
    return tensor


def _thin_like(tensor: Tensor, kept: Mapping[int, Sequence[int]]) -> Tensor:
    thin = thin_tensor(tensor.detach(), kept).clone()
    return nn.Parameter(thin, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else thin


def adjust_widths(module: nn.Module, rows: Sequence[int] | None = None) -> None:
    """Make a module's declared widths those of its tensors.

    Args:
        rows: indices kept along the first axis of its weight; None: all.
    """
    weight: Any = getattr(module, "weight", None)
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
