"""The environment of a search: the counts of a network's layers, and held-out images for its scores.

A roll-out looks up the weights that were refitted for its counts, thins the network with them, and runs the held-out
images through the thinned network. The weights are the best ones on the dense network's features. Unlike those of the
final pruning, they do not correct the errors of earlier layers. To rank networks as that pruning would, the statistics
of the batch norms are first shifted by what the cut has changed on a few calibration images. On a ResNet-20, the rank
correlation between the losses of roll-outs and those after the full pruning is 0.8 with new statistics and 0.1 without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from pocketprune.channel_pruning.analysis import analysed
from pocketprune.channel_pruning.calibration import Calibration
from pocketprune.channel_pruning.metric import metric_of
from pocketprune.channel_pruning.options import Progress, PruningOptions
from pocketprune.channel_pruning.searching.layer_latency import LatencyCost
from pocketprune.channel_pruning.searching.scoring import TaskInputs, judge_of
from pocketprune.channel_pruning.searching.widths import Widths
from pocketprune.common.errors import UserError
from pocketprune.common.inputs import ExampleInputs
from pocketprune.common.modes import evaluation_mode
from pocketprune.common.steps import steps_of
from pocketprune.common.untouched import untouched
from pocketprune.graph.tracing import batch_of
from pocketprune.search.interface import Score
from pocketprune.structure.channel_groups import Structure
from pocketprune.training.batch_norm import apply_shifts, shifts_of
from pocketprune.training.distributed import gather_objects, world_size

NORM_IMAGES = 128  # calibration images that shift the batch norms' statistics
PRICED_IMAGES = 256  # held-out images on which `divergences` prices counts


class PruningEnvironment(Widths):
    """A network as `search` sees it. See `interface.Environment`.

    Args:
        net: the dense network, or what `analyse` returned for it. It stays as it is.
        calibration: batches of training inputs, for the moments.
        held_out: batches without any calibration image, for the scores, or a function that measures a network, or a
            task with its inputs. See `HeldOut`, `Measure` and `OnTask`.
        budget: "macs" | "params" | "latency", the unit of `cost`.
        options: as for `prune_channels`. With `together`, each process of torch.distributed brings its own share of
            the calibration images and all of the held-out ones.
        latency: gives the milliseconds of counts, for budget="latency".
        progress: called with (text, done, total).

    Raises:
        UserError: a network that cannot be traced, or fewer than 50 held-out images.
    """

    def __init__(
        self,
        net: nn.Module | Structure,
        calibration: Sequence[ExampleInputs],
        held_out: Iterable[Tensor | tuple[Tensor, Tensor]] | Callable[[nn.Module], float] | TaskInputs,
        *,
        budget: str = "macs",
        options: PruningOptions | None = None,
        latency: LatencyCost | None = None,
        progress: Progress | None = None,
    ) -> None:
        options, progress = options or PruningOptions(), progress or (lambda *_: None)
        dense = net.traced.net if isinstance(net, Structure) else net
        if not len(calibration) or not batch_of(calibration[0]):
            raise UserError("empty; at least one batch of images is needed", argument="calibration")
        self._norm_inputs = _for_norms(calibration, options.together)
        progress("tracing", 0, 1)
        with torch.no_grad(), untouched(dense), evaluation_mode(dense):
            self._judge = judge_of(dense, held_out)
            structure = analysed(net, calibration[0], options)
            self._shifts = shifts_of(dense, self._norm_inputs, together=False)
            calibrated = Calibration.of(calibration, together=options.together)
            priced = Calibration(images) if (images := self._judge.images()) else calibrated
            super().__init__(
                structure,
                calibration,
                priced=priced.first(PRICED_IMAGES // priced.world),
                gather=priced.gather,
                budget=budget,
                options=options,
                latency=latency,
                progress=progress,
                metric=metric_of(structure, calibrated, options),
            )

    def score(self, counts: Sequence[int]) -> Score:
        """Return the score of the thinned network, after its batch norms' statistics were shifted.

        They stay as they are if a single layer is cut. The layers before it have lost nothing, and new statistics alone
        would change the predictions by more than the cut.
        """
        net = self.thinned(counts)
        if sum(count < layer.full for count, layer in zip(counts, self.variables, strict=True)) > 1:
            apply_shifts(net, self._shifts, self._norm_inputs, _kept_channels(net), together=False)
        return self.judge(net)

    def judge(self, net: nn.Module) -> Score:
        """Return the score of a network in evaluation mode on the held-out images."""
        return self._judge.judge(net)


def _kept_channels(net: nn.Module) -> dict[str, list[int]]:
    """Return name of a batch norm -> the channels that a thinned network has left of it."""
    recipe, ending = steps_of(net)[-1].data, ".running_mean"
    return {name.removesuffix(ending): axes[0] for name, axes in recipe.kept.items() if name.endswith(ending)}


def _for_norms(batches: Sequence[ExampleInputs], together: bool) -> Sequence[ExampleInputs]:
    """Return the calibration inputs that shift the batch norms' statistics.

    Images of one size are one batch; other inputs stay in the batches they come in.
    """
    images = [batch for batch in batches if isinstance(batch, Tensor)]
    if len({batch.shape[1:] for batch in images}) == 1 and len(images) == len(batches):
        return [_first(images, NORM_IMAGES, together)]
    found, count = [], 0
    for batch in batches:
        found.append(batch)
        count += batch_of(batch)
        if count >= NORM_IMAGES:
            break
    return found


def _first(batches: Sequence[Tensor], count: int, together: bool) -> Tensor:
    """Return the first `count` images of the batches; with `together` of all processes', the same in each process."""
    share = count // world_size() if together else count
    found, images = [], 0
    for batch in batches:
        found.append(batch[: share - images])
        images += len(found[-1])
        if images >= share:
            break
    mine = torch.cat(found)
    return torch.cat(gather_objects(mine.cpu())).to(mine.device) if together else mine
