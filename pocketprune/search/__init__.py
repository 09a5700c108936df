"""Values of several variables under a budget: `search()` runs one of the searchers in `SEARCHES` on an environment.

A new searcher is one file with `search(problem, settings, journal, seed)` and one line here. It asks the journal for
scores. The result is the best values on the budget among those that were scored; it is never only predicted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pocketprune.common.errors import UserError
from pocketprune.common.options import check_option
from pocketprune.search import allocation, anneal, curvature, ddpg, netadapt, random_search, sensitivity, uniform
from pocketprune.search.budget import Budget, Problem, Profile
from pocketprune.search.interface import Environment, Progress, Rollout, Score, SearchResult, Values, Variable
from pocketprune.search.journal import Hooks, Journal, State
from pocketprune.search.settings import DdpgSettings, SearchSettings
from pocketprune.search.table import SensitivityTable

Searcher = Callable[[Problem, SearchSettings, Journal, int], None]

SEARCHES: dict[str, Searcher] = {
    "dp": allocation.search,
    "curvature": curvature.search,
    "ddpg": ddpg.search,
    "anneal": anneal.search,
    "netadapt": netadapt.search,
    "sensitivity": sensitivity.search,
    "random": random_search.search,
    "uniform": uniform.search,
}

__all__ = [
    "SEARCHES",
    "Budget",
    "DdpgSettings",
    "Environment",
    "Hooks",
    "Problem",
    "Profile",
    "Progress",
    "Rollout",
    "Score",
    "SearchResult",
    "SearchSettings",
    "SensitivityTable",
    "State",
    "Values",
    "Variable",
    "search",
]


def search(
    env: Environment,
    budget: Budget,
    *,
    method: str,
    settings: SearchSettings | None = None,
    seed: int = 0,
    hooks: Hooks | None = None,
) -> SearchResult:
    """Search for the values of `env`'s variables that score best under `budget`, by one of `SEARCHES`.

    The same arguments give the same result to the bit. A search that is killed and resumed gives it as well.

    Args:
        env: the variables, their cost and their score.
        budget: what the values may cost.
        method: a key of `SEARCHES`.
        settings: of the searcher; None stands for the defaults.
        seed: of all random draws.
        hooks: where the search reports, and the state from which it resumes.

    Returns:
        The best values that were scored, and all others that were scored.

    Raises:
        UserError: an unknown method, a setting or budget outside its range, a budget out of reach (with the reachable
            range), or a state to resume from that belongs to another search.
    """
    began = time.perf_counter()
    check_option("method", method, tuple(SEARCHES))
    settings = settings or SearchSettings()
    settings.check()
    problem = Problem(env, budget)
    problem.check_reachable()
    if settings.start and len(settings.start) != len(problem.variables):
        message = f"{len(settings.start)} values given; expected one per variable ({len(problem.variables)})"
        raise UserError(message, argument="start")
    journal = Journal(problem, settings, method=method, seed=seed, hooks=hooks)
    if problem.free:
        SEARCHES[method](problem, settings, journal, seed)
    else:
        journal.score(problem.highest)
    best = journal.best()
    return SearchResult(
        method,
        best.values,
        best.score,
        best.reward,
        best.cost,
        best.share,
        tuple(journal.history),
        time.perf_counter() - began,
    )
