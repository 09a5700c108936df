"""--cp_prune_option auto: search preserve ratios under a budget, resumable, and choose among the finalists.

What a search knows it writes to the workdir: `search.csv` (every roll-out), `sensitivity.csv` and `sensitivity.png`
(used again by a search for another budget), `latency.json`, and checkpoints to go on from.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from config import Config
from learners.channel.options import pruning_options
from learners.channel.search_watch import SearchWatch
from learners.context import RunContext
from learners.reporting.progress import ProgressBar
from learners.reporting.search_pictures import draw_sensitivity, save_picture
from pocketprune.channel_pruning.searching.environment import PruningEnvironment
from pocketprune.channel_pruning.searching.layer_latency import LatencyCost
from pocketprune.channel_pruning.searching.parallel import scorer
from pocketprune.channel_pruning.searching.ratios import latency_share, on_time
from pocketprune.channel_pruning.searching.scoring import TaskInputs
from pocketprune.channel_pruning.searching.statistics import ROLLOUT_SELECTION
from pocketprune.reporting import report
from pocketprune.search import (
    Budget,
    DdpgSettings,
    Hooks,
    Problem,
    Score,
    SearchResult,
    SearchSettings,
    SensitivityTable,
    Values,
    search,
)
from pocketprune.search.ddpg import check_rollouts
from pocketprune.search.finalists import decide, finalists
from pocketprune.structure.channel_groups import Structure
from pocketprune.training.distributed import barrier, gather_objects, is_main, world_size

Prune = Callable[[Sequence[float]], nn.Module]


class RatioSearch:
    """The search of a run; several processes share its work."""

    def __init__(self, context: RunContext) -> None:
        self.context, self.config, self.workdir = context, context.config, context.workdir
        self.settings = search_settings(self.config)
        self.metric = context.metric or "minus the divergence"

    def run(self, net: Structure, calibration: Sequence[Tensor], prune: Prune) -> list[float]:
        """Return the preserve ratios, one per layer of the ratio list, of the best network found on the budget.

        Args:
            net: the dense network, analysed.
            calibration: batches of training images (this process's), as the pruning itself uses them.
            prune: ratios -> the network pruned to them, as at the end of the run.

        Raises:
            UserError: a budget out of reach, too few held-out images, a sensitivity table of another network.
        """
        checkpoints = self.context.checkpoints("search_result")
        if (done := checkpoints.latest()) is not None:
            with done.understood():
                return [float(ratio) for ratio in done.state["ratios"]]
        ratios = self._run(net, calibration, prune)
        if is_main():
            checkpoints.save({"ratios": ratios}, 1)
        return ratios

    def _run(self, net: Structure, calibration: Sequence[Tensor], prune: Prune) -> list[float]:
        flags = self.config.search
        with ProgressBar() as bar:
            env = self._environment(net, calibration, bar)
        budget = Budget(flags.cp_budget, flags.cp_preserve_ratio, ceiling=flags.cp_reward_policy == "flops")
        problem = Problem(env, budget)
        self.context.say("\n".join([f"Search: {flags.cp_search} for {budget.share:.1%} of {budget.kind}",
                            *problem.profile().lines()]))  # fmt: skip
        asked = self.config.channel_pruning.selection
        if asked != ROLLOUT_SELECTION:
            self.context.say(f"Roll-outs choose channels by {ROLLOUT_SELECTION}, the pruning at the end by {asked}")
        problem.check_reachable()
        settings = self.settings
        if flags.cp_search_start == "dp" and flags.cp_search in ("ddpg", "anneal"):
            first = self._search(env, problem, "dp", settings, name="search_start")
            settings = replace(settings, start=first.values)
        found = self._search(env, problem, flags.cp_search, settings, name="search")
        if abs(found.share - budget.share) > budget.tolerance and not budget.ceiling:
            self.context.say(f"No counts meet the budget more closely than {found.share:.2%}")
        counts = self._choose(env, problem, found, prune)
        return env.ratios(counts)

    def _environment(self, net: Structure, calibration: Sequence[Tensor], bar: ProgressBar) -> PruningEnvironment:
        run = self.config.run
        latency = None
        if self.config.search.cp_budget == "latency":
            latency = LatencyCost(
                self.workdir / "latency.json" if is_main() else None,
                batch=run.latency_batch,
                device=calibration[0].device,
                together=True,
            )
        return PruningEnvironment(
            net,
            calibration,
            self._judged_on(calibration[0].device),
            budget=self.config.search.cp_budget,
            options=pruning_options(self.config),
            latency=latency,
            progress=bar,
        )

    def _judged_on(self, device: torch.device) -> list[tuple[Tensor, Tensor]] | TaskInputs:
        """Return what networks are scored on: held-out images, with their labels or for the run's task."""
        labelled, task = self._held_out(device), self.context.task
        return labelled if task is None else TaskInputs(task, [images for images, _ in labelled])

    def _held_out(self, device: torch.device) -> list[tuple[Tensor, Tensor]]:
        wanted, size = self.config.search.cp_nb_smpls_search, self.config.data.batch_size_eval
        batches = self.context.dataset.val.batches(size, seed=self.config.run.seed, shuffle=True)
        found, images = [], 0
        for x, labels in islice(batches, math.ceil(wanted / size)):
            found.append((x[: wanted - images].to(device), labels[: wanted - images].to(device)))
            images += len(labels)
        return found

    def _search(
        self, env: PruningEnvironment, problem: Problem, method: str, settings: SearchSettings, *, name: str
    ) -> SearchResult:
        """Search, or go on with a search that was interrupted."""
        checkpoints = self.context.checkpoints(name)
        found = checkpoints.latest()
        resume = None if found is None else found.state

        def save(state: dict[str, Any]) -> None:
            checkpoints.save(state, len(state["history"]))

        table = self._table(resume)
        watch = SearchWatch(self.context.recorder, problem, name, self.metric)
        barrier()  # every process has read what the first one will overwrite
        with watch:
            result = search(
                env,
                problem.budget,
                method=method,
                settings=settings,
                seed=self.config.run.seed,
                hooks=Hooks(
                    csv_path=self.workdir / f"{name}.csv" if is_main() else None,
                    save=save if is_main() else None,
                    resume=resume,
                    progress=watch,
                    score=scorer(env) if world_size() > 1 else None,
                    table=table,
                    on_table=self._keep_table if is_main() else None,
                ),
            )
        watch.finish(result)
        self.context.say(
            f"{method}: {len(result.history)} roll-outs in {result.seconds:.0f} s; best on the held-out images "
            f"{self._words(result.score)} at {result.share:.2%} of {problem.budget.kind}"
        )
        return result

    def _choose(self, env: PruningEnvironment, problem: Problem, found: SearchResult, prune: Prune) -> Values:
        """Prune the best few and the uniform network as at the end. Return the best of them on the held-out images."""
        if len(finalists(problem, found)) == 1:
            self._keep_finalists(problem, found.method, found.values, [(found.values, found.score)])
            return found.values

        measured: dict[Values, float] = {}

        def score(counts: Values) -> Score:
            pruned = prune(env.ratios(counts)).eval()
            if problem.budget.kind == "latency":
                measured[counts] = gather_objects(self._latency_share(pruned, env))[0]
            agreed: Score = gather_objects(env.judge(pruned))[0]
            return agreed  # one opinion, should the processes' arithmetic differ

        ranked, scored = decide(problem, found, score, self.settings)
        counts = ranked[0]
        if measured:
            counts = on_time(ranked, measured, problem.budget.share)
            shares = ", ".join(f"{share:.1%}" for share in measured.values())
            self.context.say(f"Finalists, timed: {shares} of the dense network's latency")
        self._keep_finalists(problem, found.method, counts, scored)
        shown = "; ".join(self._words(score) for _, score in scored)
        self.context.say(f"Finalists on the held-out images, pruned as at the end of the run, uniform last: {shown}")
        return counts

    def _latency_share(self, pruned: nn.Module, env: PruningEnvironment) -> float:
        images = self.context.images(self.config.run.latency_batch)
        return latency_share(pruned, env.structure.traced.net, images)

    def _keep_finalists(
        self, problem: Problem, method: str, chosen: Values, scored: Sequence[tuple[Values, Score]]
    ) -> None:
        """Write search.json: what was asked, and the finalists, for the page of the run."""
        entries = [
            {"counts": values, "share": problem.cost(values) / problem.full_cost, "accuracy": score.accuracy}
            | {"chosen": values == chosen}
            for values, score in scored
        ]
        asked = {"method": method, "budget": problem.budget.kind, "asked": problem.budget.share, "metric": self.metric}
        if is_main():
            report.write(self.workdir / "search.json", asked | {"finalists": entries})

    def _table(self, resume: dict[str, Any] | None) -> SensitivityTable | None:
        """Return the sensitivity table of an earlier search; None where an interrupted search had begun without."""
        path = self.workdir / "sensitivity.csv"
        if not path.exists() or (resume is not None and not resume["identity"]["reused sensitivity table"]):
            return None
        self.context.say(f"Sensitivities: from {path}")
        return SensitivityTable.load(path)

    def _keep_table(self, table: SensitivityTable) -> None:
        table.save(self.workdir / "sensitivity.csv")
        picture = draw_sensitivity(table)
        save_picture(self.workdir / "sensitivity.png", picture)
        self.context.recorder.image("search/sensitivity", picture, 0)

    def _words(self, score: Score) -> str:
        value = f"{score.accuracy:.2%}" if self.context.task is None else f"{self.metric} {score.accuracy:.4g}"
        return f"{value} (divergence {score.divergence:.4f})"


def search_settings(config: Config) -> SearchSettings:
    """Return the flags as the search takes them. Raises UserError for roll-outs below the warm-up."""
    flags = config.search
    agent = DdpgSettings(**{f.name: getattr(config.ddpg, f"ddpg_{f.name}") for f in fields(DdpgSettings)})
    settings = SearchSettings(
        nb_rlouts=flags.cp_nb_rlouts,
        nb_rlouts_min=flags.cp_nb_rlouts_min,
        swaps=min(SearchSettings.swaps, flags.cp_nb_rlouts),
        reward_policy=flags.cp_reward_policy,
        noise_tolerance=flags.cp_noise_tolerance,
        parallel=world_size(),
        ddpg=agent,
    )
    settings.check()
    if flags.cp_search == "ddpg":
        check_rollouts(settings)
    return settings
