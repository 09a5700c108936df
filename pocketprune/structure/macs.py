"""Multiply-adds of one operator, by formula, at the traced batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import fx

from pocketprune.graph.nodes import arguments, node_shape, operator_name
from pocketprune.structure.propagation import RULES
from pocketprune.structure.propagation.rules import argument

Shape = tuple[int, ...]


def _shape(node: fx.Node, position: int) -> Shape:
    return node_shape(arguments(node)[position])


def _convolution(node: fx.Node) -> int:
    if operator_name(node) == "convolution" and argument(node, node.args, node.kwargs, "transposed"):
        return _transposed(node)
    return math.prod(node_shape(node)) * math.prod(_shape(node, 1)[1:])


def _transposed(node: fx.Node) -> int:
    return math.prod(_shape(node, 0)) * math.prod(_shape(node, 1)[1:])


def _linear(node: fx.Node) -> int:
    return math.prod(_shape(node, 0)) * (_shape(node, 1)[0] if len(_shape(node, 1)) > 1 else 1)


def _matmul(node: fx.Node) -> int:
    return math.prod(node_shape(node)) * _shape(node, 0)[-1]


def _added_product(node: fx.Node) -> int:
    return math.prod(node_shape(node)) * _shape(node, 1)[-1]


def _added_batches(node: fx.Node) -> int:
    """addbmm: the products of all matrices of a batch, added up."""
    return math.prod(_shape(node, 1)) * _shape(node, 2)[-1]


def _inner(node: fx.Node) -> int:
    a, b = _shape(node, 0), _shape(node, 1)
    return math.prod(node_shape(node)) * (a[-1] if a and b else 1)


def _vectors(node: fx.Node) -> int:
    """linalg_vecdot: one product for every element of the broadcast arguments."""
    dim: int = argument(node, node.args, node.kwargs, "dim")
    return math.prod(node_shape(node)) * _shape(node, 0)[dim]


def _tensordot(node: fx.Node) -> int:
    summed: int = math.prod(_shape(node, 0)[d] for d in arguments(node)[2])
    return math.prod(node_shape(node)) * summed


def _distances(node: fx.Node) -> int:
    """cdist: one difference, raised to its power and added, for every pair of points and every coordinate."""
    return math.prod(node_shape(node)) * _shape(node, 0)[-1]


def _bilinear(node: fx.Node) -> int:
    """x1 W x2: first the product of x1 and W, then that of the result and x2."""
    outputs, first, second = _shape(node, 2)
    return math.prod(node_shape(node)[:-1]) * outputs * second * (first + 1)


def _attention(node: fx.Node) -> int:
    *batch, queries, width = _shape(node, 0)
    keys, values = _shape(node, 1)[-2], _shape(node, 2)[-1]
    return math.prod(batch) * queries * keys * (width + values)


def _recurrent(node: fx.Node) -> int:
    """An LSTM, GRU or RNN: every step of every sequence multiplies by every matrix of every layer and direction."""
    matrices = [node_shape(p) for p in argument(node, node.args, node.kwargs, "params")]
    return math.prod(_shape(node, 0)[:-1]) * sum(math.prod(shape) for shape in matrices if len(shape) == 2)


def _cell(node: fx.Node) -> int:
    """One step of a recurrent layer."""
    matrices = [node_shape(argument(node, node.args, node.kwargs, name)) for name in ("w_ih", "w_hh")]
    return math.prod(_shape(node, 0)[:-1]) * sum(math.prod(shape) for shape in matrices)


def _chain(node: fx.Node) -> int:
    """linalg_multi_dot: the cheapest order of the products, which is the one that is taken."""
    shapes = [node_shape(n) for n in arguments(node)[0]]
    sizes = [1 if len(shapes[0]) == 1 else shapes[0][0], *[shape[0] for shape in shapes[1:]], shapes[-1][-1]]
    if len(shapes[-1]) == 1:
        sizes[-1] = 1
    count = len(shapes)
    least = [[0] * count for _ in range(count)]
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            least[i][j] = min(
                least[i][k] + least[k + 1][j] + sizes[i] * sizes[k + 1] * sizes[j + 1] for k in range(i, j)
            )
    return least[0][-1]


Label = str | int


def _einsum(node: fx.Node) -> int:
    """The operands two by two, in the order given or, where none is, from the left; one alone only moves or adds."""
    terms, arrow, out = arguments(node)[0].replace(" ", "").partition("->")
    operands = [
        _labels(term, node_shape(operand)) for term, operand in zip(terms.split(","), arguments(node)[1], strict=True)
    ]
    sizes: dict[Label, int] = {}
    for operand, labels in zip(arguments(node)[1], operands, strict=True):
        for label, size in zip(labels, node_shape(operand), strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    every = [label for labels in operands for label in labels]
    wanted = set(out) if arrow else {label for label in every if every.count(label) == 1}
    wanted |= {label for label in every if isinstance(label, int)}
    path = list(argument(node, node.args, node.kwargs, "path") or [])
    left, total = [set(labels) for labels in operands], 0
    while len(left) > 1:
        places = sorted((path.pop(0), path.pop(0)) if path else (0, 1), reverse=True)
        both = left.pop(places[0]) | left.pop(places[1])
        total += math.prod(sizes[label] for label in both)
        made = both & wanted.union(*left)
        left = [*left, made] if argument(node, node.args, node.kwargs, "path") else [made, *left]
    return total


def _labels(term: str, shape: Sequence[int]) -> list[Label]:
    """The label of every axis of an operand; axes behind the dots are counted from the last."""
    before, _, after = term.partition("...")
    hidden = len(shape) - len(before + after)
    return [*before, *range(-hidden, 0), *after]


MACS: dict[str, Callable[[fx.Node], int]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    "linear": _linear,
    **dict.fromkeys(("matmul", "mm", "bmm", "mv", "dot", "vdot"), _matmul),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _added_product),
    "addbmm": _added_batches,
    "inner": _inner,
    "linalg_vecdot": _vectors,
    "tensordot": _tensordot,
    **dict.fromkeys(("cdist", "_cdist_forward", "_euclidean_dist"), _distances),
    "bilinear": _bilinear,
    **dict.fromkeys(
        ("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu"),
        _attention,
    ),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
    **dict.fromkeys(("linalg_multi_dot", "chain_matmul"), _chain),
    "einsum": _einsum,
}
"""Operator name -> MACs of one node at the traced batch."""

FREE = frozenset(name.partition(".")[0] for name in RULES) | {
    "getitem",
    "one_hot",
    "meshgrid",
    "nonzero",
    "searchsorted",
    "bucketize",
    "affine_grid_generator",
    "scatter",
    "masked_scatter",
    "index_put",
    "max_unpool2d",
    "fold",
    "col2im",
    "dequantize",
    "requantize",
}
"""Operators that count nothing: they move, compare, pool, normalise, or work element by element."""


def is_uncounted(node: fx.Node) -> bool:
    """Whether an operator computes something from tensors that no formula here counts."""
    name = operator_name(node)
    known = name in MACS or name in FREE or name.startswith(("sym_", "new_", "_assert"))
    return not known and any("val" in n.meta and hasattr(n.meta["val"], "shape") for n in node.all_input_nodes)
