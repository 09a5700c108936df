"""Turn a network into a flat graph of ATen operators that can be run, analysed and rewritten.

`torch.export` sees modules, functionals and raw parameters alike; parameters and buffers are plain graph inputs.
In-place operators are replaced by their pure twins, so that a value, once computed, never changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.common.inputs import ExampleInputs, copied, split_inputs
from pocketprune.common.modes import evaluation_mode
from pocketprune.common.untouched import untouched
from pocketprune.common.wrappers import unwrapped
from pocketprune.graph.admission import (
    describe_input,
    first_line,
    refuse_others,
    refuse_untraceable,
    why_untraceable,
)
from pocketprune.graph.exporting import attempts, exported, register_dataclasses
from pocketprune.graph.hooks import Place, silent_hooks, watching_hooks
from pocketprune.graph.nodes import Env, concrete_shape, describe, module_path, node_shape, operator_name, tensors_in
from pocketprune.graph.purifying import clean, purify

__all__ = [
    "ExampleInputs",
    "TracedNet",
    "batch_of",
    "concrete_shape",
    "copied",
    "describe",
    "module_path",
    "node_shape",
    "operator_name",
    "split_inputs",
    "trace",
    "try_forward",
]


@dataclass
class TracedNet:
    """A traced network is a graph of pure ATen operators, in evaluation mode.

    Attributes:
        net: the network traced; never changed.
        graph: placeholders are parameters, buffers, constants and inputs; the last node is the output.
        tensor_names: placeholder -> name of its parameter or buffer (tied tensors share the first name).
        constants: placeholder -> tensor that is neither parameter nor buffer.
        input_nodes: the placeholders of the network's inputs, in the order of `flat_inputs`.
        example: the example inputs as traced (args, kwargs).
        out_spec: how the flat outputs are nested.
        samples: how many single inputs the example holds; 0: not found out yet.
        onlookers: where the network's forward hooks are that take no part in what it computes.
    """

    net: nn.Module
    graph: fx.Graph
    tensor_names: dict[fx.Node, str]
    constants: dict[fx.Node, Tensor]
    input_nodes: list[fx.Node]
    example: tuple[tuple[Any, ...], dict[str, Any]]
    out_spec: Any
    onlookers: frozenset[Place] = frozenset()
    samples: int = 0

    def named_tensors(self) -> dict[str, Tensor]:
        """Return every parameter and buffer of the network under each of its names."""
        tensors = dict(self.net.named_parameters(remove_duplicate=False))
        return tensors | dict(self.net.named_buffers(remove_duplicate=False))

    @property
    def device(self) -> torch.device:
        """Where the network's tensors are."""
        return device_of(self.net)

    def reader_count(self, name: str) -> int:
        """Return how many operators read a parameter or buffer, or another one in the same memory."""
        return self._reader_counts[self._memory[name]]

    @cached_property
    def _memory(self) -> dict[str, int]:
        """Name -> address of the memory that the tensor lies in; tensors that are views of one share it."""
        return {name: tensor.untyped_storage().data_ptr() for name, tensor in self.named_tensors().items()}

    @cached_property
    def _reader_counts(self) -> Counter[int]:
        """Address -> number of operators that read from it."""
        known = [(node, self.tensor_names[node]) for node in self.tensor_names]
        pairs = {(self._memory[name], user) for node, name in known for user in node.users}
        return Counter(address for address, _ in pairs)

    def bind(self, inputs: ExampleInputs, tensors: Mapping[str, Tensor] | None = None) -> Env:
        """Return the values of all placeholders for one run.

        Args:
            inputs: what the network takes.
            tensors: replacements for the network's own parameters and buffers, by name.

        Raises:
            UserError: the network takes another number of inputs.
        """
        own = self.named_tensors()
        values: Env = {node: own[name] for node, name in self.tensor_names.items()}
        if tensors:
            values |= {n: tensors[name] for n, name in self.tensor_names.items() if name in tensors}
        values |= self.constants
        args, kwargs = split_inputs(inputs)
        if kwargs.keys() == self.example[1].keys():
            kwargs = {name: kwargs[name] for name in self.example[1]}
        flat = pytree.tree_leaves((tuple(args), dict(kwargs)))
        if len(flat) != len(self.input_nodes):
            raise UserError(f"{len(flat)} values given, the network takes {len(self.input_nodes)}", argument="inputs")
        return values | dict(zip(self.input_nodes, flat, strict=True))

    @property
    def output_node(self) -> fx.Node:
        """The last node, which returns the outputs."""
        last: fx.Node = next(iter(reversed(self.graph.nodes)))
        return last

    def call_nodes(self) -> list[fx.Node]:
        """Return the computing nodes in forward order."""
        return [node for node in self.graph.nodes if node.op == "call_function"]


def batch_of(inputs: ExampleInputs) -> int:
    """Return the batch size: the length of the first axis of the first tensor that has axes; 1 if none has."""
    return next((len(t) for t in tensors_in(split_inputs(inputs)) if t.dim()), 1)


def trace(net: nn.Module, example_inputs: ExampleInputs) -> TracedNet:
    """Export `net` in evaluation mode, with a dynamic batch dimension where the network allows it.

    Args:
        net: the network, also in a wrapper of torch.compile or data parallelism; it stays as it is.
        example_inputs: inputs that it runs on.

    Raises:
        UserError: the example inputs do not fit, or the network cannot be traced (data-dependent control flow, ...).
    """
    refuse_others(net)
    net = unwrapped(net)
    refuse_untraceable(net)
    args, kwargs = split_inputs(example_inputs)
    with watching_hooks(net) as onlookers:
        try_forward(net, args, kwargs)
    failure: Exception | None = None
    with untouched(net), silent_hooks(net, onlookers):
        for attempt in attempts(args, kwargs):
            try:
                traced = _to_traced(net, *exported(net, *attempt))
                traced.onlookers = frozenset(onlookers)
                return traced
            except UserError:
                raise
            except Exception as error:  # torch.export raises anything a network's forward can raise
                failure = error
    raise UserError(f"network {type(net).__name__} cannot be traced: {why_untraceable(failure)}") from failure


def try_forward(net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run the network once, because its own error reads better than the exporter's.

    Raises:
        UserError: the inputs are empty, or the network fails on them.
    """
    shapes = ", ".join(describe_input(v) for v in pytree.tree_leaves((args, kwargs)))
    if any(v.dim() and not len(v) for v in tensors_in((args, kwargs))):
        raise UserError(f"example_inputs ({shapes}) are empty; a batch of one or more is accepted")
    try:
        with untouched(net), evaluation_mode(net), torch.no_grad():
            register_dataclasses(net(*copied(args), **copied(kwargs)))
    except Exception as error:  # a network's forward can raise anything
        raise UserError(
            f"example_inputs ({shapes}) do not fit network {type(net).__name__}: {first_line(error)}"
        ) from error


def _to_traced(net: nn.Module, program: torch.export.ExportedProgram, example: tuple[Any, Any]) -> TracedNet:
    if not purify(program.graph_module):
        program = program.run_decompositions({})
    signature, graph = program.graph_signature, program.graph
    clean(
        net,
        graph,
        {
            spec.arg.name
            for spec in signature.output_specs
            if spec.kind is not OutputKind.USER_OUTPUT and hasattr(spec.arg, "name")
        },
        len(signature.output_specs),
    )
    first_name = _canonical_names(net)
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = signature.inputs_to_lifted_tensor_constants
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    return TracedNet(
        net=net,
        graph=graph,
        tensor_names={n: first_name.get(names[n.name], names[n.name]) for n in placeholders if n.name in names},
        constants={n: program.constants[constants[n.name]] for n in placeholders if n.name in constants},
        input_nodes=[n for n in placeholders if n.name not in names and n.name not in constants],
        example=example,
        out_spec=program.call_spec.out_spec,
    )


def _canonical_names(net: nn.Module) -> dict[str, str]:
    """Return for every tensor's name the first name of the same tensor, so that tied tensors are one."""
    first: dict[int, str] = {}
    tensors = [*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False)]
    return {name: first.setdefault(id(tensor), name) for name, tensor in tensors}
