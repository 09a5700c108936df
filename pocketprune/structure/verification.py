"""Checks on the user's own network: groups hold what they claim, another form of it computes the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from pocketprune.common.modes import evaluation_mode
from pocketprune.graph.admission import refuse_undefined
from pocketprune.graph.execution import Env, run
from pocketprune.graph.exporting import silenced
from pocketprune.graph.nodes import tensors_in
from pocketprune.graph.tracing import copied
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.comparing import all_alike, near
from pocketprune.structure.group import ChannelGroup


@dataclass(frozen=True)
class _Permutation:
    """The network's tensors, and the constants its graph makes, with the channels of some groups in another order."""

    tensors: dict[str, Tensor]
    sources: dict[fx.Node, dict[int, Tensor]]

    def run(self, structure: Structure, inputs: Any) -> list[Tensor]:
        """The network's output with them."""
        done: set[fx.Node] = set()

        def before(node: fx.Node, env: Env) -> None:
            for source in node.all_input_nodes:
                if source in self.sources and source not in done:
                    done.add(source)
                    for axis, index in self.sources[source].items():
                        env[source] = env[source].index_select(axis, index.to(env[source].device))

        return tensors_in(run(structure.traced, inputs, self.tensors, before=before))


def permuted(structure: Structure, groups: Sequence[ChannelGroup], generator: torch.Generator) -> _Permutation:
    """Shuffle the channels of these groups, all slices of a channel alike."""
    parts = structure.parts
    forms = np.zeros(int(structure.classes.max()) + 1, dtype=np.uint64)
    np.add.at(forms, structure.classes, parts)
    target = np.arange(len(forms))
    for group in groups:
        members = np.array(group.classes)
        for form in np.unique(forms[members]):  # channels of one form can change places
            alike = members[forms[members] == form]
            target[alike] = alike[torch.randperm(len(alike), generator=generator).numpy()]
    tensors = {name: t.detach() for name, t in structure.traced.named_tensors().items()}
    for first, size, name, axis in structure.axes:
        index = _new_order(structure.classes[first : first + size], parts[first : first + size], target)
        if index is not None:
            tensors[name] = tensors[name].index_select(axis, index.to(tensors[name].device))
    sources: dict[fx.Node, dict[int, Tensor]] = {}
    for first, size, node, axis in structure.made:
        index = _new_order(structure.classes[first : first + size], parts[first : first + size], target)
        if index is not None:
            sources.setdefault(node, {})[axis] = index
    return _Permutation(tensors, sources)


def _new_order(labels: np.ndarray, parts: np.ndarray, target: np.ndarray) -> Tensor | None:
    """Which index comes to each place when classes take each other's places; None where nothing moves.

    Args:
        labels, parts: class and role of every index of one axis.
    """
    wanted = target[labels]
    if not (wanted != labels).any():
        return None
    have, want = np.lexsort((parts, labels)), np.lexsort((parts, wanted))
    index = np.empty(len(labels), dtype=np.int64)
    index[want] = have
    return torch.from_numpy(index)


def check_groups(structure: Structure, inputs: Any, *, seed: int = 0, tolerance: float = 1e-3) -> None:
    """Permute the channels of every prunable group and require an unchanged output.

    A group that fails is marked as one that stays, with that reason. All groups are tried at once; only if that
    fails are they tried in halves, down to the ones at fault.
    """
    prunable = [g for g in structure.groups if g.prunable]
    if not prunable:
        return
    refuse_undefined(structure.traced.net)  # of outputs that are no numbers all are alike
    generator = torch.Generator().manual_seed(seed)
    reference = tensors_in(run(structure.traced, inputs))

    def failing(groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
        moved = permuted(structure, groups, generator).run(structure, inputs)
        if all(near(a, b, tolerance) for a, b in zip(reference, moved, strict=True)):
            return []
        half = len(groups) // 2
        return list(groups) if half == 0 else failing(groups[:half]) + failing(groups[half:])

    bad = {g.name for g in failing(prunable)}
    structure.groups[:] = [
        replace(g, prunable=False, reason="permuting its channels changed the network's output") if g.name in bad else g
        for g in structure.groups
    ]


TRIALS = 2


def random_numbers(structure: Structure) -> Iterator[dict[str, Tensor]]:
    """Numbers for the network's parameters and floating-point buffers at which every channel matters, several times.

    A network may hide its channels (a layer scale near zero, a norm that starts at zero): what is right at its own
    numbers may be wrong after the next training step, so forms of a network are compared at these. The weights of
    every other set are positive, so that what a narrow ReLU stops once, it lets pass another time.
    """
    for trial in range(TRIALS):
        yield _random_numbers(structure, torch.Generator().manual_seed(trial), positive=trial % 2 == 1)


def _random_numbers(structure: Structure, generator: torch.Generator, positive: bool) -> dict[str, Tensor]:
    net = structure.traced.net
    tables = {
        id(t)
        for m in net.modules()
        if not isinstance(m, nn.modules.batchnorm._NormBase)
        for t in m.buffers(recurse=False)
    }

    def number(tensor: Tensor) -> Tensor:
        if id(tensor) in tables or tensor.dim() < 2:
            uniform = (torch.rand(tensor.shape, generator=generator) + 0.5).to(tensor)
            return tensor * uniform if id(tensor) in tables else uniform  # zeros, signs, infinities of a mask stay
        normal: Tensor = torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5
        return (normal.abs() if positive else normal).to(tensor)

    return {
        name: number(tensor).detach()
        for name, tensor in (*net.named_parameters(), *net.named_buffers())
        if tensor.is_floating_point()
    }


def same_output(net: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], expected: Any) -> bool:
    """Whether a network in evaluation mode gives this output."""
    made = _output(net, args, kwargs)
    return made is not None and all_alike(expected, made, 1e-4)


def same_shapes(net: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], expected: Any) -> bool:
    """Whether a network in evaluation mode gives an output of these shapes."""
    made = _output(net, args, kwargs)
    return made is not None and [t.shape for t in tensors_in(made)] == [t.shape for t in tensors_in(expected)]


def _output(net: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A network's output in evaluation mode, the inputs left as they are; None where it fails."""
    with torch.no_grad(), evaluation_mode(net), silenced():  # a graph module prints what it fails at
        try:
            return net(*copied(args), **copied(dict(kwargs)))
        except Exception:  # the network's own code may fail in any way once its widths no longer fit
            return None
