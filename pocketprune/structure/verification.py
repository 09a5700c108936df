"""Checks on the user's own network: groups hold what they claim, thinned networks compute what masked ones do."""

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
from pocketprune.graph.tracing import copied, operator_name
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.comparing import all_alike, near
from pocketprune.structure.group import ChannelGroup
from pocketprune.structure.propagation import Identified
from pocketprune.structure.propagation.reduction import SUMS

READERS = SUMS | {
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convolution",
    "linear",
    "matmul",
    "mm",
    "bmm",
    "mv",
    "dot",
    "addmm",
    "baddbmm",
    "einsum",
    "scaled_dot_product_attention",
}
"""Operators that sum over channels: what they read of a removed channel must count as zero."""


def masked_output(
    structure: Structure, inputs: Any, removed: np.ndarray, tensors: Mapping[str, Tensor] | None = None
) -> Any:
    """The dense network's output with every consumer's columns of the removed channels set to zero.

    Args:
        removed: boolean per class.
        tensors: replacements for the network's parameters and buffers, by name.
    """
    gone = torch.from_numpy(removed[structure.classes])
    readers = {layer.node for layer in (*structure.contractions, *structure.products)}
    originals: dict[fx.Node, Any] = {}

    def around(node: fx.Node, env: Env) -> None:
        for source, unmasked in originals.items():
            if source in env:
                env[source] = unmasked
        originals.clear()
        if operator_name(node) not in READERS or node not in readers:
            return
        for source in node.all_input_nodes:
            value = structure.values.get(source)
            if source.op == "call_function" and isinstance(value, Identified) and isinstance(env[source], Tensor):
                originals[source] = env[source]
                env[source] = _zeroed(env[source], value, gone)

    return run(structure.traced, inputs, tensors, before=around)


def _zeroed(numbers: Tensor, value: Identified, gone: Tensor) -> Tensor:
    """The value with its removed elements at zero."""
    for facet in value.facets:
        core = facet[tuple(slice(None) if facet.stride(d) else slice(0, 1) for d in range(facet.dim()))]
        lost = gone[core]
        if bool(lost.any()):
            if lost.shape[0] == value.shape[0] and value.shape[0] != numbers.shape[0]:
                lost = lost[:1]  # another batch size than the traced one
            numbers = numbers.masked_fill(lost.to(numbers.device), 0)
    return numbers


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


@dataclass(frozen=True)
class MaskedReaders:
    """Operators that read channels without a weight, once some channels are removed.

    Such an operator (a sum or norm over channels, an attention's scores) has no columns that could be set to zero, so
    the removed channels themselves are set to zero in what it reads.

    Attributes:
        values: the identities of what each operator reads of removed channels, by operator and source.
        gone: boolean per identity.
    """

    values: Mapping[tuple[fx.Node, fx.Node], Identified]
    gone: Tensor

    def __call__(self, reader: fx.Node, source: fx.Node, numbers: Tensor) -> Tensor:
        """Return a source's value as the reader sees it, removed channels at zero."""
        value = self.values.get((reader, source))
        return numbers if value is None else _zeroed(numbers, value, self.gone)

    @property
    def readers(self) -> set[fx.Node]:
        """The operators that see removed channels at zero."""
        return {reader for reader, _ in self.values}


def masked_readers(structure: Structure, removed: np.ndarray) -> MaskedReaders | None:
    """Return the operators without a weight that read removed channels; None where there are none.

    Args:
        removed: boolean per class.
    """
    gone = torch.from_numpy(removed[structure.classes])
    weighted = {layer.node for layer in structure.contractions}
    found: dict[tuple[fx.Node, fx.Node], Identified] = {}
    for node in structure.traced.call_nodes():
        if operator_name(node) in READERS and node not in weighted:
            for source in node.all_input_nodes:
                value = structure.values.get(source)
                if source.op != "call_function" or not isinstance(value, Identified):
                    continue
                if any(bool(gone[facet].any()) for facet in value.facets):
                    found[node, source] = value
    return MaskedReaders(found, gone) if found else None
