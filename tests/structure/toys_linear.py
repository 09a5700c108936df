"""Toy networks of linear layers, tokens and several inputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.structure.toy import Toy, conv, head, linear, parameter, toy

TOKENS = ((2, 7, 12),)


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
    net = toy(
        lambda n, x: n.out(n.b(n.a(n.first(x)).relu()).relu()),
        first=linear(6, 8),
        a=linear(8, 8),
        b=linear(8, 8),
        out=linear(8, 5),
    ).build()
    net.b.weight = net.a.weight
    return net


def _rms(n, x):
    y = n.a(x)
    return n.out(y * (y.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * n.scale)


def _picked_tokens(n, x):
    y = n.a(x)
    best = n.score(y).squeeze(-1).mean(0).topk(3).indices
    return n.out(y.index_select(1, best)).mean(1)


def _shared_stream(n, x):
    y = n.embed(x)
    for block in (n.b1, n.b2):
        y = y + block(y)
    return n.out(y.mean(1))


def _mlp(width=20):
    return lambda: nn.Sequential(nn.LayerNorm(12), nn.Linear(12, width), nn.GELU(), nn.Linear(width, 12))


def _tokens(batch):
    return (torch.randint(0, 11, (batch or 2, 7)),)


LINEAR: dict[str, Toy] = {
    "mlp_skip": toy(
        lambda n, x: n.c(n.b(y := n.a(x).relu()).relu() + y),
        ((2, 12),),
        a=linear(12, 16),
        b=linear(16, 16),
        c=linear(16, 5),
    ),
    "two_inputs": toy(
        lambda n, x, y: (n.c(z := torch.cat([n.a(x), n.b(y)], 1).relu()), n.d(z), n.e(z)),
        ((2, 6), (2, 4)),
        a=linear(6, 8),
        b=linear(4, 10),
        c=linear(18, 3),
        d=linear(18, 2),
        e=linear(18, 1),
    ),
    "dict_inputs": toy(
        lambda n, image, extra: n.out(torch.cat([n.conv(image).relu().mean((2, 3)), n.a(extra)], 1)),
        lambda b: {"image": torch.randn(b or 2, 3, 8, 8).double(), "extra": torch.randn(b or 2, 4).double()},
        conv=conv(3, 8),
        a=linear(4, 6),
        out=linear(14, 5),
    ),
    "nested_inputs": toy(
        lambda n, pair: n.out(n.a(pair["x"]) * n.b(pair["y"][0])),
        lambda b: ({"x": torch.randn(b or 2, 6).double(), "y": [torch.randn(b or 2, 4).double()]},),
        a=linear(6, 8),
        b=linear(4, 8),
        out=linear(8, 5),
    ),
    "wide_and_deep": toy(
        lambda n, x, y: torch.cat([n.wide(x), n.deep(y).reshape(-1, 1)], -1),
        ((2, 6), (2, 4)),
        wide=linear(6, 3),
        deep=lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)),
    ),
    "tokens_of_a_map": toy(
        lambda n, x: n.out(n.fc(n.conv(x).flatten(2).transpose(1, 2)).relu().mean(1)),
        conv=conv(3, 8),
        fc=linear(8, 10),
        out=linear(10, 5),
    ),
    "permute_mlp": toy(
        lambda n, x: n.head(n.b(n.a(n.conv(x).permute(0, 2, 3, 1)).relu()).permute(0, 3, 1, 2)),
        conv=conv(3, 8),
        a=linear(8, 12),
        b=linear(12, 10),
        head=head(10),
    ),
    "raw_parameter": toy(
        lambda n, x: n.out(F.linear(n.conv(x).mean((2, 3)), n.weight).relu()),
        conv=conv(3, 16),
        weight=parameter(12, 16),
        out=linear(12, 5),
    ),
    "raw_matmul": toy(
        lambda n, x: F.relu(x @ n.w1 + n.b1) @ n.w2, ((2, 6),), w1=parameter(6, 8), b1=parameter(8), w2=parameter(8, 5)
    ),
    "raw_einsum": toy(
        lambda n, x: torch.einsum("nc,oc->no", torch.einsum("bti,io->bto", x, n.w1).relu().mean(1), n.w2),
        ((2, 4, 6),),
        w1=parameter(6, 8),
        w2=parameter(5, 8),
    ),
    "raw_convolution": toy(
        lambda n, x: n.head(F.conv2d(x, n.weight, n.bias, padding=1).relu()),
        weight=parameter(8, 3, 3, 3),
        bias=parameter(8),
        head=head(8),
    ),
    "addmm": toy(
        lambda n, x: n.out(torch.addmm(n.bias, n.a(x), n.weight).relu()),
        ((2, 6),),
        a=linear(6, 8),
        bias=parameter(10),
        weight=parameter(8, 10),
        out=linear(10, 5),
    ),
    "tied_autoencoder": toy(
        lambda n, x: F.linear(F.linear(x, n.weight).relu(), n.weight.t()), ((2, 6),), weight=parameter(8, 6)
    ),
    "tied_modules": Toy(_tied, ((2, 6),)),
    "embedding": toy(
        lambda n, x: n.out(n.hidden(n.table(x)).relu().mean(1)),
        _tokens,
        table=lambda: nn.Embedding(11, 12),
        hidden=linear(12, 8),
        out=linear(8, 5),
    ),
    "tied_embedding": toy(
        lambda n, x: F.linear(n.back(n.hidden(n.table(x)).relu()), n.table.weight),
        _tokens,
        table=lambda: nn.Embedding(11, 12),
        hidden=linear(12, 8),
        back=linear(8, 12),
    ),
    "swiglu": toy(_swiglu, TOKENS, gate=linear(12, 16), up=linear(12, 16), out=linear(16, 12)),
    "swiglu_packed": toy(
        lambda n, x: n.out(F.silu((h := n.inner(x).chunk(2, -1))[0]) * h[1]),
        TOKENS,
        inner=linear(12, 32),
        out=linear(16, 12),
    ),
    "layer_norm": toy(
        lambda n, x: n.out(n.norm(n.a(x)).relu()),
        TOKENS,
        a=linear(12, 16),
        norm=lambda: nn.LayerNorm(16),
        out=linear(16, 5),
    ),
    "transformer_mlp": toy(_shared_stream, TOKENS, embed=linear(12, 12), b1=_mlp(), b2=_mlp(), out=linear(12, 5)),
    "mixer": toy(_mixer, TOKENS, inner=linear(12, 10), t1=linear(7, 14), t2=linear(14, 7), out=linear(10, 5)),
    "softmax_gate": toy(
        lambda n, x: n.out(n.a(x).softmax(-1) * n.b(x)), TOKENS, a=linear(12, 8), b=linear(12, 8), out=linear(8, 5)
    ),
    "lstm": toy(
        lambda n, x: n.out(n.lstm(n.a(x))[0][:, -1]),
        ((2, 5, 12),),
        a=linear(12, 10),
        out=linear(12, 5),
        lstm=lambda: nn.LSTM(10, 12, batch_first=True),
    ),
    "lstm_both_ways": toy(
        lambda n, x: n.out(n.lstm(n.a(x))[0][:, -1]),
        ((2, 5, 12),),
        a=linear(12, 10),
        out=linear(24, 5),
        lstm=lambda: nn.LSTM(10, 12, batch_first=True, bidirectional=True),
    ),
    "hand_written_lstm": toy(_lstm_cell, ((2, 5, 12),), wx=linear(12, 24), wh=linear(6, 24), out=linear(6, 5)),
    "position_table": toy(
        lambda n, x: n.out(n.hidden(n.embed(x) + n.position).relu().mean(1)),
        TOKENS,
        embed=linear(12, 10),
        position=parameter(1, 7, 10),
        hidden=linear(10, 8),
        out=linear(8, 5),
    ),
    "rms_norm": toy(_rms, TOKENS, a=linear(12, 16), scale=parameter(16), out=linear(16, 5)),
    "matrix_times_vector": toy(
        lambda n, x: (n.a(x).relu() @ n.w, n.b(x) @ n.w2),
        TOKENS,
        a=linear(12, 8),
        w=parameter(8),
        b=linear(12, 6),
        w2=parameter(6, 3),
    ),
    "batched_norm": toy(
        lambda n, x: n.out(n.bn(n.a(x)).relu()),
        ((4, 12),),
        a=linear(12, 8),
        bn=lambda: nn.BatchNorm1d(8),
        out=linear(8, 5),
    ),
    "picked_tokens": toy(_picked_tokens, TOKENS, a=linear(12, 8), score=linear(8, 1), out=linear(8, 5)),
    "outer_product": toy(
        lambda n, x: n.out((n.a(x)[:, :, None] * n.b(x)[:, None, :]).flatten(1)),
        ((2, 6),),
        a=linear(6, 8),
        b=linear(6, 4),
        out=linear(32, 5),
    ),
    "unknown_operator": toy(
        lambda n, x: n.out(torch.fft.rfft(n.a(x)).abs()), ((2, 6),), a=linear(6, 8), out=linear(5, 5)
    ),
    "class_token": toy(
        lambda n, x: n.out(torch.cat([n.token.expand(x.shape[0], -1, -1), n.embed(x)], 1)[:, 0] + n.embed(x).mean(1)),
        TOKENS,
        embed=linear(12, 10),
        token=parameter(1, 1, 10),
        out=linear(10, 5),
    ),
}
