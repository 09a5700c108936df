"""Toy networks of convolutions one after another, and their residual sums."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.structure.toy import Toy, conv, head, linear, parameter, point, toy


def _inplace(n, x):
    y = n.conv(x)
    y += n.second(x)
    y.relu_().mul_(0.5)
    z = n.third(y)
    z[:, :4] += 1
    z[:, 4:] *= n.fourth(y)[:, 4:]
    return n.head(z)


def _unet(n, x):
    a = n.a(x).relu()
    b = n.b(F.max_pool2d(a, 2)).relu()
    up = F.interpolate(b, scale_factor=2, mode="bilinear", align_corners=False)
    return n.out(n.c(torch.cat([up, a], 1)).relu())


CHAINS: dict[str, Toy] = {
    "chain": toy(
        lambda n, x: n.head(n.bn(n.conv(x)).relu()),
        conv=conv(3, 16, bias=False),
        bn=lambda: nn.BatchNorm2d(16),
        head=head(16),
    ),
    "residual": toy(
        lambda n, x: n.head(n.second(n.conv(x).relu()) + n.conv(x)),
        conv=conv(3, 16),
        second=conv(16, 16),
        head=head(16),
    ),
    "depthwise": toy(
        lambda n, x: n.head(n.bn(n.dw(n.conv(x))).relu()),
        conv=conv(3, 16),
        dw=conv(16, 16, groups=16),
        bn=lambda: nn.BatchNorm2d(16),
        head=head(16),
    ),
    "depthwise_multiplier": toy(
        lambda n, x: n.head(n.dw(n.conv(x)).relu()), conv=conv(3, 16), dw=conv(16, 32, groups=16), head=head(32)
    ),
    "depthwise_multiplier_on_input": toy(lambda n, x: n.head(n.dw(x).relu()), dw=conv(3, 12, groups=3), head=head(12)),
    "grouped_chain": toy(
        lambda n, x: n.head(n.b(n.a(n.conv(x)).relu()).relu()),
        conv=conv(3, 16),
        a=conv(16, 32, groups=4),
        b=conv(32, 32, groups=2),
        head=head(32),
    ),
    "many_groups": toy(
        lambda n, x: n.head(n.a(n.conv(x)).relu()), conv=conv(3, 32), a=conv(32, 16, groups=8), head=head(16)
    ),
    "transposed_grouped": toy(
        lambda n, x: n.head(n.a(n.conv(x)).relu()),
        conv=conv(3, 16),
        a=lambda: nn.ConvTranspose2d(16, 16, 2, 2, groups=4),
        head=head(16),
    ),
    "transposed_many_groups": toy(
        lambda n, x: n.head(n.a(n.conv(x)).relu()),
        conv=conv(3, 16),
        a=lambda: nn.ConvTranspose2d(16, 16, 2, 2, groups=8),
        head=head(16),
    ),
    "transposed_depthwise": toy(
        lambda n, x: n.head(n.a(n.conv(x)).relu()),
        conv=conv(3, 8),
        a=lambda: nn.ConvTranspose2d(8, 16, 2, 2, groups=8),
        head=head(16),
    ),
    "transposed": toy(
        lambda n, x: n.out(n.b(n.a(n.fc(x).view(-1, 8, 4, 4)).relu()).flatten(1)),
        ((2, 6),),
        fc=linear(6, 128),
        a=lambda: nn.ConvTranspose2d(8, 6, 2, 2),
        b=lambda: nn.ConvTranspose2d(6, 4, 3, 1, 1),
        out=linear(256, 5),
    ),
    "conv1d": toy(
        lambda n, x: n.out(n.b(n.bn(n.a(x)).relu()).relu().mean(2)),
        ((2, 3, 12),),
        a=lambda: nn.Conv1d(3, 8, 3),
        bn=lambda: nn.BatchNorm1d(8),
        b=lambda: nn.Conv1d(8, 6, 3),
        out=linear(6, 5),
    ),
    "conv3d": toy(
        lambda n, x: n.out(n.b(F.max_pool3d(n.bn(n.a(x)).relu(), 2)).relu().mean((2, 3, 4))),
        ((2, 2, 4, 6, 6),),
        a=lambda: nn.Conv3d(2, 8, 3, padding=1),
        bn=lambda: nn.BatchNorm3d(8),
        b=lambda: nn.Conv3d(8, 6, 1),
        out=linear(6, 5),
    ),
    "unbatched": toy(
        lambda n, x: n.out(n.b(F.max_pool2d(n.a(x).relu(), 2)).relu().mean((1, 2))),
        ((3, 8, 8),),
        batches=False,
        a=conv(3, 8),
        b=conv(8, 6),
        out=linear(6, 5),
    ),
    "flatten": toy(lambda n, x: n.out(n.conv(x).relu().flatten(1)), conv=conv(3, 16), out=linear(1024, 5)),
    "flatten_view": toy(lambda n, x: n.out(n.conv(x).relu().reshape(-1, 1024)), conv=conv(3, 16), out=linear(1024, 5)),
    "flatten_batch_of_one": toy(
        lambda n, x: n.out(n.conv(x).relu().view(1, -1)),
        ((1, 3, 8, 8),),
        batches=False,
        conv=conv(3, 16),
        out=linear(1024, 5),
    ),
    "flatten_channels_last": toy(
        lambda n, x: n.out(n.conv(x).relu().permute(0, 2, 3, 1).flatten(1)), conv=conv(3, 16), out=linear(1024, 5)
    ),
    "prelu": toy(lambda n, x: n.head(n.act(n.conv(x))), conv=conv(3, 16), act=lambda: nn.PReLU(16), head=head(16)),
    "instance_norm": toy(
        lambda n, x: n.head(n.norm(n.conv(x)).relu()),
        conv=conv(3, 16),
        norm=lambda: nn.InstanceNorm2d(16, affine=True),
        head=head(16),
    ),
    "group_norm": toy(
        lambda n, x: n.head(n.norm(n.conv(x)).relu()), conv=conv(3, 16), norm=lambda: nn.GroupNorm(4, 16), head=head(16)
    ),
    "group_norm_of_one": toy(
        lambda n, x: n.head(n.norm(n.conv(x)).relu()), conv=conv(3, 16), norm=lambda: nn.GroupNorm(1, 16), head=head(16)
    ),
    "shared_conv": toy(
        lambda n, x: n.head(n.twice(n.twice(n.conv(x)).relu()).relu()),
        conv=conv(3, 16),
        twice=conv(16, 16),
        head=head(16),
    ),
    "layer_scale": toy(
        lambda n, x: n.head(n.conv(x).relu() * n.gamma + n.beta),
        conv=conv(3, 16),
        gamma=parameter(16, 1, 1),
        beta=parameter(1, 16, 1, 1),
        head=head(16),
    ),
    "two_outputs": toy(
        lambda n, x: (n.a(y := n.conv(x).relu()), {"b": n.b(y.mean((2, 3))), "flag": 3}),
        conv=conv(3, 16),
        a=head(16),
        b=linear(16, 4),
    ),
    "padding_modes": toy(
        lambda n, x: n.head(n.b(F.pad(n.a(x).relu(), (1, 1, 1, 1), mode="reflect"))),
        a=conv(3, 8, padding_mode="circular"),
        b=conv(8, 6, padding_mode="replicate"),
        head=head(6),
    ),
    "in_place": toy(
        _inplace, conv=conv(3, 16), second=conv(3, 16), third=conv(16, 12), fourth=conv(16, 12), head=head(12)
    ),
    "upsample": toy(
        lambda n, x: n.head(n.b(F.interpolate(n.a(x).relu(), scale_factor=2)).relu()),
        a=conv(3, 8),
        b=conv(8, 6),
        head=head(6),
    ),
    "unet": toy(_unet, a=conv(3, 8), b=conv(8, 12), c=conv(20, 6), out=point(6, 2)),
    "pools": toy(
        lambda n, x: n.head(F.avg_pool2d(F.max_pool2d(n.a(x), 2), 2) + F.adaptive_max_pool2d(n.b(x), 2)),
        a=conv(3, 8),
        b=conv(3, 8),
        head=head(8),
    ),
}
