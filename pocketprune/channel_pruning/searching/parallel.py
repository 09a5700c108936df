"""Roll-outs that several processes score at once. Every process runs the same search and gets every score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pocketprune.search.interface import Environment, Score, Values
from pocketprune.training.distributed import gather_objects, rank, world_size


def scorer(env: Environment) -> Callable[[Sequence[Values]], list[Score]]:
    """Return a function for `Hooks.score`. Process r of n scores every n-th network of a batch, from its r-th on."""

    def score(batch: Sequence[Values]) -> list[Score]:
        mine = [env.score(counts) for counts in batch[rank() :: world_size()]]
        shares = gather_objects(mine)
        return [shares[index % world_size()][index // world_size()] for index in range(len(batch))]

    return score
