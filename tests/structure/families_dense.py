"""Compact networks of dense prediction: patterns of U-Net, FPN and YOLO."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.structure.families import BasicBlock, cbr


class UNet(nn.Module):
    """Two levels down and up, by transposed convolution and by interpolation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = cbr(3, 8), cbr(8, 12), cbr(12, 16)
        self.up1, self.d = nn.ConvTranspose2d(16, 12, 2, 2), cbr(24, 12)
        self.e, self.out = cbr(20, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        d = self.d(torch.cat([self.up1(self.c(F.max_pool2d(b, 2))), b], 1))
        return self.out(self.e(torch.cat([F.interpolate(d, size=a.shape[-2:], mode="bilinear"), a], 1)))


class FeaturePyramid(nn.Module):
    """A backbone of three levels, lateral convolutions, a shared head on every level."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.levels = cbr(3, 8), nn.ModuleList([BasicBlock(8, 12, 2), BasicBlock(12, 16, 2)])
        self.lateral = nn.ModuleList([nn.Conv2d(c, 10, 1) for c in (8, 12, 16)])
        self.smooth = nn.ModuleList([nn.Conv2d(10, 10, 3, padding=1) for _ in range(3)])
        self.tower, self.boxes, self.scores = cbr(10, 10), nn.Conv2d(10, 4, 1), nn.Conv2d(10, 3, 1)

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        maps = [self.stem(x)]
        for level in self.levels:
            maps.append(level(maps[-1]))
        top = self.lateral[2](maps[2])
        merged = [top]
        for lateral, lower in zip(self.lateral[1::-1], maps[1::-1], strict=False):
            top = lateral(lower) + F.interpolate(top, scale_factor=2.0)
            merged.insert(0, top)
        towers = [self.tower(smooth(m)) for smooth, m in zip(self.smooth, merged, strict=True)]
        return [(self.boxes(t), self.scores(t)) for t in towers]


class C2f(nn.Module):
    """YOLOv8: halves, a chain of bottlenecks on the second, all of them joined."""

    def __init__(self, c_in: int, c_out: int, count: int = 2) -> None:
        super().__init__()
        self.half = c_out // 2
        self.enter, self.leave = cbr(c_in, c_out, 1, act=nn.SiLU), cbr((2 + count) * self.half, c_out, 1, act=nn.SiLU)
        self.chain = nn.ModuleList(
            nn.Sequential(cbr(self.half, self.half, act=nn.SiLU), cbr(self.half, self.half, act=nn.SiLU))
            for _ in range(count)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.chain:
            parts.append(parts[-1] + block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class YoloNeck(nn.Module):
    """Backbone of C2f blocks, fast spatial pyramid pooling, a top-down path, boxes decoded from distributions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.down = cbr(3, 8, 3, 2, act=nn.SiLU), C2f(8, 8), cbr(8, 12, 3, 2, act=nn.SiLU)
        self.b, self.squeeze, self.widen = C2f(12, 12), cbr(12, 6, 1), cbr(24, 12, 1)
        self.c, self.boxes, self.classes = C2f(20, 8), nn.Conv2d(8, 16, 1), nn.Conv2d(8, 3, 1)
        self.register_buffer("bins", torch.arange(4.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = self.a(self.stem(x))
        y = self.squeeze(self.b(self.down(a)))
        pools = [y]
        for _ in range(3):
            pools.append(F.max_pool2d(pools[-1], 5, 1, 2))
        c = self.c(torch.cat([F.interpolate(self.widen(torch.cat(pools, 1)), scale_factor=2.0), a], 1))
        boxes = self.boxes(c).flatten(2).view(x.shape[0], 4, 4, -1).softmax(2)
        return (boxes * self.bins.view(1, 1, 4, 1)).sum(2), self.classes(c).flatten(2).sigmoid()


DENSE: dict[str, Callable[[], nn.Module]] = {"unet": UNet, "feature_pyramid": FeaturePyramid, "yolo": YoloNeck}
"""Networks for images of 3x16x16."""
