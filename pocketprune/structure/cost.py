"""What a network costs: multiply-adds and parameters.

MACs are multiply-adds per single input (one multiply and one add count 1) of the layers that multiply by weights or
multiply activations: convolutions, linear and recurrent layers, products, distances, attention. Norms, activations,
pooling and resizing count 0. What is neither counted nor known to count 0 is named in a warning.
"""

from __future__ import annotations

import warnings
from collections import Counter

from torch import fx, nn

from pocketprune.graph.admission import refuse_others
from pocketprune.graph.tracing import ExampleInputs, TracedNet, operator_name
from pocketprune.graph.tracing import trace as trace_net
from pocketprune.structure.channel_groups import Structure
from pocketprune.structure.macs import MACS, is_uncounted
from pocketprune.structure.samples import sample_count


def node_macs(traced: TracedNet | Structure, node: fx.Node) -> int:
    """MACs of one node per single input."""
    rule = MACS.get(operator_name(node))
    traced = traced.traced if isinstance(traced, Structure) else traced
    return rule(node) // sample_count(traced) if rule is not None else 0


def traced_macs(traced: TracedNet) -> int:
    """MACs of a traced network per single input."""
    return sum(node_macs(traced, node) for node in traced.call_nodes())


def uncounted_operators(traced: TracedNet) -> Counter[str]:
    """Operators that compute something no formula counts -> how often each occurs."""
    return Counter(operator_name(node) for node in traced.call_nodes() if is_uncounted(node))


def count_macs(net: nn.Module, example_inputs: ExampleInputs) -> int:
    """Multiply-adds of one forward pass per single input (see the module's head for what counts).

    Warns, in one line, of operators that no formula counts.

    Raises:
        UserError: the network cannot be traced.
    """
    traced = trace_net(net, example_inputs)
    if missing := uncounted_operators(traced):
        listed = ", ".join(f"{name} ({times})" if times > 1 else name for name, times in missing.items())
        warnings.warn(f"count_macs: not counted in {type(net).__name__}: {listed}", stacklevel=2)
    return traced_macs(traced)


def count_params(net: nn.Module) -> int:
    """Number of parameters, tied ones once."""
    refuse_others(net)
    return sum(p.numel() for p in net.parameters())
