"""Toy networks of linear layers, products and attention."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from .toy import Toy, conv, head, linear, parameter, toy

TOKENS = ((2, 7, 12),)


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
    y = (((q * 6 ** -0.5) @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(b, t, 24)
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


def _swiglu(n, x):
    return n.out(F.silu(n.gate(x)) * n.up(x))


def _mixer(n, x):
    y = n.inner(x)
    y = y + n.t2(n.t1(y.transpose(1, 2)).relu()).transpose(1, 2)
    return n.out(y).mean(1)


def _lstm_cell(n, x):
    h = c = x.new_zeros(x.shape[0], 6)
    for step in x.unbind(1):
        i, f, g, o = (n.wx(step) + n.wh(h)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    return n.out(h)


def _tied():
    """Two modules with one weight between them."""
    net = toy(lambda n, x: n.out(n.b(n.a(n.first(x)).relu()).relu()), first=linear(6, 8), a=linear(8, 8),
              b=linear(8, 8), out=linear(8, 5)).build()
    net.b.weight = net.a.weight
    return net


def _head_norm(n, x):
    q, k, v = (_heads(layer(x), 4) for layer in (n.q, n.k, n.v))
    return n.out(F.scaled_dot_product_attention(n.nq(q), n.nk(k), v).transpose(1, 2).flatten(2)).mean(1)


def _rms(n, x):
    y = n.a(x)
    return n.out(y * (y.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * n.scale)


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


def _picked_tokens(n, x):
    y = n.a(x)
    best = n.score(y).squeeze(-1).mean(0).topk(3).indices
    return n.out(y.index_select(1, best)).mean(1)


def _shared_stream(n, x):
    y = n.embed(x)
    for block in (n.b1, n.b2):
        y = y + block(y)
    return n.out(y.mean(1))


def _qkv(c_in=12, q=24, k=24, v=24, out=5):
    return {"q": linear(c_in, q), "k": linear(c_in, k), "v": linear(c_in, v), "out": linear(v, out)}


def _mlp(width=20):
    return lambda: nn.Sequential(nn.LayerNorm(12), nn.Linear(12, width), nn.GELU(), nn.Linear(width, 12))


def _tokens(batch):
    return (torch.randint(0, 11, (batch or 2, 7)),)


LINEAR: dict[str, Toy] = {
    "mlp_skip": toy(lambda n, x: n.c(n.b(y := n.a(x).relu()).relu() + y), ((2, 12),), a=linear(12, 16),
                    b=linear(16, 16), c=linear(16, 5)),
    "two_inputs": toy(lambda n, x, y: (n.c(z := torch.cat([n.a(x), n.b(y)], 1).relu()), n.d(z), n.e(z)),
                      ((2, 6), (2, 4)), a=linear(6, 8), b=linear(4, 10), c=linear(18, 3), d=linear(18, 2),
                      e=linear(18, 1)),
    "dict_inputs": toy(lambda n, image, extra: n.out(torch.cat([n.conv(image).relu().mean((2, 3)), n.a(extra)], 1)),
                       lambda b: {"image": torch.randn(b or 2, 3, 8, 8).double(),
                                  "extra": torch.randn(b or 2, 4).double()},
                       conv=conv(3, 8), a=linear(4, 6), out=linear(14, 5)),
    "nested_inputs": toy(lambda n, pair: n.out(n.a(pair["x"]) * n.b(pair["y"][0])),
                         lambda b: ({"x": torch.randn(b or 2, 6).double(), "y": [torch.randn(b or 2, 4).double()]},),
                         a=linear(6, 8), b=linear(4, 8), out=linear(8, 5)),
    "wide_and_deep": toy(lambda n, x, y: torch.cat([n.wide(x), n.deep(y).reshape(-1, 1)], -1), ((2, 6), (2, 4)),
                         wide=linear(6, 3), deep=lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))),
    "tokens_of_a_map": toy(lambda n, x: n.out(n.fc(n.conv(x).flatten(2).transpose(1, 2)).relu().mean(1)),
                           conv=conv(3, 8), fc=linear(8, 10), out=linear(10, 5)),
    "permute_mlp": toy(lambda n, x: n.head(n.b(n.a(n.conv(x).permute(0, 2, 3, 1)).relu()).permute(0, 3, 1, 2)),
                       conv=conv(3, 8), a=linear(8, 12), b=linear(12, 10), head=head(10)),
    "raw_parameter": toy(lambda n, x: n.out(F.linear(n.conv(x).mean((2, 3)), n.weight).relu()), conv=conv(3, 16),
                         weight=parameter(12, 16), out=linear(12, 5)),
    "raw_matmul": toy(lambda n, x: (F.relu(x @ n.w1 + n.b1) @ n.w2), ((2, 6),), w1=parameter(6, 8),
                      b1=parameter(8), w2=parameter(8, 5)),
    "raw_einsum": toy(lambda n, x: torch.einsum("nc,oc->no", torch.einsum("bti,io->bto", x, n.w1).relu().mean(1),
                                                n.w2), ((2, 4, 6),), w1=parameter(6, 8), w2=parameter(5, 8)),
    "raw_convolution": toy(lambda n, x: n.head(F.conv2d(x, n.weight, n.bias, padding=1).relu()),
                           weight=parameter(8, 3, 3, 3), bias=parameter(8), head=head(8)),
    "addmm": toy(lambda n, x: n.out(torch.addmm(n.bias, n.a(x), n.weight).relu()), ((2, 6),), a=linear(6, 8),
                 bias=parameter(10), weight=parameter(8, 10), out=linear(10, 5)),
    "tied_autoencoder": toy(lambda n, x: F.linear(F.linear(x, n.weight).relu(), n.weight.t()), ((2, 6),),
                            weight=parameter(8, 6)),
    "tied_modules": Toy(_tied, ((2, 6),)),
    "embedding": toy(lambda n, x: n.out(n.hidden(n.table(x)).relu().mean(1)), _tokens,
                     table=lambda: nn.Embedding(11, 12), hidden=linear(12, 8), out=linear(8, 5)),
    "tied_embedding": toy(lambda n, x: F.linear(n.back(n.hidden(n.table(x)).relu()), n.table.weight), _tokens,
                          table=lambda: nn.Embedding(11, 12), hidden=linear(12, 8), back=linear(8, 12)),
    "swiglu": toy(_swiglu, TOKENS, gate=linear(12, 16), up=linear(12, 16), out=linear(16, 12)),
    "swiglu_packed": toy(lambda n, x: n.out(F.silu((h := n.inner(x).chunk(2, -1))[0]) * h[1]), TOKENS,
                         inner=linear(12, 32), out=linear(16, 12)),
    "layer_norm": toy(lambda n, x: n.out(n.norm(n.a(x)).relu()), TOKENS, a=linear(12, 16),
                      norm=lambda: nn.LayerNorm(16), out=linear(16, 5)),
    "transformer_mlp": toy(_shared_stream, TOKENS, embed=linear(12, 12), b1=_mlp(), b2=_mlp(), out=linear(12, 5)),
    "mixer": toy(_mixer, TOKENS, inner=linear(12, 10), t1=linear(7, 14), t2=linear(14, 7), out=linear(10, 5)),
    "softmax_gate": toy(lambda n, x: n.out(n.a(x).softmax(-1) * n.b(x)), TOKENS, a=linear(12, 8), b=linear(12, 8),
                        out=linear(8, 5)),
    "lstm": toy(lambda n, x: n.out(n.lstm(n.a(x))[0][:, -1]), ((2, 5, 12),), a=linear(12, 10), out=linear(12, 5),
                lstm=lambda: nn.LSTM(10, 12, batch_first=True)),
    "lstm_both_ways": toy(lambda n, x: n.out(n.lstm(n.a(x))[0][:, -1]), ((2, 5, 12),), a=linear(12, 10),
                          out=linear(24, 5), lstm=lambda: nn.LSTM(10, 12, batch_first=True, bidirectional=True)),
    "hand_written_lstm": toy(_lstm_cell, ((2, 5, 12),), wx=linear(12, 24), wh=linear(6, 24), out=linear(6, 5)),
    "position_table": toy(lambda n, x: n.out(n.hidden(n.embed(x) + n.position).relu().mean(1)), TOKENS,
                          embed=linear(12, 10), position=parameter(1, 7, 10), hidden=linear(10, 8), out=linear(8, 5)),
    "rms_norm": toy(_rms, TOKENS, a=linear(12, 16), scale=parameter(16), out=linear(16, 5)),
    "matrix_times_vector": toy(lambda n, x: (n.a(x).relu() @ n.w, n.b(x) @ n.w2), TOKENS, a=linear(12, 8),
                               w=parameter(8), b=linear(12, 6), w2=parameter(6, 3)),
    "batched_norm": toy(lambda n, x: n.out(n.bn(n.a(x)).relu()), ((4, 12),), a=linear(12, 8),
                        bn=lambda: nn.BatchNorm1d(8), out=linear(8, 5)),
    "picked_tokens": toy(_picked_tokens, TOKENS, a=linear(12, 8), score=linear(8, 1), out=linear(8, 5)),
    "outer_product": toy(lambda n, x: n.out((n.a(x)[:, :, None] * n.b(x)[:, None, :]).flatten(1)), ((2, 6),),
                         a=linear(6, 8), b=linear(6, 4), out=linear(32, 5)),
    "unknown_operator": toy(lambda n, x: n.out(torch.fft.rfft(n.a(x)).abs()), ((2, 6),), a=linear(6, 8),
                            out=linear(5, 5)),
    "class_token": toy(lambda n, x: n.out(torch.cat([n.token.expand(x.shape[0], -1, -1), n.embed(x)], 1)[:, 0]
                                          + n.embed(x).mean(1)), TOKENS, embed=linear(12, 10),
                       token=parameter(1, 1, 10), out=linear(10, 5)),
}

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
    "position_bias_and_mask": toy(_masked, TOKENS, table=parameter(13, 4), **_qkv(),
                                  index=lambda: torch.arange(7)[:, None] - torch.arange(7)[None] + 6),
    "rotary": toy(_rotary, TOKENS, **_qkv(), cos=lambda: torch.rand(7, 6), sin=lambda: torch.rand(7, 6)),
    "rotary_widths": toy(_rotary, TOKENS, attention="widths", **_qkv(), cos=lambda: torch.rand(7, 6),
                         sin=lambda: torch.rand(7, 6)),
    "norm_in_heads": toy(_head_norm, TOKENS, **_qkv(), nq=lambda: nn.LayerNorm(6), nk=lambda: nn.LayerNorm(6)),
    "cosine": toy(_cosine, TOKENS, **_qkv(), tau=parameter(4, 1, 1)),
    "cosine_widths": toy(_cosine, TOKENS, attention="widths", **_qkv(q=16, k=16), tau=parameter(4, 1, 1)),
    "windows": toy(_windows, ((2, 4, 4, 12),), inner=linear(12, 16), qkv=linear(16, 48), back=linear(16, 16),
                   out=linear(16, 5)),
    "einsum_projections": toy(_einsum_projections, TOKENS, wq=parameter(4, 12, 6), wk=parameter(4, 12, 6),
                              wv=parameter(4, 12, 8), wo=parameter(4, 8, 5)),
    "multihead": toy(_multihead, TOKENS, inner=linear(12, 16), out=linear(16, 5),
                     attend=lambda: nn.MultiheadAttention(16, 4, batch_first=True)),
    "multihead_widths": toy(_multihead, TOKENS, attention="widths", inner=linear(12, 16), out=linear(16, 5),
                            attend=lambda: nn.MultiheadAttention(16, 4, batch_first=True)),
    "multihead_cross": toy(_multihead_fast, TOKENS, inner=linear(12, 16), memory=linear(12, 10), out=linear(16, 5),
                           attend=lambda: nn.MultiheadAttention(16, 4, batch_first=True, kdim=10, vdim=10)),
}
