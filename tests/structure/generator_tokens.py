"""Operators on tokens (batch, length, channels) and vectors (batch, channels) for random networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.structure.generator import Builder, Op, Value
from tests.structure.generator_maps import activation, combine, in_place, join
from tests.structure.generator_moves import flip, halves, permute_channels, roll, sliced, unbind, uneven


def _linear(b: Builder, x: Value) -> Value:
    layer = b.layer(nn.Linear(x.channels, b.width(), bias=b.pick([True, False])))
    return b.step(lambda n, t: n[layer](t), x)


def _raw(b: Builder, x: Value) -> Value:
    width = b.width()
    how = b.pick(["matmul", "linear", "einsum"])
    weight = b.parameter(*((width, x.channels) if how == "linear" else (x.channels, width)))
    if how == "matmul":
        return b.step(lambda n, t: t @ n[weight], x)
    if how == "linear":
        return b.step(lambda n, t: F.linear(t, n[weight]), x)
    return b.step(lambda n, t: torch.einsum("...i,io->...o", t, n[weight]), x)


def _tied(b: Builder, x: Value) -> Value:
    weight = b.parameter(b.width(), x.channels)
    return b.step(lambda n, t: F.linear(F.linear(t, n[weight]).relu(), n[weight].t()), x)


def _mlp(b: Builder, x: Value) -> Value:
    width = b.width()
    one, two = b.layer(nn.Linear(x.channels, width)), b.layer(nn.Linear(width, x.channels))
    if b.pick([False, True]):
        norm = b.layer(nn.LayerNorm(x.channels))
        return b.step(lambda n, t: t + n[two](F.gelu(n[one](n[norm](t)))), x)
    return b.step(lambda n, t: t + n[two](F.gelu(n[one](t))), x)


def _swiglu(b: Builder, x: Value) -> Value:
    width = b.width()
    both, out = b.layer(nn.Linear(x.channels, 2 * width)), b.layer(nn.Linear(width, b.width()))

    def compute(n, t):
        gate, up = n[both](t).chunk(2, -1)
        return n[out](F.silu(gate) * up)

    return b.step(compute, x)


def _glu(b: Builder, x: Value) -> Value:
    return b.step(lambda n, t: F.glu(t, -1), x) if x.channels % 2 == 0 else activation(b, x)


def _heads(t: torch.Tensor, heads: int) -> torch.Tensor:
    return t.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attention(b: Builder, x: Value) -> Value:
    """To itself or to other tokens; as many queries as keys, or groups of them; values of another width."""
    heads, kv_heads = b.pick([(1, 1), (2, 2), (4, 4), (4, 2)])
    width, value_width = b.pick([2, 3]), b.pick([2, 3, 4])
    other = b.pick([v for v in b.values if v.example.dim() == 3])
    q, k = b.layer(nn.Linear(x.channels, heads * width)), b.layer(nn.Linear(other.channels, kv_heads * width))
    v = b.layer(nn.Linear(other.channels, kv_heads * value_width))
    out = b.layer(nn.Linear(heads * value_width, b.pick([x.channels, b.width()])))
    fused = b.pick([False, True])

    def compute(n, t, u):
        queries, keys, values = _heads(n[q](t), heads), _heads(n[k](u), kv_heads), _heads(n[v](u), kv_heads)
        if fused:
            mixed = F.scaled_dot_product_attention(queries, keys, values, enable_gqa=heads != kv_heads)
        else:
            keys, values = (s.repeat_interleave(heads // kv_heads, 1) for s in (keys, values))
            mixed = (queries @ keys.transpose(-2, -1) / 2).softmax(-1) @ values
        return n[out](mixed.transpose(1, 2).flatten(2))

    return b.step(compute, x, other)


def _packed_attention(b: Builder, x: Value) -> Value:
    heads, width = b.pick([2, 3, 4]), b.pick([2, 4])
    qkv, out = b.layer(nn.Linear(x.channels, 3 * heads * width)), b.layer(nn.Linear(heads * width, x.channels))

    def compute(n, t):
        batch, length, _ = t.shape
        q, k, v = n[qkv](t).reshape(batch, length, 3, heads, width).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1) @ v).transpose(1, 2)
        return t + n[out](mixed.reshape(batch, length, heads * width))

    return b.step(compute, x)


def _multihead(b: Builder, x: Value) -> Value:
    heads = b.pick([h for h in (1, 2, 3, 4) if x.channels % h == 0])
    layer = b.layer(nn.MultiheadAttention(x.channels, heads, batch_first=True))
    return b.step(lambda n, t: n[layer](t, t, t, need_weights=False)[0], x)


def _mixer(b: Builder, x: Value) -> Value:
    length = x.shape[1]
    width = b.width()
    one, two = b.layer(nn.Linear(length, width)), b.layer(nn.Linear(width, length))
    return b.step(lambda n, t: t + n[two](F.gelu(n[one](t.transpose(1, 2)))).transpose(1, 2), x)


def _conv1d(b: Builder, x: Value) -> Value:
    groups = b.pick([1, 1, x.channels])
    width = b.width() if groups == 1 else groups
    layer = b.layer(nn.Conv1d(x.channels, width, 3, padding=1, groups=groups))
    return b.step(lambda n, t: n[layer](t.transpose(1, 2)).transpose(1, 2), x)


def _positions(b: Builder, x: Value) -> Value:
    table = b.parameter(1, *x.shape[1:])
    return b.step(lambda n, t: t + n[table], x)


def _class_token(b: Builder, x: Value) -> Value:
    token = b.parameter(1, 1, x.channels)
    return b.step(lambda n, t: torch.cat([n[token].expand(t.shape[0], -1, -1), t], 1)[:, : t.shape[1]], x)


def _to_map(b: Builder, x: Value) -> Value:
    side = {4: 2, 16: 4, 64: 8}.get(x.shape[1])
    if side is None:
        return _to_vector(b, x)
    return b.step(lambda n, t: t.transpose(1, 2).reshape(t.shape[0], t.shape[2], side, side), x)


def _to_vector(b: Builder, x: Value) -> Value:
    how = b.pick([lambda t: t.mean(1), lambda t: t[:, 0], lambda t: t.amax(1)])
    return b.step(lambda n, t: how(t), x)


def _norm(b: Builder, x: Value) -> Value:
    layer = b.layer(nn.BatchNorm1d(x.channels))
    return b.step(lambda n, t: n[layer](t), x)


SHARED: dict[str, Op] = {
    "linear": _linear,
    "raw": _raw,
    "tied": _tied,
    "mlp": _mlp,
    "swiglu": _swiglu,
    "glu": _glu,
    "activation": activation,
    "combine": combine,
    "join": join,
    "roll": roll,
    "flip": flip,
    "halves": halves,
    "uneven": uneven,
    "permute_channels": permute_channels,
    "in_place": in_place,
    "unbind": unbind,
    "sliced": sliced,
}
TOKENS: dict[str, Op] = {
    **SHARED,
    "attention": _attention,
    "attention_again": _attention,
    "packed_attention": _packed_attention,
    "multihead": _multihead,
    "mixer": _mixer,
    "conv1d": _conv1d,
    "positions": _positions,
    "class_token": _class_token,
    "to_map": _to_map,
    "to_vector": _to_vector,
}
VECTORS: dict[str, Op] = {**SHARED, "norm": _norm}
