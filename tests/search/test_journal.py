"""search.csv, progress, several processes, measured latency."""

import csv

import numpy as np
import pytest

from pocketprune.channel_pruning.searching import parallel
from pocketprune.common.errors import UserError
from pocketprune.deploy.latency_table import GRID, LatencyTable, LayerLatency, grid
from pocketprune.search import Budget, Hooks, Progress, SearchSettings, SensitivityTable, search
from pocketprune.search.interface import Score, Values
from tests.search.toys import deep, three_layers

QUICK = SearchSettings(nb_rlouts=12, nb_rlouts_min=6, swaps=4)


def rows(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_rollout_is_on_the_disk_before_the_next_begins(tmp_path) -> None:
    path, lengths = tmp_path / "search.csv", []
    result = search(
        three_layers(),
        Budget(),
        method="random",
        settings=QUICK,
        hooks=Hooks(csv_path=path, progress=lambda progress: lengths.append(len(rows(path)))),
    )
    assert lengths == list(range(1, 13))
    for row, rollout in zip(rows(path), result.history, strict=True):
        assert float(row["reward"]) == rollout.reward
        assert tuple(map(int, row["counts"].split())) == rollout.values
        assert float(row["share"]) == rollout.share


def test_a_resumed_search_continues_its_file(tmp_path) -> None:
    path, states = tmp_path / "search.csv", []
    search(
        three_layers(),
        Budget(),
        method="random",
        settings=QUICK,
        hooks=Hooks(csv_path=path, save=states.append),
    )
    whole = [{**row, "seconds": ""} for row in rows(path)]
    path.write_text(path.read_text() + "12,rollout,0.")  # a kill in the middle of a line after the checkpoint
    search(
        three_layers(),
        Budget(),
        method="random",
        settings=QUICK,
        hooks=Hooks(csv_path=path, resume=states[4]),
    )
    assert [{**row, "seconds": ""} for row in rows(path)] == whole


def test_progress_tells_how_far_and_the_best_so_far() -> None:
    told: list[Progress] = []
    result = search(deep(0), Budget(share=0.4), method="ddpg", settings=QUICK, hooks=Hooks(progress=told.append))
    assert [one.done for one in told] == list(range(1, 13))
    assert {one.expected for one in told} == {12}
    assert told[-1].best.reward == result.reward
    assert np.isfinite(told[-1].facts["critic_loss"])
    assert told[-1].facts["noise_std"] < told[0].facts["noise_std"]


def test_a_diverged_network_scores_worst_instead_of_stopping_the_search() -> None:
    env = three_layers()
    sound = env.score
    env.score = lambda values: Score(float("nan"), float("nan"), float("nan")) if values[1] % 2 else sound(values)
    result = search(env, Budget(), method="random", settings=QUICK)
    assert result.values[1] % 2 == 0
    assert min(one.reward for one in result.history) == 0.0


@pytest.mark.parametrize("method", ["random", "dp", "netadapt", "ddpg"])
def test_several_processes_score_their_share_and_agree(method: str, monkeypatch) -> None:
    """Three processes one after the other: the scores that the others would send are computed here."""
    one = SearchSettings(**{**vars(QUICK), "parallel": 3})
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


def test_latency_is_measured_once_per_machine_and_kept(tmp_path) -> None:
    calls: list[tuple[int, int]] = []

    def measure(inputs: int, outputs: int) -> float:
        calls.append((inputs, outputs))
        return 0.1 * inputs * outputs + 0.5

    path = tmp_path / "latency.json"
    first = LayerLatency(LatencyTable(path), "conv1 3x3", 16, 32, measure)
    assert len(calls) == GRID * GRID
    again = LayerLatency(LatencyTable(path), "conv1 3x3", 16, 32, measure)
    assert len(calls) == GRID * GRID
    assert again(7, 9) == first(7, 9) == pytest.approx(0.1 * 7 * 9 + 0.5)
    LayerLatency(LatencyTable(path, device="cuda"), "conv1 3x3", 16, 32, measure)
    assert len(calls) == 2 * GRID * GRID


def test_noisy_latency_never_falls_with_a_width() -> None:
    rng = np.random.default_rng(0)
    cost = LayerLatency(LatencyTable(None), "conv", 9, 9, lambda a, b: a * b + rng.normal(0, 10))
    table = np.array([[cost(a, b) for b in range(1, 10)] for a in range(1, 10)])
    assert np.all(np.diff(table, axis=0) >= 0)
    assert np.all(np.diff(table, axis=1) >= 0)
    assert grid(1) == [1]
    assert grid(3) == [1, 2, 3]


@pytest.mark.parametrize("text", ["[1]", "{", '{"machine": {"conv": "fast"}}'])
def test_a_foreign_latency_file_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "latency.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"latency table .*latency.json: not a table that a search wrote"):
        LatencyTable(path)


TABLE_HEAD = "layer,channels,kept,error,accuracy,loss,divergence"


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", f"{TABLE_HEAD}\n(dense),0,0,x,1,1,0\n"])
def test_a_foreign_sensitivity_file_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "sensitivity.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=r"sensitivity table .*sensitivity.csv: "):
        SensitivityTable.load(path)
