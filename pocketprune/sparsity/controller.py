"""The controller: carries out a policy for single weights inside any training loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from pocketprune.common.errors import UserError
from pocketprune.compression.scheduled import ScheduledController
from pocketprune.graph.tracing import ExampleInputs
from pocketprune.numerics.weight_patterns import Pattern, piece_count
from pocketprune.sparsity.choosing import masked_at, scores_of, spread_of
from pocketprune.sparsity.closed_form import eliminated, knows
from pocketprune.sparsity.layers import layers_by_rule
from pocketprune.sparsity.masks import WeightMasks
from pocketprune.sparsity.policy import THRESHOLDS, SparsityPolicy, WeightRule
from pocketprune.sparsity.statistics import LayerRow, WeightStatistics
from pocketprune.structure.channel_groups import Structure, analyse


def sparsify(
    net: nn.Module,
    policy: SparsityPolicy | Mapping[str, Any],
    example_inputs: ExampleInputs | None = None,
    batches: Iterable[Any] | None = None,
) -> SparsityController:
    """Prepare a network for masks on its weights; none is in place before the first `epoch_step` or `set_levels`.

    Args:
        net: the network that will be trained, without the wrappers of several processes or of a compiler.
        policy: what to do, or the dict that describes it.
        example_inputs: needed by the criterion "obs" alone, as are `batches`.
        batches: inputs, or pairs of inputs and labels, read anew whenever masks are chosen.

    Raises:
        UserError: a policy that cannot be carried out on the network, or inputs that it needs are missing.
    """
    policy = policy if isinstance(policy, SparsityPolicy) else SparsityPolicy.from_dict(policy)
    structure = None
    if any(rule.criterion == "obs" for rule in policy.rules):
        if example_inputs is None or batches is None:
            missing = "example_inputs" if example_inputs is None else "batches"
            raise UserError("none given; the criterion 'obs' needs inputs", argument=missing)
        if iter(batches) is batches:
            raise UserError("can be read only once; a list or a data loader is accepted", argument="batches")
        structure = analyse(net, example_inputs)
    return SparsityController(net, policy, structure, batches or ())


class SparsityController(ScheduledController):
    """Carries out a policy on one network; `sparsify` makes it.

    In one's own loop, with any optimizer:

        for epoch in range(epochs):
            controller.epoch_step()
            for images, labels in loader:
                ...
                loss.backward()
                controller.before_optimizer()
                optimizer.step()
                controller.step()

    The network is then a plain one with zeros; `pocketprune.save` writes it.

    Attributes:
        net: the network.
        policy: what is to be done.
        layers: the names of the layers that each rule takes.
        masks: what is masked at present.
        epoch: the epoch under way, from 0; -1 before the first.
        steps: training steps done.
        levels: the level of each rule at present.
    """

    def __init__(
        self, net: nn.Module, policy: SparsityPolicy, structure: Structure | None, batches: Iterable[Any]
    ) -> None:
        self.policy, self._structure, self._batches = policy, structure, batches
        self.layers = layers_by_rule(net, policy)
        self._spreads: dict[str, tuple[float, float]] = {}
        self.masks = WeightMasks(net, [name for names in self.layers for name in names], policy.mask)
        super().__init__(net, policy, self.masks, [rule.schedule for rule in policy.rules])

    def before_optimizer(self) -> None:
        """Come between the gradients and the optimizer's step: live masks let hidden weights be trained too."""
        if self.policy.mask == "live":
            self.masks.lift()

    def set_levels(self, levels: Sequence[float], optimizer: Optimizer | None = None) -> None:
        """Choose masks at given levels, one for each rule, whatever the schedules say."""
        self._update(list(zip(range(len(self.policy.rules)), levels, strict=True)), optimizer)

    def impose(self, masked: Mapping[str, Tensor], inputs: Sequence[ExampleInputs] = ()) -> None:
        """Mask just these weights, by layer, for good; refit the others in closed form where inputs are given."""
        fits = {}
        if inputs:
            structure = self._structure or analyse(self.net, inputs[0])
            known = {name: mask for name, mask in masked.items() if name in knows(structure)}
            fits = eliminated(structure, known, inputs, seed=self.policy.seed).tensors
        self.masks.set(masked)
        self._write(fits)
        self.freeze()

    def detach(self) -> None:
        """Take off all masks: the network gets its hidden numbers back, and its parameters lose their hooks."""
        self.masks.detach()

    def statistics(self) -> WeightStatistics:
        """Return what is masked at present."""
        rows = [
            LayerRow(name, mask.numel(), int(mask.sum()), self.policy.rules[number].pattern)
            for number, names in enumerate(self.layers)
            for name, mask in ((name, self.masks.masked[name]) for name in names)
        ]
        return WeightStatistics(tuple(rows))

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs beside the network's own state: tensors and plain values."""
        return {
            **self._progress(),
            "spreads": {name: list(spread) for name, spread in self._spreads.items()},
            "masks": self.masks.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned.

        Raises:
            UserError: it is of another policy.
        """
        self._load_progress(state)
        self._spreads = {name: (start, deviation) for name, (start, deviation) in state["spreads"].items()}
        self.masks.load_state_dict(state["masks"])

    def _settle(self) -> None:
        """Put zeros back, and hide what live masks have trained."""
        self.masks.settle()

    def _update(self, due: Sequence[tuple[int, float]], optimizer: Optimizer | None) -> None:
        """Choose the masks of some rules, given by number, at their levels."""
        if not due:
            return
        fits: dict[str, Tensor] = {}
        with self.masks.lifted():
            masked = {name: mask for number, level in due for name, mask in self._chosen(number, level).items()}
            counts = {
                name: _pieces(self.policy.rules[number], masked[name])
                for number, _ in due
                for name in self._closed(number)
            }
            if counts and self._structure is not None:
                found = eliminated(self._structure, counts, self._inputs(), seed=self.policy.seed)
                masked, fits = masked | found.masked, found.tensors
        self.masks.set(masked)
        if fits:
            self._write(fits)
        for number, level in due:
            self.levels[number] = level
        if optimizer is not None:
            self.masks.enforce_on(optimizer)

    def _chosen(self, number: int, level: float) -> dict[str, Tensor]:
        rule = self.policy.rules[number]
        weights = self.masks.weights()
        own = {name: weights[name] for name in self.layers[number]}
        for name in own if rule.ranking in THRESHOLDS else ():
            if name not in self._spreads:
                self._spreads[name] = spread_of(rule, own[name])
        scores = scores_of(rule, own, self.policy.seed + self.steps)
        masked = {name: self.masks.masked[name].to(score.device) for name, score in scores.items()}
        return masked_at(rule, scores, level, self._spreads, masked)

    def _closed(self, number: int) -> list[str]:
        """Return the layers of a rule that the closed form treats."""
        if self._structure is None or self.policy.rules[number].criterion != "obs":
            return []
        known = knows(self._structure)
        return [name for name in self.layers[number] if name in known]

    def _inputs(self) -> list[Any]:
        return [batch if isinstance(batch, (Tensor, Mapping)) else batch[0] for batch in self._batches]

    def _write(self, tensors: Mapping[str, Tensor]) -> None:
        """Give the network refitted numbers, by tensor name."""
        own = dict(self.net.named_parameters(remove_duplicate=False)) | dict(self.net.named_buffers())
        for name, tensor in tensors.items():
            own[name].data.copy_(tensor)
        self.masks.enforce()


def _pieces(rule: WeightRule, masked: Tensor) -> tuple[Pattern, int]:
    """Return the pattern of a rule, and how many of its pieces a mask has."""
    shape = rule.shape
    return shape, piece_count(float(masked.float().mean()), shape.pieces(masked.shape), shape)
