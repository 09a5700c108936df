"""The learned ranking: a scale and a shift for each group's scores, found by evolution (Chin et al. 2020, LeGR)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pocketprune.common.errors import UserError
from pocketprune.compression.controller import Controller
from pocketprune.compression.selection import normalised_scores

Coefficients = dict[str, tuple[float, float]]
"""Group name -> (scale, shift) of its scores."""


@dataclass(frozen=True, kw_only=True)
class Evolution:
    """How a ranking is learned; the defaults are NNCF's.

    Attributes:
        population: how many candidates live at a time. They are drawn at random first, but for plain global ranking.
        generations: how many candidates are tried in all.
        samples: how many of those alive compete to be the parent of the next, which takes the oldest one's place.
        mutated: the share of the groups that a child changes, one group at least.
        sigma: how far random scales (log-normal) and shifts (in deviations of the group's scores) spread.
        seed: of all that is random.

    Raises:
        UserError: a value that is not accepted.
    """

    population: int = 64
    generations: int = 400
    samples: int = 16
    mutated: float = 0.1
    sigma: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("population", "generations", "samples"):
            if getattr(self, name) < 1:
                raise UserError(f"{getattr(self, name)} given; 1 or more is accepted", argument=name)
        if not 0 < self.mutated <= 1:
            raise UserError(f"{self.mutated} given; a share in (0, 1] is accepted", argument="mutated")


def learn_ranking(
    controller: Controller,
    score: Callable[[nn.Module], float],
    settings: Evolution | None = None,
    level: float | None = None,
) -> Coefficients:
    """Learn the ranking of a controller's rules with `ranking="learned"`, and let the controller use it.

    Args:
        controller: its masks and its network are the same after as before.
        score: says how good the network is with masks in place, higher is better, on images that are not tested on. It
            may train the network for some steps, as that is undone.
        settings: of the evolution.
        level: at which candidates are scored; that of the end of each rule's schedule by default.

    Returns:
        The coefficients of the best candidate.

    Raises:
        UserError: no rule has a learned ranking.
    """
    settings, planner = settings or Evolution(), controller.planner
    learned = [n for n, scope in enumerate(planner.scopes) if scope.rule.ranking == "learned"]
    if not learned:
        raise UserError("no rule has ranking='learned'", argument="policy")
    due = [(n, planner.scopes[n].rule.schedule.final if level is None else level) for n in learned]
    masked = controller.masks.masked
    whole = {name: torch.zeros_like(mask) for name, mask in masked.items()}
    controller.masks.set(whole)
    evidence = planner.evidence(due)
    before = {name: tensor.clone() for name, tensor in controller.net.state_dict().items()}

    def judge(candidate: Coefficients) -> float:
        planner.coefficients = candidate
        controller.masks.set(planner.choose(due, whole, evidence))
        try:
            return score(controller.net)
        finally:
            controller.masks.set(whole)
            controller.net.load_state_dict(before)

    spreads = {
        group.name: float(normalised_scores(planner.scopes[number].rule, evidence[group.name]).std(correction=0))
        for number in learned
        for group in planner.scopes[number].groups
    }
    try:
        planner.coefficients = evolve(spreads, judge, settings)
    finally:
        controller.masks.set(masked)
    return planner.coefficients


def evolve(spreads: Mapping[str, float], judge: Callable[[Coefficients], float], settings: Evolution) -> Coefficients:
    """Return the coefficients with the highest score of all that were tried; of equal ones the first.

    Args:
        spreads: group name -> deviation of its scores.
        judge: scores candidates.
        settings: of the evolution.
    """
    rng, names = np.random.default_rng(settings.seed), list(spreads)

    def drawn(name: str) -> tuple[float, float]:
        scale = float(np.exp(settings.sigma * rng.standard_normal()))
        return scale, float(settings.sigma * spreads[name] * rng.standard_normal())

    alive: list[tuple[float, Coefficients]] = []
    best: tuple[float, Coefficients] | None = None
    for generation in range(settings.generations):
        if generation == 0:
            candidate = {name: (1.0, 0.0) for name in names}
        elif generation < settings.population:
            candidate = {name: drawn(name) for name in names}
        else:
            rivals = rng.choice(len(alive), min(settings.samples, len(alive)), replace=False)
            parent = alive[max(rivals.tolist(), key=lambda place: alive[place][0])][1]
            changed = rng.choice(len(names), max(1, round(settings.mutated * len(names))), replace=False)
            candidate = {**parent, **{names[place]: drawn(names[place]) for place in changed.tolist()}}
            alive.pop(0)
        alive.append((judge(candidate), candidate))
        best = alive[-1] if best is None or alive[-1][0] > best[0] else best
    assert best is not None, "there is at least one generation"
    return best[1]
