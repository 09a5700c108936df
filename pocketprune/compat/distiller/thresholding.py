"""Distiller's thresholds on groups of weights."""

from __future__ import annotations

from torch import Tensor

from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.numerics.thresholds import above

AXES = {"Filters": 0, "3D": 0, "Rows": 0, "Channels": 1, "Cols": 1}


def group_threshold_mask(
    param: Tensor, group_type: str, threshold: float, threshold_criteria: str
) -> tuple[Tensor, Tensor]:
    """Return where a weight stays, as 1 and 0 of its shape, and the same for each group.

    Args:
        param: the weight.
        group_type: "Filters", "Rows", "Channels" or "Cols".
        threshold: what a group has to be above.
        threshold_criteria: "Max" or "Mean_Abs".

    Raises:
        UserError: another group type or criterion.
    """
    if group_type not in AXES:
        raise UserError(f"'{group_type}' given{nearest(group_type, AXES)}", argument="group_type")
    axis = AXES[group_type]
    stays = above(param.detach().movedim(axis, 0).flatten(1), threshold, threshold_criteria.lower())
    shape = [-1 if place == axis else 1 for place in range(param.dim())]
    return stays.view(shape).expand(param.shape).to(param.dtype), stays.to(param.dtype)
