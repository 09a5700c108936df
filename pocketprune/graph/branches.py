"""Additions that a layer's output runs into: where it can make up for what the other operand has lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from pocketprune.graph.tracing import TracedNet, node_shape, operator_name

_PASSING = {"dropout", "clone", "contiguous", "detach", "alias"}
_MIN_SCALE = 1e-3


@dataclass(frozen=True)
class Branch:
    """A layer whose output, scaled per channel by the norms in `norms`, is added to `other`."""

    other: fx.Node
    norms: tuple[fx.Node, ...]
    tensor_names: Mapping[fx.Node, str]

    def in_layer_units(self, drift: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """What the layer must write more so that the sum is what it was; dead channels write nothing more."""
        for norm in self.norms:
            scale = norm_scale(norm, self.tensor_names, tensors)
            alive = scale.abs() > _MIN_SCALE * scale.abs().max()
            inverse = torch.where(alive, 1 / scale, torch.zeros_like(scale))
            drift = drift * inverse.to(drift.dtype).view(-1, *[1] * (drift.dim() - 2))
        return drift


def norm_scale(norm: fx.Node, names: Mapping[fx.Node, str], tensors: Mapping[str, Tensor]) -> Tensor:
    """Per-channel factor gamma / sqrt(var + eps) of a batch norm in evaluation mode, float64."""
    gamma, _, _, var = [tensors[names[a]].double() if isinstance(a, fx.Node) else None for a in norm.args[1:5]]
    eps = norm.args[7] if operator_name(norm) == "batch_norm" else norm.args[6]
    inverse = (var + eps).rsqrt()
    return inverse if gamma is None else gamma * inverse


def following_norm(node: fx.Node) -> fx.Node | None:
    """The batch norm that alone reads a node, with running statistics that it uses and tensors of its own."""
    user = _only_user(node)
    name = operator_name(user) if user is not None else ""
    if name not in ("batch_norm", "_native_batch_norm_legit_no_training") or user.args[0] is not node:
        return None
    own = all(a is None or a.op == "placeholder" for a in user.args[1:5]) and user.args[4] is not None
    return user if own and not (name == "batch_norm" and user.args[5]) else None


def find_branches(traced: TracedNet, layers: Sequence[fx.Node]) -> dict[fx.Node, Branch]:
    """For every addition the one layer, the largest that feeds it directly, that makes up for the other operand."""
    claims: dict[fx.Node, list[tuple[int, fx.Node, Branch]]] = {}
    for layer in layers:
        if (found := _addition_after(traced, layer)) is not None:
            addition, branch = found
            weight = node_shape(layer.args[1]) if isinstance(layer.args[1], fx.Node) else ()
            claims.setdefault(addition, []).append((torch.Size(weight).numel(), layer, branch))
    return {layer: branch for found in claims.values() for _, layer, branch in [max(found, key=lambda c: c[0])]}


def _addition_after(traced: TracedNet, layer: fx.Node) -> tuple[fx.Node, Branch] | None:
    norms: list[fx.Node] = []
    node = layer
    while (user := _only_user(node)) is not None:
        if user is (norm := following_norm(node)):
            norms.append(norm)
        elif operator_name(user) == "add" and len(user.args) == 2 and not user.kwargs:
            other = user.args[1] if user.args[0] is node else user.args[0]
            fits = (
                isinstance(other, fx.Node)
                and other is not node
                and other.op == "call_function"
                and node_shape(other) == node_shape(node)
                and layer not in _ancestors(other)
            )
            return (user, Branch(other, tuple(norms), traced.tensor_names)) if fits else None
        elif operator_name(user) not in _PASSING and not _is_first_item(user):
            return None
        node = user
    return None


def _is_first_item(node: fx.Node) -> bool:
    return operator_name(node) == "getitem" and node.args[1] == 0


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
    """The computing nodes in an order in which every branch's other operand comes before the layer it corrects."""
    order = traced.call_nodes()
    for layer, branch in branches.items():
        place = order.index(layer)
        needed = _ancestors(branch.other)
        late = [n for n in order[place + 1 :] if n in needed]
        rest = [n for n in order[place:] if n not in set(late)]
        order = order[:place] + late + rest
    return order
