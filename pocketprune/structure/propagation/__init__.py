"""Carrying channel identities through a traced network."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx

from ..tracing import TracedNet, operator_name
from . import contraction, elementwise, movement, reduction
from .rules import Contraction, Rule, State, identified_in, opaque_result
from .values import Identified, Identities, Slice, varying

__all__ = ["RULES", "Contraction", "Identified", "Identities", "Slice", "State", "propagate", "varying"]


def _table(names: Iterable[str], rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names, rule)


RULES: dict[str, Rule] = {
    **_table(movement.MOVEMENT, movement.move),
    **_table(("pad", "constant_pad_nd"), movement.pad),
    **_table(("cat", "concat", "concatenate", "stack"), movement.concatenate),
    **_table(elementwise.ELEMENTWISE, elementwise.elementwise),
    **_table(("batch_norm", "instance_norm", "_native_batch_norm_legit_no_training", "native_batch_norm",
              "_native_batch_norm_legit", "cudnn_batch_norm", "prelu", "_prelu_kernel"), elementwise.batch_norm),
    **_table(("layer_norm", "native_layer_norm", "rms_norm"), elementwise.layer_norm),
    **_table(("group_norm", "native_group_norm"), elementwise.group_norm),
    "glu": elementwise.gated_halves,
    **_table(reduction.REDUCTION, reduction.reduction),
    **_table(reduction.SPATIAL, reduction.spatial),
    **_table(reduction.ALONG_ONE_AXIS, reduction.along_one_axis),
    **_table(("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d",
              "conv_transpose3d"), contraction.convolution),
    "linear": contraction.linear,
    **_table(("matmul", "mm", "bmm"), contraction.matmul),
    "addmm": contraction.addmm,
    "einsum": contraction.einsum,
    "scaled_dot_product_attention": contraction.attention,
    "embedding": contraction.embedding,
}
"""Operator name -> rule. A new operator is one line here and, at most, one function."""


def propagate(traced: TracedNet, attention: str = "heads", allow_inexact: bool = False
              ) -> tuple[State, dict[fx.Node, Any]]:
    """Run the graph once on identity tensors.

    Returns:
        The state (identities, contractions) and every node's value: `Identified`, a tuple of them, or a number.
    """
    state = State(Identities(), attention, allow_inexact, tensor_of_node=dict(traced.tensor_names))
    values = _placeholders(traced, state)
    for node in traced.call_nodes():
        values[node] = _value(state, node, values)
    for value in identified_in(fx.map_arg(traced.output_node.args, values.__getitem__)):
        for facet in value.facets:
            state.identities.pin(facet, "network output")
    return state, values


def _placeholders(traced: TracedNet, state: State) -> dict[fx.Node, Any]:
    values: dict[fx.Node, Any] = {}
    own, facets = traced.named_tensors(), {}
    buffers = {name for name, _ in traced.net.named_buffers(remove_duplicate=False)}
    for node, name in traced.tensor_names.items():
        if name not in facets:
            facets[name] = state.identities.of_tensor(name, own[name].shape)
        values[node] = Identified(tuple(own[name].shape), facets[name], own[name] if name in buffers else None)
    for node, tensor in traced.constants.items():
        values[node] = Identified(tuple(tensor.shape), [], tensor)
    for node in traced.input_nodes:
        values[node] = opaque_result(node)
    return values


def _value(state: State, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
    args, kwargs = fx.map_arg(node.args, values.__getitem__), fx.map_arg(node.kwargs, values.__getitem__)
    name, tensors = operator_name(node), identified_in((args, kwargs))
    if name == "getitem":
        return args[0][args[1]]
    if name in ("sym_size", "size"):
        return args[0].shape[args[1]]
    if not tensors:
        return _made(state, node, args, kwargs)
    if name.startswith("new_"):
        return _uniform(state, node) if name != "new_empty" else opaque_result(node)
    rule = RULES.get(name)
    if rule is None:
        return state.opaque(node, tensors, "this operator is not known to keep channels apart")
    return rule(state, node, args, kwargs)


def _uniform(state: State, node: fx.Node) -> Identified:
    result: Identified = opaque_result(node)
    result.facets = state.identities.generated(result.shape)
    return result


def _made(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A value made from no tensor: a number, a uniform constant (free to shrink), or one that varies (stays)."""
    made = node.target(*args, **kwargs)
    if not isinstance(made, Tensor):
        return made
    if made.numel() > 1 and bool((made == made.reshape(-1)[0]).all()) and not torch.is_complex(made):
        return Identified(tuple(made.shape), state.identities.generated(made.shape), made)
    return Identified(tuple(made.shape), [], made)
