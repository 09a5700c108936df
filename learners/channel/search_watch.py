"""Watching a search: a progress bar, and TensorBoard curves and pictures of its roll-outs."""

import math

import numpy as np
from tqdm import tqdm

from learners.reporting.search_pictures import draw_cloud, draw_ratios
from pocketprune.search import Problem, Progress, SearchResult
from pocketprune.training.distributed import is_main
from pocketprune.training.metrics import Recorder


class SearchWatch:
    """Is called with every roll-out inside of it as a context, and its `finish` with the result."""

    def __init__(self, recorder: Recorder, problem: Problem, name: str, metric: str = "accuracy") -> None:
        self.recorder, self.problem, self.name, self.metric = recorder, problem, name, metric
        self._bar = tqdm(leave=False, delay=1, disable=not is_main(), desc=name, unit="roll-out")

    def __enter__(self) -> "SearchWatch":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, progress: Progress) -> None:
        """Show and record a roll-out."""
        rollout, best, bar = progress.rollout, progress.best, self._bar
        bar.total = max(progress.expected, progress.done)
        bar.update(progress.done - bar.n)
        if best is not None:
            bar.set_postfix_str(f"best {best.reward:.4f} at {best.share:.1%} {self.problem.budget.kind}")
        curves = {"reward": rollout.reward, self.metric: rollout.accuracy, "loss": rollout.loss, "cost": rollout.share}
        curves |= {"best_reward": best.reward} if best is not None else {}
        for key, value in (curves | progress.facts).items():
            if math.isfinite(value):
                self.recorder.record(f"{self.name}/{key}", value, rollout.index)
        unit = 1e3 if self.problem.budget.kind == "latency" else 1.0  # steps are whole: microseconds
        self.recorder.record(f"{self.name}/{self.metric}_against_cost", rollout.accuracy, round(rollout.cost * unit))

    def finish(self, result: SearchResult) -> None:
        """Record the best network's ratios, and pictures of all roll-outs: their ratios, their accuracy and cost."""
        for index, ratio in enumerate(self.problem.shares(result.values)):
            self.recorder.record(f"{self.name}/preserve_ratio", ratio, index)
        rollouts = [r for r in result.history if r.kind == "rollout"]
        names = [variable.name for variable in self.problem.variables]
        ratios = np.array([self.problem.shares(r.values) for r in rollouts])
        self.recorder.image(f"{self.name}/ratios_per_layer", draw_ratios(names, ratios), 0)
        self.recorder.image(f"{self.name}/pareto", draw_cloud(result.history, self.problem.budget.kind, self.metric), 0)
        self.recorder.flush()
