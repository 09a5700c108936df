"""The way back from a thinned network: its tensors in dense shapes, zero columns where inputs were dropped."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pocketprune.thinning.recipes import Recipe


@torch.no_grad()
def expand_tensors(net: nn.Module, recipe: Recipe, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A thinned network's tensors in the shapes of `base`, by name; what was dropped is taken from `base`.

    With a base whose consumers read dropped channels through zero columns, the dense-shaped network computes what
    the thinned one does.
    """
    own = dict(net.named_parameters(remove_duplicate=False)) | dict(net.named_buffers(remove_duplicate=False))
    return {
        name: _expanded(own[name].detach(), tensor.detach(), recipe.kept.get(name, {}))
        for name, tensor in base.items()
        if name in own
    }


def _expanded(thin: Tensor, base: Tensor, kept: Mapping[int, list[int]]) -> Tensor:
    """`base` with the kept indices along each axis overwritten by `thin`."""
    if not kept:
        return thin.clone()
    whole = base.clone()
    axes = [torch.as_tensor(kept.get(axis, range(size)), device=base.device) for axis, size in enumerate(base.shape)]
    grid = torch.meshgrid(*axes, indexing="ij")
    whole[grid] = thin.to(whole.dtype)
    return whole
