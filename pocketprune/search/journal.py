"""The record of a search: every roll-out is scored once, stored, written to search.csv, and replayed after a kill.

A searcher is a deterministic function of problem, settings, seed and scores. To resume, it is therefore run again from
its start. The journal answers with the recorded scores, checks that the searcher asks for the same values, and
evaluates only those that the killed search did not reach. A searcher whose own arithmetic costs more than a look-up
(the agent) saves its state beside the history and skips to it.
"""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pocketprune.common.errors import UserError
from pocketprune.common.files import write_atomically
from pocketprune.search.budget import Problem
from pocketprune.search.interface import Progress, ProgressCallback, Rollout, Score, Values
from pocketprune.search.reward import REWARDS
from pocketprune.search.settings import SearchSettings
from pocketprune.search.table import SensitivityTable

State = dict[str, Any]  # plain tensors and primitives: loads with weights_only=True
CSV_FIELDS = ("index", "kind", "reward", "accuracy", "loss", "divergence", "cost", "share", "seconds", "counts")


@dataclass(frozen=True)
class Hooks:
    """The places to which a search reports. All are optional."""

    csv_path: Path | None = None  # search.csv, appended to after every roll-out
    save: Callable[[State], None] | None = None  # takes the search's state after every round
    resume: State | None = None  # such a state of the same search
    progress: ProgressCallback | None = None  # called after every new roll-out
    score: Callable[[Sequence[Values]], list[Score]] | None = None  # scores several at once; None: one by one
    table: SensitivityTable | None = None  # of an earlier search on this network and split
    on_table: Callable[[SensitivityTable], None] | None = None  # takes a newly measured table


class Journal:
    """The record that one search asks for scores.

    Raises:
        UserError: the state to resume from belongs to another search. The message names the first difference.
    """

    def __init__(
        self,
        problem: Problem,
        settings: SearchSettings,
        *,
        method: str,
        seed: int,
        hooks: Hooks | None = None,
    ) -> None:
        self.problem = problem
        self.settings = settings
        self.hooks = hooks or Hooks()
        self.history: list[Rollout] = []
        self.expected = 0  # roll-outs in all, as announced by the searcher
        self.agent_state: State | None = None
        self._recorded: list[Rollout] = []  # of the killed search
        self._identity = {
            **identity(problem, settings, method, seed),
            "reused sensitivity table": self.hooks.table is not None,
        }
        self._scores: dict[Values, Score] = {}
        if self.hooks.resume is not None:
            self._restore(self.hooks.resume)
        spent = self._recorded[-1].seconds if self._recorded else 0.0
        self._began = time.perf_counter() - spent
        self._csv = self.hooks.csv_path and RolloutFile(self.hooks.csv_path, self._recorded)

    def score(self, values: Values, *, kind: str = "rollout", facts: dict[str, float] | None = None) -> Rollout:
        """Score values and add them to the history as its next roll-out."""
        return self.score_many([values], kind=kind, facts=facts)[0]

    def score_many(
        self, batch: Sequence[Values], *, kind: str = "rollout", facts: dict[str, float] | None = None
    ) -> list[Rollout]:
        """Score several values, in order. Values that have a score are not evaluated again."""
        first = len(self.history)
        for offset, values in enumerate(batch):
            self._check_replay(first + offset, values, kind)
        missing = list(dict.fromkeys(values for values in batch if values not in self._scores))
        for values, score in zip(missing, self._evaluate(missing), strict=True):
            self._scores[values] = score
        return [self._enter(values, kind, facts or {}) for values in batch]

    def score_all(self, batch: Sequence[Values], *, kind: str = "rollout") -> list[Rollout]:
        """Score a long batch in rounds of `settings.parallel` values, with a checkpoint after each round."""
        rollouts = []
        for first in range(0, len(batch), self.settings.parallel):
            rollouts += self.score_many(batch[first : first + self.settings.parallel], kind=kind)
            self.checkpoint()
        return rollouts

    def best(self) -> Rollout:
        """Return the best candidate: the highest reward on the budget, or else the one that misses it least.

        Raises:
            RuntimeError: no candidate is scored yet.
        """
        best = self.best_so_far()
        if best is None:
            raise RuntimeError("the search has scored no candidate")
        return best

    def best_so_far(self) -> Rollout | None:
        """Return what `best` returns; None while no candidate is scored."""
        candidates = [rollout for rollout in self.history if rollout.kind == "rollout"]
        return max(candidates, key=self._rank, default=None)

    def skip_to(self, count: int) -> None:
        """Take the first `count` recorded roll-outs as done. A searcher that has restored its own state calls this."""
        self.history = self._recorded[:count]

    def checkpoint(self, agent_state: State | None = None) -> None:
        """Pass the state to the hook `save`, unless the search is still being replayed."""
        if self.hooks.save and len(self.history) >= len(self._recorded):
            self.hooks.save(
                {
                    "identity": self._identity,
                    "agent": agent_state,
                    "history": [as_entry(rollout) for rollout in self.history],
                }
            )

    def _rank(self, rollout: Rollout) -> tuple[float, float, float]:
        over = max(0.0, self.problem.miss_of_cost(rollout.cost) - self.problem.budget.tolerance)
        return (-over, rollout.reward, -rollout.loss)

    def _evaluate(self, batch: list[Values]) -> list[Score]:
        if self.hooks.score is not None:
            return self.hooks.score(batch)
        return [self.problem.env.score(values) for values in batch]

    def _enter(self, values: Values, kind: str, facts: dict[str, float]) -> Rollout:
        index = len(self.history)
        if index < len(self._recorded):
            self.history.append(self._recorded[index])
            return self._recorded[index]
        score, cost = self._scores[values], self.problem.cost(values)
        if not (math.isfinite(score.accuracy) and math.isfinite(score.loss)):
            score = Score(score.accuracy if math.isfinite(score.accuracy) else 0.0, float("inf"), float("inf"))
        reward = REWARDS[self.settings.reward_policy](
            score, cost, self.problem.budget.kind, self.settings.noise_tolerance
        )
        rollout = Rollout(
            index,
            kind,
            values,
            score.accuracy,
            score.loss,
            score.divergence,
            cost,
            cost / self.problem.full_cost,
            reward,
            time.perf_counter() - self._began,
        )
        self.history.append(rollout)
        if self._csv:
            self._csv.append(rollout)
        if self.hooks.progress:
            self.hooks.progress(Progress(index + 1, self.expected, rollout, self.best_so_far(), facts))
        return rollout

    def _check_replay(self, index: int, values: Values, kind: str) -> None:
        if index < len(self._recorded):
            recorded = self._recorded[index]
            if (recorded.values, recorded.kind) != (values, kind):
                raise UserError(
                    f"roll-out {index} of the interrupted search chose {list(recorded.values)}, "
                    f"this one {list(values)}; resume with the same network, data and settings",
                    argument="resume",
                )

    def _restore(self, state: State) -> None:
        for key in {**state["identity"], **self._identity}:
            then, now = state["identity"].get(key), self._identity.get(key)
            if then != now:
                raise UserError(
                    f"{key} was {then!r} in the interrupted search and is {now!r} now; resume with the same settings "
                    "or search anew",
                    argument="resume",
                )
        self._recorded = [from_entry(entry) for entry in state["history"]]
        self._scores = {rollout.values: rollout.score for rollout in self._recorded}
        self.agent_state = state["agent"]


def identity(problem: Problem, settings: SearchSettings, method: str, seed: int) -> State:
    """Return what two searches must share for one to continue the other, as a flat dict of primitives."""
    flat: State = {
        "method": method,
        "seed": seed,
        **{f"budget {key}": value for key, value in asdict(problem.budget).items()},
    }
    for key, value in asdict(settings).items():
        entries = {f"ddpg_{name}": entry for name, entry in value.items()} if key == "ddpg" else {key: value}
        flat.update({name: list(entry) if isinstance(entry, tuple) else entry for name, entry in entries.items()})
    for variable in problem.variables:
        flat[f"layer {variable.name}"] = list(variable.allowed)
    return flat


class RolloutFile:
    """The file search.csv. A roll-out's line is on the disk before the next roll-out begins."""

    def __init__(self, path: Path, recorded: Sequence[Rollout]) -> None:
        self.path = Path(path)
        text = io.StringIO(newline="")
        csv.writer(text).writerows([CSV_FIELDS, *map(csv_row, recorded)])
        write_atomically(self.path, text.getvalue().encode())

    def append(self, rollout: Rollout) -> None:
        """Write a line, through to the disk."""
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(csv_row(rollout))
            file.flush()
            os.fsync(file.fileno())


def csv_row(rollout: Rollout) -> list[str]:
    """Return the fields in the order of CSV_FIELDS. Numbers have full precision, values are separated by blanks."""
    *fields, values = as_entry(rollout).values()
    return [*(field if isinstance(field, str) else repr(field) for field in fields), " ".join(map(str, values))]


def as_entry(rollout: Rollout) -> dict[str, Any]:
    """Return the fields of a roll-out by their names in files, CSV_FIELDS."""
    return {name: rollout.values if name == "counts" else getattr(rollout, name) for name in CSV_FIELDS}


def from_entry(entry: dict[str, Any]) -> Rollout:
    """Return the roll-out from which `as_entry` made this entry."""
    fields = dict(entry)
    return Rollout(values=tuple(fields.pop("counts")), **fields)
