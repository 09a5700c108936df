"""Toy networks of convolutions whose channels are split, joined, moved about or gate each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.structure.toy import Toy, conv, head, linear, parameter, point, toy


def _c2f(n, x):
    a, b = n.conv(x).relu().chunk(2, 1)
    return n.head(torch.cat([a, b, n.m(b).relu()], 1))


def _halves(n, x):
    a, b = n.conv(x).relu().chunk(2, 1)
    return n.head(n.a(a) + n.b(b))


def _halves_swapped(n, x):
    a, b = n.conv(x).relu().chunk(2, 1)
    return n.head(n.a(b) + n.b(a))


def _halves_swapped_order(n, x):
    a, b = n.conv(x).relu().chunk(2, 1)
    second = n.b(b)
    return n.head(second + n.a(a))


def _shuffle(n, x):
    y = n.conv(x).relu()
    b, c, h, w = y.shape
    return n.head(y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w))


def _option_a(n, x):
    y = n.conv(x).relu()
    z = n.second(y)[:, :, ::2, ::2]
    return n.out((z + F.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))).relu().mean((2, 3)))


def _se(n, x):
    y = n.conv(x)
    return n.head(y * n.up(n.down(F.adaptive_avg_pool2d(y, 1)).relu()).sigmoid())


def _se_linear(n, x):
    y = n.conv(x)
    return n.head(y * n.up(n.down(y.mean((2, 3))).relu()).sigmoid().unsqueeze(2).unsqueeze(3))


def _se_view(n, x):
    y = n.conv(x)
    b, c = y.shape[:2]
    return n.head(y * n.up(n.down(F.adaptive_avg_pool2d(y, 1).view(b, c)).relu()).sigmoid().view(b, c, 1, 1))


def _split_add(n, x):
    a, b, c = n.conv(x).relu().split([8, 12, 12], 1)
    return n.head(torch.cat([a, n.shared(b) + n.shared(c)], 1))


def _res2net(n, x):
    parts = list(n.conv(x).chunk(4, 1))
    parts[1] = n.k1(parts[1]).relu()
    parts[2] = n.k2(parts[2] + parts[1]).relu()
    return n.head(torch.cat(parts, 1))


def _selective(n, x):
    both = torch.stack([n.a(x).relu(), n.b(x).relu()], 1)
    weights = n.fc(both.sum(1).mean((2, 3))).view(-1, 2, 8).softmax(1)
    return n.head((both * weights[..., None, None]).sum(1))


def _transformed(n, x):
    y = n.a(x).relu()
    theta = n.theta(y.mean((2, 3))).view(-1, 2, 3)
    return n.head(F.grid_sample(y, F.affine_grid(theta, list(y.shape), align_corners=False), align_corners=False))


def _non_local(n, x):
    y = n.a(x)
    theta, phi, g = (layer(y).flatten(2) for layer in (n.theta, n.phi, n.g))
    mixed = torch.bmm((theta.transpose(1, 2) @ phi).softmax(-1), g.transpose(1, 2)).transpose(1, 2)
    return n.head(y + n.back(mixed.reshape(-1, 4, 8, 8)))


def _linear_attention(n, x):
    y = n.a(x)
    q, k, v = (layer(y).flatten(2) for layer in (n.q, n.k, n.v))
    context = k.softmax(-1) @ v.transpose(1, 2)
    return n.head((context.transpose(1, 2) @ q).view(-1, 10, 8, 8))


def _written(n, x):
    y = n.a(x)
    y[:, 2:5] = n.b(x)
    y[:, 0] = 0
    y[:, :, 1:3] *= 2
    return n.head(y)


def _no_gradient(n, x):
    y = n.a(x).relu()
    with torch.no_grad():
        scale = y.amax((2, 3), keepdim=True)
    return n.head(n.b(y / (scale + 1)))


PERMUTATION = [3, 15, 0, 7, 8, 1, 12, 5, 2, 10, 14, 4, 13, 6, 9, 11]


JOINS: dict[str, Toy] = {
    "halves": toy(_halves, conv=conv(3, 32), a=point(16, 16), b=point(16, 16), head=head(16)),
    "halves_swapped": toy(_halves_swapped, conv=conv(3, 32), a=point(16, 16), b=point(16, 16), head=head(16)),
    "halves_second_first": toy(
        _halves_swapped_order, conv=conv(3, 32), a=point(16, 16), b=point(16, 16), head=head(16)
    ),
    "only_second_half": toy(
        lambda n, x: n.head(n.b(n.conv(x).relu().chunk(2, 1)[1])), conv=conv(3, 32), b=point(16, 16), head=head(16)
    ),
    "c2f": toy(_c2f, conv=conv(3, 32), m=conv(16, 16), head=head(48)),
    "uneven_split": toy(
        lambda n, x: n.head(n.a((s := n.conv(x).relu().split([20, 12], 1))[0]) + n.b(s[1])),
        conv=conv(3, 32),
        a=point(20, 16),
        b=point(12, 16),
        head=head(16),
    ),
    "literal_slices": toy(
        lambda n, x: n.head(n.a((y := n.conv(x).relu())[:, :20]) + n.b(y[:, 20:])),
        conv=conv(3, 32),
        a=point(20, 16),
        b=point(12, 16),
        head=head(16),
    ),
    "split_shared_block": toy(_split_add, conv=conv(3, 32), shared=point(12, 12), head=head(20)),
    "strided_slices": toy(
        lambda n, x: n.head(n.a((y := n.conv(x).relu())[:, ::2]) + n.b(y[:, 1::2])),
        conv=conv(3, 32),
        a=point(16, 16),
        b=point(16, 16),
        head=head(16),
    ),
    "shuffle": toy(_shuffle, conv=conv(3, 16), head=head(16)),
    "channel_shuffle": toy(
        lambda n, x: n.head(F.channel_shuffle(n.conv(x).relu(), 4)), conv=conv(3, 16), head=head(16)
    ),
    "roll": toy(lambda n, x: n.head(n.conv(x).relu().roll(4, 1)), conv=conv(3, 16), head=head(16)),
    "flip": toy(lambda n, x: n.head(n.conv(x).relu().flip(1)), conv=conv(3, 16), head=head(16)),
    "fixed_permutation": toy(lambda n, x: n.head(n.conv(x).relu()[:, PERMUTATION]), conv=conv(3, 16), head=head(16)),
    "buffer_permutation": toy(
        lambda n, x: n.head(n.conv(x).relu().index_select(1, n.order)),
        conv=conv(3, 16),
        order=lambda: torch.tensor(PERMUTATION),
        head=head(16),
    ),
    "roll_added": toy(lambda n, x: n.head((y := n.conv(x).relu()) + y.roll(4, 1)), conv=conv(3, 16), head=head(16)),
    "cat_input_first": toy(lambda n, x: n.head(torch.cat([x, n.conv(x).relu()], 1)), conv=conv(3, 16), head=head(19)),
    "cat_input_last": toy(lambda n, x: n.head(torch.cat([n.conv(x).relu(), x], 1)), conv=conv(3, 16), head=head(19)),
    "cat_cascade": toy(
        lambda n, x: n.head(torch.cat([a := n.a(x), b := n.b(a), n.c(torch.cat([a, b], 1))], 1)),
        a=conv(3, 8),
        b=conv(8, 12),
        c=conv(20, 10),
        head=head(30),
    ),
    "cat_spatial": toy(
        lambda n, x: n.head(torch.cat([n.a(x), n.b(x)], 2).split(6, 2)[1]), a=conv(3, 8), b=conv(3, 8), head=head(8)
    ),
    "cat_constants": toy(
        lambda n, x: n.head(torch.cat([y := n.a(x), torch.ones_like(y[:, :2]), y.new_zeros(y.shape[0], 3, 8, 8)], 1)),
        a=conv(3, 8),
        head=head(13),
    ),
    "pixel_shuffle": toy(lambda n, x: n.head(F.pixel_shuffle(n.conv(x), 2)), conv=conv(3, 64), head=head(16)),
    "pixel_unshuffle": toy(lambda n, x: n.head(F.pixel_unshuffle(n.conv(x), 2)), conv=conv(3, 16), head=head(64)),
    "space_to_depth": toy(
        lambda n, x: n.head(
            torch.cat([(y := n.conv(x))[..., ::2, ::2], y[..., 1::2, ::2], y[..., ::2, 1::2], y[..., 1::2, 1::2]], 1)
        ),
        conv=conv(3, 8),
        head=head(32),
    ),
    "option_a": toy(_option_a, conv=conv(3, 16), second=conv(16, 32), out=linear(32, 5)),
    "appended_zeros": toy(
        lambda n, x: n.head(F.pad(n.conv(x), (0, 0, 0, 0, 0, 8)) + n.b(x)),
        conv=conv(3, 8),
        b=conv(3, 16),
        head=head(16),
    ),
    "crelu": toy(
        lambda n, x: n.head(torch.cat([(y := n.conv(x)).relu(), (-y).relu()], 1)), conv=conv(3, 16), head=head(32)
    ),
    "cat_twice": toy(lambda n, x: n.head(torch.cat([y := n.conv(x).relu(), y], 1)), conv=conv(3, 16), head=head(32)),
    "se_conv": toy(_se, conv=conv(3, 16), down=point(16, 4), up=point(4, 16), head=head(16)),
    "se_linear": toy(_se_linear, conv=conv(3, 16), down=linear(16, 4), up=linear(4, 16), head=head(16)),
    "se_view": toy(_se_view, conv=conv(3, 16), down=linear(16, 4), up=linear(4, 16), head=head(16)),
    "one_channel_gate": toy(
        lambda n, x: n.head((y := n.conv(x)) * n.gate(y).sigmoid()), conv=conv(3, 16), gate=point(16, 1), head=head(16)
    ),
    "glu": toy(lambda n, x: n.head(F.glu(n.conv(x), 1)), conv=conv(3, 32), head=head(16)),
    "glu_by_chunk": toy(
        lambda n, x: n.head((c := n.conv(x).chunk(2, 1))[0] * c[1].sigmoid()), conv=conv(3, 32), head=head(16)
    ),
    "stack_sum": toy(
        lambda n, x: n.head(torch.stack([n.a(x), n.b(x)]).sum(0)), a=conv(3, 16), b=conv(3, 16), head=head(16)
    ),
    "stack_inner": toy(
        lambda n, x: n.head(torch.stack([n.a(x), n.b(x)], 2).flatten(1, 2)), a=conv(3, 8), b=conv(3, 8), head=head(16)
    ),
    "stack_unbind": toy(
        lambda n, x: n.head((p := torch.stack([n.a(x), n.b(x)], 1).unbind(1))[0] - p[1]),
        a=conv(3, 8),
        b=conv(3, 8),
        head=head(8),
    ),
    "maxout": toy(lambda n, x: n.head(n.conv(x).view(-1, 16, 2, 8, 8).amax(2)), conv=conv(3, 32), head=head(16)),
    "maxout_first": toy(
        lambda n, x: n.head(n.conv(x).view(-1, 2, 16, 8, 8).max(1)[0]), conv=conv(3, 32), head=head(16)
    ),
    "residual_on_input": toy(lambda n, x: n.head(n.b(n.a(x).relu()) + x), a=conv(3, 8), b=conv(8, 3), head=head(3)),
    "repeat": toy(
        lambda n, x: n.head(n.a(x).repeat(1, 2, 1, 1) + n.b(x).repeat_interleave(2, 1)),
        a=conv(3, 8),
        b=conv(3, 8),
        head=head(16),
    ),
    "unfold_patches": toy(
        lambda n, x: n.out(F.unfold(n.conv(x), 3, padding=1).transpose(1, 2)).mean(1),
        conv=conv(3, 6),
        out=linear(54, 5),
    ),
    "tensor_unfold": toy(
        lambda n, x: n.head(n.conv(x).unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))), conv=conv(3, 8), head=head(8)
    ),
    "broadcast_gate": toy(
        lambda n, x: n.head(n.a(x) * n.b(x).amax(1, keepdim=True).sigmoid()), a=conv(3, 8), b=conv(3, 6), head=head(8)
    ),
    "buffer_scale": toy(
        lambda n, x: n.head(n.conv(x) * n.scale), conv=conv(3, 16), head=head(16), scale=lambda: torch.rand(1, 16, 1, 1)
    ),
    "arange_shift": toy(
        lambda n, x: n.head(n.conv(x) + torch.arange(16.0, dtype=x.dtype).view(1, 16, 1, 1)),
        conv=conv(3, 16),
        head=head(16),
    ),
    "literal_scale": toy(
        lambda n, x: n.head(n.conv(x) * torch.tensor([0.5, 1, 2, 3] * 4, dtype=x.dtype)[:, None, None]),
        conv=conv(3, 16),
        head=head(16),
    ),
    "split_left_over": toy(
        lambda n, x: n.head(torch.cat([(s := n.conv(x).split([6, 6, 4], 1))[0] + s[1], s[2]], 1)),
        conv=conv(3, 16),
        head=head(10),
    ),
    "res2net": toy(_res2net, conv=conv(3, 16), k1=conv(4, 4), k2=conv(4, 4), head=head(16)),
    "selective_kernel": toy(_selective, a=conv(3, 8), b=conv(3, 8), fc=linear(8, 16), head=head(8)),
    "energy_gate": toy(
        lambda n, x: n.head(n.a(x) * (n.a(x) * n.b(x)).sum(1, keepdim=True).sigmoid()),
        a=conv(3, 8),
        b=conv(3, 8),
        head=head(8),
    ),
    "unit_length": toy(lambda n, x: n.head(F.normalize(n.a(x), dim=1)), a=conv(3, 8), head=head(8)),
    "statistics": toy(
        lambda n, x: n.head((y := n.a(x)) / (y.var((2, 3), keepdim=True) + 1).sqrt()), a=conv(3, 8), head=head(8)
    ),
    "grid_sample": toy(_transformed, a=conv(3, 8), theta=linear(8, 6), head=head(8)),
    "non_local": toy(
        _non_local, a=conv(3, 8), theta=point(8, 6), phi=point(8, 6), g=point(8, 4), back=point(4, 8), head=head(8)
    ),
    "linear_attention": toy(
        _linear_attention, a=conv(3, 8), q=point(8, 6), k=point(8, 6), v=point(8, 10), head=head(10)
    ),
    "computed_weight": toy(
        lambda n, x: n.head(F.conv2d(x, n.weight * n.scale[:, None, None, None], padding=1)),
        weight=parameter(8, 3, 3, 3),
        scale=parameter(8),
        head=head(8),
    ),
    "unused_layers": toy(
        lambda n, x: n.head(n.a(x).relu()), a=conv(3, 8), spare=conv(8, 5), extra=parameter(7), head=head(8)
    ),
    "single_channel": toy(lambda n, x: n.b(n.a(x).relu()), a=conv(3, 8), b=conv(8, 1)),
    "functional_dropout": toy(
        lambda n, x: n.head(F.dropout(n.a(x).roll(3, 1), 0.5, n.training)), a=conv(3, 8), head=head(8)
    ),
    "written_slices": toy(_written, a=conv(3, 8), b=conv(3, 3), head=head(8)),
    "regions_without_gradient": toy(_no_gradient, a=conv(3, 8), b=conv(8, 6), head=head(6)),
    "spatial_pyramid": toy(
        lambda n, x: n.head(torch.cat([y := n.a(x), F.max_pool2d(y, 3, 1, 1)], 1)), a=conv(3, 8), head=head(16)
    ),
    "pieces_of_one_producer": toy(
        lambda n, x: n.head(torch.cat([F.max_pool2d(c, 2) for c in n.a(x).chunk(4, 1)], 1)), a=conv(3, 8), head=head(8)
    ),
    "one_channel_slices": toy(
        lambda n, x: n.head(F.max_pool2d((y := n.a(x))[:, :1], 2) * F.max_pool2d(y, 2)), a=conv(3, 8), head=head(8)
    ),
}
