"""The rows of the benchmark of filter pruning, in the order in which they are measured."""

from __future__ import annotations

from dataclasses import dataclass

UNTRAINED = ("at once", "refit", "channel", "Torch-Pruning")  # methods with a network before the training


@dataclass(frozen=True)
class Row:
    """One way to prune.

    Attributes:
        method: "at once", "refit" (at once, with the closed form), the name of a schedule, "channel" (by
            reconstruction), "Torch-Pruning", or "dense" (trained and not pruned).
        criterion: what scores channels.
        ranking: of channels, as in a rule.
        aggregate: how the members of a group count, as in a rule.
        groups: "all", or "inside" those that are no residual stream.
    """

    method: str
    criterion: str = ""
    ranking: str = ""
    aggregate: str = ""
    groups: str = "all"


def own(method: str, criterion: str, ranking: str = "group", aggregate: str = "sum", groups: str = "all") -> Row:
    return Row(method, criterion, ranking, aggregate, groups)


def telling(schedule: str) -> list[Row]:
    """Return the rows beside Torch-Pruning and channel pruning."""
    named = ("l1", "taylor", "geometric_median")
    rows = [Row("dense"), Row("channel", "obs", groups="inside")]
    rows += [own("refit", name, groups="inside") for name in named[:2]]
    rows += [Row("Torch-Pruning", name, groups="inside") for name in named]
    rows += [own("at once", name, groups="inside") for name in named]
    rows += [own(schedule, name, groups="inside") for name in named[:2]]
    return rows


def wider(schedule: str) -> list[Row]:
    """Return the rows of all groups: criteria, then rankings and members."""
    rows = [own("at once", "l1"), own("at once", "taylor"), own("refit", "l1"), own("refit", "taylor")]
    rows += [own("at once", name, ranking) for name in ("l1", "taylor") for ranking in ("global", "learned")]
    rows += [own("at once", name, aggregate="leader") for name in ("l1", "taylor")]
    rows += [own(schedule, "l1"), own(schedule, "taylor", "global"), own("refit", "taylor", "global")]
    more = ("geometric_median", "bn_scale", "fisher", "gradient", "apoz", "mean_activation", "l2", "random")
    rows += [own("at once", name) for name in (*more, "magnitude", "obs", "lasso")]
    rows += [Row("channel", "obs"), own("refit", "obs"), own("refit", "geometric_median")]
    rows += [own(schedule, name) for name in ("taylor", *more)]
    rows += [own("at once", name, "global") for name in more[:-1]]
    rows += [own(name, "l1") for name in ("exponential", "exponential_with_bias", "linear") if name != schedule]
    rows += [own(schedule, "l1", "global"), own(schedule, "l1", aggregate="leader")]
    return rows
