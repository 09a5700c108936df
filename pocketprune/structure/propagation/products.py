"""Products of two values: matmul, einsum, attention. One of them may be a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from pocketprune.graph.nodes import arguments
from pocketprune.structure.propagation.contraction import meet, weight_name
from pocketprune.structure.propagation.elementwise import unite_elementwise
from pocketprune.structure.propagation.rules import (
    ConstantSum,
    Contraction,
    State,
    argument,
    identified_in,
    opaque_result,
)
from pocketprune.structure.propagation.values import Identified, along_axis, varying, vector

_LETTERS = "abcdefgh"


@dataclass(frozen=True)
class _Side:
    """One operand of a product: its value, the label of each of its axes and its node."""

    value: Identified
    labels: str
    node: fx.Node


def product(state: State, node: fx.Node, sides: tuple[_Side, _Side], out: str) -> Identified:
    """A product of two labelled values: labels not in `out` are summed, labels in all three are batch."""
    result: Identified = opaque_result(node)
    found = _meet_labels(state, node, sides, out)
    result.facets = [
        along_axis(ids, result.shape, out.index(label))
        for label, ids in found.items()
        if label in out and result.shape[out.index(label)] == len(ids)
    ]
    _record(state, node, sides, out, found)
    return result


def _record(state: State, node: fx.Node, sides: tuple[_Side, _Side], out: str, found: dict[str, Tensor]) -> None:
    """A product with a constant is a layer: consumer and producer. Other products only read."""
    summed = [ids for label, ids in found.items() if label not in out]
    weights = [side for side in sides if side.value.constant]
    if len(weights) == 2:
        state.sums += [ConstantSum(node, ids, (sides[0].node, sides[1].node)) for ids in summed]
    tensor, plain, source = None, True, sides[0].node
    free: list[Tensor] = []
    if len(weights) == 1:
        state.weights.append(weights[0].node)
        (tensor, plain), data = weight_name(state, weights[0].node), sides[sides[0] is weights[0]]
        source = data.node
        free = [ids for label, ids in found.items() if label in out and label not in data.labels]
        state.contractions.append(
            Contraction(
                node, "matmul", source, tensor, None, next(iter(summed), None), next(iter(free), None), plain=plain
            )
        )
        summed, free = summed[1:], free[1:]
    for ids in summed:
        state.contractions.append(Contraction(node, "product", source, tensor, None, ids, None, plain=plain))
    for ids in free:
        state.contractions.append(Contraction(node, "product", source, tensor, None, None, ids, plain=plain))


def _meet_labels(state: State, node: fx.Node, sides: tuple[_Side, _Side], out: str) -> dict[str, Tensor]:
    """Identities along each label after the two operands have met; labels with none are absent.

    Heads of an attention are batch labels: with attention="heads" they are the unit and what lies within one belongs
    to it; with "widths" every head stays and all become narrower alike.
    """
    shared = set(sides[0].labels) & set(sides[1].labels)
    ends: dict[str, dict[int, Tensor]] = {}
    for index, side in enumerate(sides):
        for facet in side.value.facets:
            if axes := varying(facet):
                label = _direction(state, [side.labels[a] for a in axes], shared, out, sides[1 - index])
                ends.setdefault(label, {})[index] = vector(state.identities, facet, side.labels.index(label))
    found: dict[str, Tensor] = {}
    for label, of_side in ends.items():
        index, ids = next(iter(of_side.items()))
        other = sides[1 - index]
        if len(of_side) == 2 or (label in shared and other.value.shape[other.labels.index(label)] > 1):
            meet(state, node, of_side.get(0), of_side.get(1), (sides[0].value, sides[1].value))
        if len(of_side) == 2 or label not in shared or other.value.shape[other.labels.index(label)] == 1:
            found[label] = ids
    return found


def _direction(state: State, labels: list[str], shared: set[str], out: str, other: _Side) -> str:
    """The one label a facet keeps when it varies along several; one that the other operand can follow, if any."""

    def follows(label: str) -> bool:
        if label not in shared:
            return True
        axis = other.labels.index(label)
        return other.value.shape[axis] == 1 or any(axis in varying(f) for f in other.value.facets)

    labels = [label for label in labels if follows(label)] or labels
    batch = [label for label in labels if label in shared and label in out]
    inner = [label for label in labels if label not in batch]
    if batch and (state.attention == "heads" or not inner):
        return batch[-1]
    summed = [label for label in inner if label in shared]
    return (summed or inner)[-1]


def _matrices(a: Identified, b: Identified, nodes: tuple[fx.Node, fx.Node]) -> tuple[tuple[_Side, _Side], str]:
    """Labels of a matrix product, vectors included."""
    batch = _LETTERS[: max(a.dim, b.dim, 2) - 2]
    left = batch[len(batch) - max(a.dim - 2, 0) :] + "mk" if a.dim > 1 else "k"
    right = batch[len(batch) - max(b.dim - 2, 0) :] + "kn" if b.dim > 1 else "k"
    out = batch + ("m" if a.dim > 1 else "") + ("n" if b.dim > 1 else "")
    return (_Side(a, left, nodes[0]), _Side(b, right, nodes[1])), out


def matmul(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Matrices and vectors, batch axes broadcast."""
    return product(state, node, *_matrices(args[0], args[1], (arguments(node)[0], arguments(node)[1])))


def added_product(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A term plus a product."""
    result = product(state, node, *_matrices(args[1], args[2], (arguments(node)[1], arguments(node)[2])))
    return unite_elementwise(state, node, [result, args[0]])


def einsum(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Of two operands, without repeated labels; an ellipsis stands for batch axes."""
    operands: list[Identified] = list(args[1])
    labels, out = _einsum_labels(args[0], operands)
    if len(operands) != 2 or any(len(set(t)) != len(t) for t in (*labels, out)):
        return state.opaque(node, operands, "sequence", other=f"einsum '{args[0]}'")
    nodes = arguments(node)[1]
    return product(state, node, (_Side(operands[0], labels[0], nodes[0]), _Side(operands[1], labels[1], nodes[1])), out)


def _einsum_labels(equation: str, operands: list[Identified]) -> tuple[list[str], str]:
    """One letter an axis of each operand and of the result, the implicit result spelled out."""
    terms, arrow, out = equation.replace(" ", "").partition("->")
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    labels = []
    longest = 0
    for term, operand in zip(terms.split(","), operands, strict=True):
        hidden = operand.dim - len(term.replace("...", ""))
        longest = max(longest, hidden if "..." in term else 0)
        labels.append(term.replace("...", "".join(spare[10 - hidden : 10])))
    if not arrow:
        letters = "".join(terms.replace("...", "").split(","))
        out = ("..." if "..." in terms else "") + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return labels, out.replace("...", "".join(spare[10 - longest : 10]))


def attention(state: State, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Two products with a softmax between; queries share keys and values where heads are grouped."""
    query, key, value = args[0], args[1], args[2]
    mask = argument(node, args, kwargs, "attn_mask")
    if query.dim < 3:
        return state.opaque(node, identified_in(args), "sequence", other="attention without a batch axis")
    if query.dim > 3 and query.shape[-3] != key.shape[-3]:
        key, value = (_repeat_heads(v, query.shape[-3]) for v in (key, value))
    batch = _LETTERS[: query.dim - 2]
    scores = Identified((*query.shape[:-1], key.shape[-2]))
    pair = _Side(query, batch + "mk", arguments(node)[0]), _Side(key, batch + "nk", arguments(node)[1])
    found = _meet_labels(state, node, pair, batch + "mn")
    if "k" in found:
        state.contractions.append(Contraction(node, "product", arguments(node)[0], None, None, found["k"], None))
    scores.facets = _facets(found, scores, batch + "mn")
    if isinstance(mask, Identified):
        scores = unite_elementwise(state, node, [scores, mask])
    found = _meet_labels(
        state, node, (_Side(scores, batch + "mn", node), _Side(value, batch + "nv", arguments(node)[2])), batch + "mv"
    )
    result: Identified = opaque_result(node)
    result.facets = _facets(found, result, batch + "mv")
    return result


def _facets(found: dict[str, Tensor], value: Identified, labels: str) -> list[Tensor]:
    return [along_axis(ids, value.shape, labels.index(x)) for x, ids in found.items() if x in labels]


def _repeat_heads(value: Identified, heads: int) -> Identified:
    """Keys or values as many as there are query heads."""
    times = heads // value.shape[-3]
    shape = (*value.shape[:-3], heads, *value.shape[-2:])
    return Identified(shape, [f.repeat_interleave(times, dim=-3) for f in value.facets])
