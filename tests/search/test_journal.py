"""search.csv, progress, sensitivity.csv."""

import csv

import numpy as np
import pytest

from pocketprune.common.errors import UserError
from pocketprune.search import Budget, Hooks, Progress, SearchSettings, SensitivityTable, search
from pocketprune.search.interface import Score
from pocketprune.search.reward import USELESS
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
    assert min(one.reward for one in result.history) == -USELESS


TABLE_HEAD = "layer,channels,kept,error,accuracy,loss,divergence"


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", f"{TABLE_HEAD}\n(dense),0,0,x,1,1,0\n", "x" * 200_000])
def test_a_foreign_sensitivity_file_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "sensitivity.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=r"sensitivity table .*sensitivity.csv: "):
        SensitivityTable.load(path)
