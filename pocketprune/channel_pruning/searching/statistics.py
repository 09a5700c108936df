"""One pass over the calibration images: every layer's moments on the dense network, and what follows from them.

The elimination path of a layer gives the channels to keep, the error and the refitted weights for every kept count.
Both input and target come from the dense network, so that no count of one layer depends on that of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from pocketprune.channel_pruning.calibration import Positions
from pocketprune.channel_pruning.consumers import Consumer, Fit, moments_of
from pocketprune.channel_pruning.coupling import slices_of
from pocketprune.channel_pruning.options import PruningOptions
from pocketprune.channel_pruning.searching.choices import Choice
from pocketprune.graph.sweep import Route, Sweep
from pocketprune.numerics.criteria import path
from pocketprune.numerics.evidence import Evidence
from pocketprune.numerics.moments import Moments, all_reduce
from pocketprune.numerics.reconstruction import damping_of, refit
from pocketprune.structure.channel_groups import Structure
from pocketprune.training.distributed import rank

RIDGE = 1e-4  # relative to the mean diagonal of a layer's moments
ROLLOUT_SELECTION = "obs"
"""How roll-outs choose channels, whatever the final pruning does: one elimination gives every count and its error."""


class LayerStatistics:
    """The moments of a choice's consumers and the elimination paths of its decisions."""

    def __init__(self, structure: Structure, choice: Choice, moments: Sequence[list[Moments]]) -> None:
        self.choice, self.moments = choice, moments
        self.paths = [path(ROLLOUT_SELECTION, evidence) for evidence in self._evidence(structure)]

    def kept(self, count: int) -> list[Tensor]:
        """The units of each decision that stay, sorted LongTensors."""
        return [path.kept(units) for path, units in zip(self.paths, self.choice.units(count), strict=True)]

    def error_curve(self) -> np.ndarray:
        """(channels + 1,) relative error of the refitted output for every kept count; coupled groups' mean."""
        curves = [np.nan_to_num(path.errors.numpy(), posinf=1.0) for path in self.paths]
        channels = self.choice.layer.full
        counts = [self.choice.units(count) for count in range(1, channels + 1)]
        kept = [np.mean([curve[u] for curve, u in zip(curves, units, strict=True)]) for units in counts]
        return np.array([np.mean([curve[0] for curve in curves]), *kept])

    def fits(self, consumer: Consumer, kept: Tensor) -> list[Fit]:
        """The consumer's weights and biases refitted on the kept units of its input."""
        moments = self.moments[self.choice.consumers.index(consumer)]
        return [
            refit(m, w, kept, consumer.block, damping=damping_of(m.A, RIDGE))
            for m, w in zip(moments, consumer.weights, strict=True)
        ]

    def _evidence(self, structure: Structure) -> list[Evidence]:
        """What is known of each decision's units."""
        if not self.choice.groups:
            consumer = self.choice.consumers[0]
            slices = consumer.slices(self.moments[0])
            return [Evidence(channels=consumer.decision.size, consumers=slices, ridge=RIDGE)]
        found = []
        for group in self.choice.groups:
            readers = zip(self.choice.consumers, self.moments, strict=True)
            slices = [part for consumer, m in readers for part in slices_of(structure, group, consumer, m)]
            found.append(Evidence(channels=group.size, consumers=slices, ridge=RIDGE))
        return found


def collect(
    structure: Structure,
    choices: Sequence[Choice],
    batches: Sequence[Tensor],
    options: PruningOptions,
    progress: Callable[[str, int, int], None],
) -> dict[int, LayerStatistics]:
    """Return statistics by position in `choices`, of those that have a choice."""
    owners = {c.node: c for choice in choices if len(choice.layer.allowed) > 1 for c in choice.consumers}
    traced, together = structure.traced, options.together
    draw = Positions(options.points_per_layer, options.seed + (rank() if together else 0), traced.device)
    route = Route.through(traced, list(owners), branch_drift=False)
    sweep = Sweep(route, batches, cache_gb=options.cache_gb)

    def tell(name: str, done: int, total: int) -> None:
        progress(f"measuring {name}", done, total)

    found = {}
    for consumer, mine in moments_of(sweep, owners, options.points_per_layer, draw, tell):
        moments = [all_reduce(m) for m in mine] if together else mine
        found[consumer.node] = consumer.ordered(moments)
    return {
        index: LayerStatistics(structure, choice, [found[c.node] for c in choice.consumers])
        for index, choice in enumerate(choices)
        if len(choice.layer.allowed) > 1
    }
