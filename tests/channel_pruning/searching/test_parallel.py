"""A search whose networks several processes score."""

import pytest

from pocketprune.channel_pruning.searching import parallel
from pocketprune.search import Budget, Hooks, SearchSettings, search
from pocketprune.search.interface import Score, Values
from tests.search.toys import deep


@pytest.mark.parametrize("method", ["random", "dp", "netadapt", "ddpg"])
def test_several_processes_score_their_share_and_agree(method: str, monkeypatch) -> None:
    """Three processes one after the other: the scores that the others would send are computed here."""
    one = SearchSettings(nb_rlouts=12, nb_rlouts_min=6, swaps=4, parallel=3)
    batches: list[int] = []

    def as_three(env):
        def gather(mine: list[Score]) -> list[list[Score]]:
            return [mine if other == 1 else shares[other] for other in range(3)]

        shares: list[list[Score]] = []
        monkeypatch.setattr(parallel, "world_size", lambda: 3)
        monkeypatch.setattr(parallel, "rank", lambda: 1)
        monkeypatch.setattr(parallel, "gather_objects", gather)
        score_share = parallel.scorer(env)

        def score(batch: list[Values]) -> list[Score]:
            batches.append(len(batch))
            shares[:] = [[env.score(values) for values in batch[other::3]] for other in range(3)]
            return score_share(batch)

        return score

    env = deep(0)
    alone = search(deep(0), Budget(share=0.4), method=method, settings=one)
    together = search(env, Budget(share=0.4), method=method, settings=one, hooks=Hooks(score=as_three(env)))
    assert together == alone
    assert max(batches) == 3
