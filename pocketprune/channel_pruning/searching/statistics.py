"""Every layer's moments on the dense network, from one pass over the calibration images, and their results.

The elimination path of a layer gives the kept channels, the error and the refitted weights for every kept count. Input
and target both come from the dense network. The results of one layer therefore do not depend on the others' counts.
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
from pocketprune.common.inputs import ExampleInputs
from pocketprune.graph.sweep import Route, Sweep
from pocketprune.numerics.criteria import path
from pocketprune.numerics.evidence import Evidence
from pocketprune.numerics.moments import Moments, all_reduce
from pocketprune.numerics.paths import SelectionPath
from pocketprune.numerics.reconstruction import damping_of, refit
from pocketprune.structure.channel_groups import Structure
from pocketprune.training.distributed import rank

RIDGE = 1e-4  # relative to the mean diagonal of a layer's moments
ROLLOUT_SELECTION = "obs"
"""How roll-outs select channels, also if the final pruning differs: one elimination serves every count."""


class LayerStatistics:
    """The moments of a choice's consumers and the elimination paths of its decisions."""

    def __init__(self, structure: Structure, choice: Choice, moments: Sequence[list[Moments]]) -> None:
        self.choice, self.moments = choice, moments
        self.paths = [path(ROLLOUT_SELECTION, evidence) for evidence in self._evidence(structure)]

    def kept(self, count: int) -> list[Tensor]:
        """Return the units of each decision that stay, as sorted LongTensors."""
        return [path.kept(units) for path, units in zip(self.paths, self.choice.units(count), strict=True)]

    def error_curve(self) -> np.ndarray:
        """Return the relative error (channels + 1,) of the refitted output at every kept count.

        It is the mean over the groups of a coupled input.
        """
        curves = [np.nan_to_num(_errors(path), posinf=1.0) for path in self.paths]
        channels = self.choice.layer.full
        counts = [self.choice.units(count) for count in range(1, channels + 1)]
        kept = [np.mean([curve[u] for curve, u in zip(curves, units, strict=True)]) for units in counts]
        return np.array([np.mean([curve[0] for curve in curves]), *kept])

    def fits(self, consumer: Consumer, kept: Tensor) -> list[Fit]:
        """Return the consumer's weights and biases, refitted on the kept units of its input."""
        moments = self.moments[self.choice.consumers.index(consumer)]
        return [
            refit(m, w, kept, consumer.block, damping=damping_of(m.A, RIDGE))
            for m, w in zip(moments, consumer.weights, strict=True)
        ]

    def _evidence(self, structure: Structure) -> list[Evidence]:
        """Return the evidence on each decision's units."""
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


def _errors(path: SelectionPath) -> np.ndarray:
    assert path.errors is not None  # an elimination gives the error of every count
    return path.errors.numpy()


def collect(
    structure: Structure,
    choices: Sequence[Choice],
    batches: Sequence[ExampleInputs],
    options: PruningOptions,
    progress: Callable[[str, int, int], None],
) -> dict[int, LayerStatistics]:
    """Return position in `choices` -> statistics, for the choices that are not fixed."""
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
        consumer.check(moments)
        found[consumer.node] = consumer.ordered(moments)
    return {
        index: LayerStatistics(structure, choice, [found[c.node] for c in choice.consumers])
        for index, choice in enumerate(choices)
        if len(choice.layer.allowed) > 1
    }
