"""Compact transformers and their kin: patterns of ConvNeXt, ViT, Swin and MaxViT."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.structure.families import InvertedResidual, cbr


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    """Depthwise 7x7, norm, MLP on the last axis, layer scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(channels, channels, 7, padding=3, groups=channels), nn.LayerNorm(channels)
        self.up, self.down = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(1e-6 * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(F.gelu(self.up(self.norm(self.depthwise(x).permute(0, 2, 3, 1)))))
        return x + (self.scale * y).permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4), ChannelNorm(8))
        self.stages = nn.Sequential(
            ConvNextBlock(8), ConvNextBlock(8), ChannelNorm(8), nn.Conv2d(8, 12, 2, 2), ConvNextBlock(12)
        )
        self.norm, self.fc = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(self.stages(self.stem(x)).mean((2, 3))))


class Attention(nn.Module):
    """Packed queries, keys and values; fused or written out; an optional bias on the scores."""

    def __init__(self, width: int, heads: int, fused: bool, positions: int = 0) -> None:
        super().__init__()
        self.heads, self.fused, self.scale = heads, fused, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        if positions:
            side = torch.arange(positions)
            self.table = nn.Parameter(torch.zeros(2 * positions - 1, heads))
            self.register_buffer("index", side[:, None] - side[None, :] + positions - 1)
        self.biased = bool(positions)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = (q * self.scale) @ k.transpose(-2, -1)
            if self.biased:
                scores = scores + self.table[self.index.view(-1)].view(n, n, -1).permute(2, 0, 1).unsqueeze(0)
            if mask is not None:
                windows = mask.shape[0]
                scores = (scores.view(-1, windows, self.heads, n, n) + mask[None, :, None]).view(-1, self.heads, n, n)
            y = scores.softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, n, c))


class EncoderBlock(nn.Module):
    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, fused)
        self.mlp = nn.Sequential(nn.Linear(width, 3 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(3 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches, class token, position table, encoder blocks."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 16, 4, 4), nn.Parameter(torch.zeros(1, 1, 16))
        self.position = nn.Parameter(0.02 * torch.randn(1, 17, 16))
        self.blocks = nn.Sequential(EncoderBlock(16, 4, fused), EncoderBlock(16, 2, fused))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class TorchEncoder(nn.Module):
    """torch's own encoder layers on patches."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=True)
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def windows(x: Tensor, size: int) -> Tensor:
    """(b, h, w, c) -> (windows, size * size, c)."""
    b, h, w, c = x.shape
    return x.view(b, h // size, size, w // size, size, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, size * size, c)


def unwindowed(x: Tensor, size: int, h: int, w: int) -> Tensor:
    return (
        x.view(-1, h // size, w // size, size, size, x.shape[-1])
        .permute(0, 1, 3, 2, 4, 5)
        .reshape(-1, h, w, x.shape[-1])
    )


class SwinBlock(nn.Module):
    """Attention within windows, shifted by half a window in every other block."""

    def __init__(self, width: int, heads: int, shift: int) -> None:
        super().__init__()
        self.shift, self.attention = shift, Attention(width, heads, False, positions=4)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        _, h, w, _ = x.shape
        y, mask = self.norm1(x), None
        if self.shift:
            y = torch.roll(y, (-self.shift, -self.shift), (1, 2))
            region = torch.zeros(1, h, w, 1)
            region[:, -self.shift :] = 1
            region[:, :, -self.shift :] += 2
            region = windows(region, 2).squeeze(-1)
            mask = (region[:, None] != region[:, :, None]).to(x.dtype) * -100.0
        y = unwindowed(self.attention(windows(y, 2), mask), 2, h, w)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


class Swin(nn.Module):
    """Two window blocks, patch merging, one more."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.blocks = nn.Conv2d(3, 12, 2, 2), nn.Sequential(SwinBlock(12, 3, 0), SwinBlock(12, 3, 1))
        self.norm, self.merge, self.last = nn.LayerNorm(48), nn.Linear(48, 16, bias=False), SwinBlock(16, 4, 0)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.patches(x).permute(0, 2, 3, 1))
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
        return self.head(self.last(self.merge(self.norm(x))).mean((1, 2)))


class MaxViT(nn.Module):
    """An inverted residual, attention within blocks, attention across a grid."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = cbr(3, 12, 3, 2), InvertedResidual(12, 12, 2, 1, True, nn.GELU)
        self.block, self.grid = EncoderBlock(12, 3, False), EncoderBlock(12, 2, True)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.stem(x)).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        x = unwindowed(self.block(windows(x, 4)), 4, h, w)
        x = x.view(b, 2, h // 2, 2, w // 2, c).permute(0, 2, 4, 1, 3, 5).reshape(-1, 4, c)
        x = self.grid(x).view(b, h // 2, w // 2, 2, 2, c).permute(0, 3, 1, 4, 2, 5).reshape(b, h, w, c)
        return self.head(x.mean((1, 2)))


MODERN: dict[str, Callable[[], nn.Module]] = {
    "convnext": ConvNext,
    "vit": lambda: ViT(False),
    "vit_fused": lambda: ViT(True),
    "torch_encoder": TorchEncoder,
    "swin": Swin,
    "maxvit": MaxViT,
}
"""Networks for images of 3x16x16."""
