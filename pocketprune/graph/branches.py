"""Find the additions that follow a layer, where the layer can correct the drift of the other operand.

In a residual block the shortcut's value in the pruned network is no longer that of the dense network. The difference,
dense minus pruned, is its drift. A layer of the block that is refitted to write its dense output plus this drift
restores the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from pocketprune.graph.nodes import arguments, node_shape, operator_name
from pocketprune.graph.tracing import TracedNet

_PASSING = {"dropout", "clone", "contiguous", "detach", "alias"}
_MIN_SCALE = 1e-3

TRACKED_NORMS = frozenset(("batch_norm", "_native_batch_norm_legit_no_training"))
"""Operators that normalise by running statistics in evaluation mode: their arguments 3 and 4, mean and variance."""


@dataclass(frozen=True)
class Branch:
    """One layer's output is scaled per channel by the batch norms and then added to another value.

    Attributes:
        other: the value that it is added to.
        norms: the batch norms between the layer and the addition, in forward order.
        tensor_names: placeholder -> name of its parameter or buffer.
    """

    other: fx.Node
    norms: tuple[fx.Node, ...]
    tensor_names: Mapping[fx.Node, str]

    def in_layer_units(self, drift: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the drift of `other` in the units of the layer's own output.

        Adding the result to the layer's output adds `drift` to the sum. Channels that the norms scale to almost
        nothing cannot correct anything; the result is zero there.

        Args:
            drift: dense minus pruned value of `other`, (batch, channels, ...).
            tensors: the network's parameters and buffers by name.
        """
        for norm in self.norms:
            scale = norm_scale(norm, self.tensor_names, tensors)
            alive = scale.abs() > _MIN_SCALE * scale.abs().max()
            inverse = torch.where(alive, 1 / scale, torch.zeros_like(scale))
            drift = drift * inverse.to(drift.dtype).view(-1, *[1] * (drift.dim() - 2))
        return drift


def norm_scale(norm: fx.Node, names: Mapping[fx.Node, str], tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the per-channel factor gamma / sqrt(var + eps) of a batch norm in evaluation mode, float64.

    Args:
        norm: the batch norm.
        names: placeholder -> name of its parameter or buffer.
        tensors: the network's parameters and buffers by name.
    """
    args = arguments(norm)
    gamma, var = args[1], args[4]
    eps = args[7] if operator_name(norm) == "batch_norm" else args[6]
    inverse: Tensor = (tensors[names[var]].double() + eps).rsqrt()
    return tensors[names[gamma]].double() * inverse if isinstance(gamma, fx.Node) else inverse


def following_norm(node: fx.Node) -> fx.Node | None:
    """Return the batch norm that alone reads a node, with running statistics that it uses and tensors of its own."""
    user = _only_user(node)
    name = operator_name(user) if user is not None else ""
    if user is None or name not in TRACKED_NORMS or user.args[0] is not node:
        return None
    sources = [a for a in user.args[1:5] if isinstance(a, fx.Node)]
    own = all(source.op == "placeholder" for source in sources) and isinstance(user.args[4], fx.Node)
    return user if own and not (name == "batch_norm" and user.args[5]) else None


def find_branches(traced: TracedNet, layers: Sequence[fx.Node]) -> dict[fx.Node, Branch]:
    """Choose the layers that correct the drift of an addition's other operand.

    Each addition is corrected by one layer. Among the layers whose output runs into it, this is the one with the
    largest weight.

    Args:
        traced: the network.
        layers: the layers that may be chosen.

    Returns:
        layer -> the addition's other operand, and the norms in between.
    """
    claims: dict[fx.Node, list[tuple[int, fx.Node, Branch]]] = {}
    for layer in layers:
        if (found := _addition_after(traced, layer)) is not None:
            addition, branch = found
            weight = node_shape(layer.args[1]) if isinstance(layer.args[1], fx.Node) else ()
            claims.setdefault(addition, []).append((torch.Size(weight).numel(), layer, branch))
    return {layer: branch for found in claims.values() for _, layer, branch in [max(found, key=lambda c: c[0])]}


def _addition_after(traced: TracedNet, layer: fx.Node) -> tuple[fx.Node, Branch] | None:
    """Follow a layer's output while one node alone reads it, and return the addition that it runs into, if any."""
    norms: list[fx.Node] = []
    node = layer
    while (user := _only_user(node)) is not None:
        if user is (norm := following_norm(node)):
            norms.append(norm)
        elif operator_name(user) == "add" and len(user.args) == 2 and not user.kwargs:
            other = user.args[1] if user.args[0] is node else user.args[0]
            if isinstance(other, fx.Node) and _can_be_corrected(other, node, layer):
                return user, Branch(other, tuple(norms), traced.tensor_names)
            return None
        elif operator_name(user) not in _PASSING and not _is_first_item(user):
            return None
        node = user
    return None


def _can_be_corrected(other: fx.Node, summand: fx.Node, layer: fx.Node) -> bool:
    """Return whether `other` is a computed value like `summand`, but not computed from the layer itself."""
    return (
        other is not summand
        and other.op == "call_function"
        and node_shape(other) == node_shape(summand)
        and layer not in _ancestors(other)
    )


def _is_first_item(node: fx.Node) -> bool:
    return operator_name(node) == "getitem" and bool(node.args[1] == 0)


def _only_user(node: fx.Node) -> fx.Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and users[0].op == "call_function" else None


def _ancestors(node: fx.Node) -> set[fx.Node]:
    seen, stack = {node}, [node]
    while stack:
        for source in stack.pop().all_input_nodes:
            if source not in seen:
                seen.add(source)
                stack.append(source)
    return seen


def hoisted(traced: TracedNet, branches: Mapping[fx.Node, Branch]) -> list[fx.Node]:
    """Reorder the computing nodes so that each branch's other operand is known when its layer is reached.

    Args:
        traced: the network.
        branches: layer -> its branch, as `find_branches` returns them.

    Returns:
        All computing nodes; every node still comes after the nodes that it reads.
    """
    order = traced.call_nodes()
    for layer, branch in branches.items():
        place = order.index(layer)
        needed = _ancestors(branch.other)
        late = [n for n in order[place + 1 :] if n in needed]
        rest = [n for n in order[place:] if n not in set(late)]
        order = order[:place] + late + rest
    return order
