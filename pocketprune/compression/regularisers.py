"""Regularisers: penalties that make channels small before they are masked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.compression.views import GroupViews

Regulariser = Callable[[Mapping[str, Tensor], Sequence[GroupViews], str], Tensor]
"""(tensors by name, views of the groups, side) -> a scalar."""


def bn_scale(tensors: Mapping[str, Tensor], groups: Sequence[GroupViews], side: str) -> Tensor:
    """Return the sum of the absolute scales of the groups' batch norms (Liu et al. 2017, network slimming)."""
    return torch.stack([view.rows(tensors[view.tensor]).abs().sum() for v in groups for view in v.norms]).sum()


def group_lasso(tensors: Mapping[str, Tensor], groups: Sequence[GroupViews], side: str) -> Tensor:
    """Return the sum over channels of the L2 norm of all weights that write it, or that read it (Wen et al. 2016).

    A channel without any weight left has the gradient 0.
    """
    norms = [
        torch.stack([torch.linalg.vector_norm(view.rows(tensors[view.tensor]), dim=1) for view in v.side(side)])
        for v in groups
        if v.side(side)
    ]
    return torch.stack([torch.linalg.vector_norm(norm, dim=0).sum() for norm in norms]).sum()


def l1(tensors: Mapping[str, Tensor], groups: Sequence[GroupViews], side: str) -> Tensor:
    """Return the sum of the absolute weights that write the groups' channels, or that read them."""
    return torch.stack([view.rows(tensors[view.tensor]).abs().sum() for v in groups for view in v.side(side)]).sum()


REGULARISERS: dict[str, Regulariser] = {"bn_scale": bn_scale, "group_lasso": group_lasso, "l1": l1}


def check_regulariser(name: str, groups: Sequence[GroupViews]) -> None:
    """Check that every group has what a regulariser works on.

    Raises:
        UserError: a group has no batch norm; the message names it.
    """
    without = next((v.group.name for v in groups if not v.norms), None)
    if name == "bn_scale" and without is not None:
        raise UserError(f"'bn_scale' needs batch norms, and group '{without}' has none", argument="regulariser")
