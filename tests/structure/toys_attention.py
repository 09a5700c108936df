"""Toy networks of attention."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from tests.structure.toy import Toy, linear, parameter, toy
from tests.structure.toys_linear import TOKENS


def _heads(t, heads):
    return t.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend(n, x, heads=1):
    q, k, v = (_heads(layer(x), heads) for layer in (n.q, n.k, n.v))
    weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
    return n.out((weights @ v).transpose(1, 2).flatten(2)).mean(1)


def _attend_single(n, x):
    weights = (n.q(x) @ n.k(x).transpose(1, 2)).softmax(-1)
    return n.out(weights @ n.v(x)).mean(1)


def _attend_einsum(n, x):
    weights = torch.einsum("bid,bjd->bij", n.q(x), n.k(x)).softmax(-1)
    return n.out(torch.einsum("bij,bjd->bid", weights, n.v(x))).mean(1)


def _attend_einsum_heads(n, x):
    q, k, v = (layer(x).unflatten(-1, (4, -1)) for layer in (n.q, n.k, n.v))
    weights = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
    return n.out(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2)).mean(1)


def _sdpa(n, x, heads=4):
    q, k, v = (_heads(layer(x), heads) for layer in (n.q, n.k, n.v))
    return n.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).mean(1)


def _packed(n, x):
    b, t, _ = x.shape
    q, k, v = n.qkv(x).reshape(b, t, 3, 4, 6).permute(2, 0, 3, 1, 4).unbind(0)
    y = (((q * 6**-0.5) @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(b, t, 24)
    return n.out(y).mean(1)


def _gqa(n, x):
    q, k, v = _heads(n.q(x), 4), _heads(n.k(x), 2), _heads(n.v(x), 2)
    y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True, is_causal=True)
    return n.out(y.transpose(1, 2).flatten(2)).mean(1)


def _gqa_expand(n, x):
    b, t, _ = x.shape
    q = _heads(n.q(x), 4)
    k, v = (_heads(layer(x), 2)[:, :, None].expand(b, 2, 2, t, 6).reshape(b, 4, t, 6) for layer in (n.k, n.v))
    return n.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, 24)).mean(1)


def _masked(n, x):
    q, k, v = (_heads(layer(x), 4) for layer in (n.q, n.k, n.v))
    scores = q @ k.transpose(-2, -1) / 2 + n.table[n.index].permute(2, 0, 1)
    scores = scores.masked_fill(torch.triu(torch.ones(7, 7, dtype=torch.bool), 1), float("-inf"))
    return n.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)).mean(1)


def _rotary(n, x):
    q, k, v = (_heads(layer(x), 4) for layer in (n.q, n.k, n.v))

    def turn(t):
        half = torch.cat([-t[..., 3:], t[..., :3]], -1)
        return t * n.cos + half * n.sin

    return n.out(F.scaled_dot_product_attention(turn(q), turn(k), v).transpose(1, 2).flatten(2)).mean(1)


def _multihead(n, x):
    y = n.inner(x)
    y, _ = n.attend(y, y, y)
    return n.out(y).mean(1)


def _multihead_fast(n, x):
    y = n.inner(x)
    return n.out(n.attend(y, n.memory(x), n.memory(x), need_weights=False)[0]).mean(1)


def _head_norm(n, x):
    q, k, v = (_heads(layer(x), 4) for layer in (n.q, n.k, n.v))
    return n.out(F.scaled_dot_product_attention(n.nq(q), n.nk(k), v).transpose(1, 2).flatten(2)).mean(1)


def _cosine(n, x):
    q, k, v = (_heads(layer(x), 4) for layer in (n.q, n.k, n.v))
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * n.tau.exp()
    return n.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2)).mean(1)


def _windows(n, x):
    b, h, w, _ = x.shape
    y = n.inner(x).roll((-1, -1), (1, 2)).view(b, h // 2, 2, w // 2, 2, 16).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 16)
    q, k, v = n.qkv(y).reshape(-1, 4, 3, 4, 4).permute(2, 0, 3, 1, 4)
    y = n.back((F.softmax(q @ k.transpose(-2, -1) / 2, -1) @ v).transpose(1, 2).reshape(-1, 4, 16))
    y = y.view(b, h // 2, w // 2, 2, 2, 16).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, 16).roll((1, 1), (1, 2))
    return n.out(y.mean((1, 2)))


def _einsum_projections(n, x):
    q, k, v = (torch.einsum("btc,hcd->bhtd", x, w) for w in (n.wq, n.wk, n.wv))
    weights = torch.einsum("...id,...jd->...ij", q, k).softmax(-1)
    return torch.einsum("bhtd,hdo->bto", weights @ v, n.wo).mean(1)


def _qkv(c_in=12, q=24, k=24, v=24, out=5):
    return {"q": linear(c_in, q), "k": linear(c_in, k), "v": linear(c_in, v), "out": linear(v, out)}


ATTENTION: dict[str, Toy] = {
    "single_head": toy(_attend_single, TOKENS, **_qkv(q=16, k=16, v=24)),
    "single_head_einsum": toy(_attend_einsum, TOKENS, **_qkv(q=16, k=16, v=24)),
    "hand_written": toy(lambda n, x: _attend(n, x, 4), TOKENS, **_qkv()),
    "hand_written_widths": toy(lambda n, x: _attend(n, x, 4), TOKENS, attention="widths", **_qkv(q=16, k=16)),
    "einsum_heads": toy(_attend_einsum_heads, TOKENS, **_qkv()),
    "einsum_widths": toy(_attend_einsum_heads, TOKENS, attention="widths", **_qkv()),
    "fused": toy(_sdpa, TOKENS, **_qkv()),
    "fused_widths": toy(_sdpa, TOKENS, attention="widths", **_qkv(q=16, k=16)),
    "packed_qkv": toy(_packed, TOKENS, qkv=linear(12, 72), out=linear(24, 5)),
    "packed_qkv_widths": toy(_packed, TOKENS, attention="widths", qkv=linear(12, 72), out=linear(24, 5)),
    "grouped_queries": toy(_gqa, TOKENS, **{**_qkv(k=12, v=12), "out": linear(24, 5)}),
    "grouped_queries_widths": toy(_gqa, TOKENS, attention="widths", **{**_qkv(k=12, v=12), "out": linear(24, 5)}),
    "grouped_queries_expand": toy(_gqa_expand, TOKENS, **{**_qkv(k=12, v=12), "out": linear(24, 5)}),
    "position_bias_and_mask": toy(
        _masked,
        TOKENS,
        table=parameter(13, 4),
        **_qkv(),
        index=lambda: torch.arange(7)[:, None] - torch.arange(7)[None] + 6,
    ),
    "rotary": toy(_rotary, TOKENS, **_qkv(), cos=lambda: torch.rand(7, 6), sin=lambda: torch.rand(7, 6)),
    "rotary_widths": toy(
        _rotary, TOKENS, attention="widths", **_qkv(), cos=lambda: torch.rand(7, 6), sin=lambda: torch.rand(7, 6)
    ),
    "norm_in_heads": toy(_head_norm, TOKENS, **_qkv(), nq=lambda: nn.LayerNorm(6), nk=lambda: nn.LayerNorm(6)),
    "cosine": toy(_cosine, TOKENS, **_qkv(), tau=parameter(4, 1, 1)),
    "cosine_widths": toy(_cosine, TOKENS, attention="widths", **_qkv(q=16, k=16), tau=parameter(4, 1, 1)),
    "windows": toy(
        _windows, ((2, 4, 4, 12),), inner=linear(12, 16), qkv=linear(16, 48), back=linear(16, 16), out=linear(16, 5)
    ),
    "einsum_projections": toy(
        _einsum_projections,
        TOKENS,
        wq=parameter(4, 12, 6),
        wk=parameter(4, 12, 6),
        wv=parameter(4, 12, 8),
        wo=parameter(4, 8, 5),
    ),
    "multihead": toy(
        _multihead,
        TOKENS,
        inner=linear(12, 16),
        out=linear(16, 5),
        attend=lambda: nn.MultiheadAttention(16, 4, batch_first=True),
    ),
    "multihead_widths": toy(
        _multihead,
        TOKENS,
        attention="widths",
        inner=linear(12, 16),
        out=linear(16, 5),
        attend=lambda: nn.MultiheadAttention(16, 4, batch_first=True),
    ),
    "multihead_cross": toy(
        _multihead_fast,
        TOKENS,
        inner=linear(12, 16),
        memory=linear(12, 10),
        out=linear(16, 5),
        attend=lambda: nn.MultiheadAttention(16, 4, batch_first=True, kdim=10, vdim=10),
    ),
}
