"""Selection and refit on every kind of consumer: what is refitted comes closer to the dense network, measured."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pocketprune
from pocketprune.numerics.lasso import LassoPath, channel_gram
from pocketprune.numerics.moments import Moments
from pocketprune.structure.channel_groups import analyse
from pocketprune.thinning.recipes import recipe_of
from pocketprune.thinning.removal import thin
from tests.channel_pruning.door import prune as pruned_by
from tests.structure.families import CONVOLUTIONAL
from tests.structure.families_modern import MODERN
from tests.structure.small import shaken
from tests.structure.toy import Toy, conv, linear, parameter, point, toy

FAMILIES = {**CONVOLUTIONAL, **MODERN}


def maps(count: int, batch: int, seed: int) -> list[Tensor]:
    """Smooth images, whose channels and neighbours tell something about one another."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count * batch, 3, 4, 4, generator=generator)
    return list(F.interpolate(coarse, size=(16, 16), mode="bilinear").split(batch))


def rows(count: int, batch: int, seed: int) -> list[Tensor]:
    """Token sequences (batch, 7, 12) of rank 6."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(6, 12, generator=torch.Generator().manual_seed(0))
    return [torch.randn(batch, 7, 6, generator=generator) @ basis for _ in range(count)]


def _heads(n: nn.Module, x: Tensor) -> Tensor:
    q, k, v = (layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (n.q, n.k, n.v))
    return n.last(n.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).relu().mean(1))


def _mlp(n: nn.Module, x: Tensor) -> Tensor:
    return n.last((x + n.down(F.gelu(n.up(x)))).mean(1))


def _gated(n: nn.Module, x: Tensor) -> Tensor:
    return n.last(n.down(F.silu(n.gate(x)) * n.up(x)).relu().mean(1))


def _chain(n: nn.Module, x: Tensor) -> Tensor:
    return n.last(n.b(n.mid(n.a(x).relu()).relu()).relu().mean((2, 3)))


def _read_twice(n: nn.Module, x: Tensor) -> Tensor:
    y = n.a(x).relu()
    return n.last((n.b(y) + n.c(y)).relu().mean((2, 3)))


def _dense_block(n: nn.Module, x: Tensor) -> Tensor:
    y = n.a(x).relu()
    y = torch.cat([y, n.b(y).relu()], 1)
    return n.last(torch.cat([y, n.c(y).relu()], 1).mean((2, 3)))


def _residual(n: nn.Module, x: Tensor) -> Tensor:
    y = n.a(x).relu()
    y = y + n.c(n.b(y).relu())
    return n.last(n.d(y).relu().mean((2, 3)))


def _raw(n: nn.Module, x: Tensor) -> Tensor:
    return n.last(F.linear(n.up(x).relu(), n.weight).relu().mean(1))


TOKENS, IMAGES = rows, maps
ATTENTION = {
    "q": linear(12, 24),
    "k": linear(12, 24),
    "v": linear(12, 24),
    "out": linear(24, 16),
    "last": linear(16, 5),
}
CASES: dict[str, tuple[Toy, Callable[..., list[Tensor]], dict[str, Any], dict[str, int]]] = {
    "depthwise between": (
        toy(_chain, a=conv(3, 16), mid=conv(16, 16, groups=16), b=point(16, 12), last=linear(12, 5)),
        IMAGES,
        {},
        {"b": 8},
    ),
    "depthwise multiplier between": (
        toy(_chain, a=conv(3, 12), mid=conv(12, 24, groups=12), b=point(24, 12), last=linear(12, 5)),
        IMAGES,
        {},
        {"b": 12},
    ),
    "grouped": (
        toy(_chain, a=conv(3, 16), mid=conv(16, 16, groups=2), b=point(16, 12), last=linear(12, 5)),
        IMAGES,
        {},
        {"mid": 8, "b": 8},
    ),
    "without bias": (
        toy(
            _chain,
            a=conv(3, 16, bias=False),
            mid=conv(16, 16, bias=False),
            b=point(16, 12, bias=False),
            last=linear(12, 5),
        ),
        IMAGES,
        {},
        {"mid": 8, "b": 8},
    ),
    "read twice, sampled": (
        toy(_read_twice, a=conv(3, 16), b=conv(16, 12), c=point(16, 12), last=linear(12, 5)),
        IMAGES,
        {"shared_input": "sample"},
        {"b": 8, "c": 8},
    ),
    "read twice, coupled": (
        toy(_read_twice, a=conv(3, 16), b=conv(16, 12), c=point(16, 12), last=linear(12, 5)),
        IMAGES,
        {"shared_input": "couple"},
        {"b": 8, "c": 8},
    ),
    "dense concatenation, coupled": (
        toy(_dense_block, a=conv(3, 12), b=conv(12, 8), c=conv(20, 8), last=linear(28, 5)),
        IMAGES,
        {"shared_input": "couple"},
        {"b": 6, "c": 10},
    ),
    "residual stream, coupled": (
        toy(_residual, a=conv(3, 12), b=conv(12, 16), c=conv(16, 12), d=point(12, 12), last=linear(12, 5)),
        IMAGES,
        {"shared_input": "couple"},
        {"b": 6, "c": 8, "d": 6},
    ),
    "MLP": (toy(_mlp, up=linear(12, 24), down=linear(24, 12), last=linear(12, 5)), TOKENS, {}, {"down": 12}),
    "gated MLP": (
        toy(_gated, up=linear(12, 24), gate=linear(12, 24), down=linear(24, 12), last=linear(12, 5)),
        TOKENS,
        {},
        {"down": 12},
    ),
    "attention heads": (toy(_heads, **ATTENTION), TOKENS, {}, {"out": 12}),
    "attention values": (toy(_heads, **ATTENTION), TOKENS, {"attention": "widths"}, {"out": 12}),
    "raw weight without bias": (
        toy(_raw, up=linear(12, 24), weight=parameter(16, 24), last=linear(16, 5)),
        TOKENS,
        {},
        {"weight": 12},
    ),
}


def gap(net: nn.Module, dense: nn.Module, inputs: Tensor) -> float:
    with torch.no_grad():
        return float((net(inputs) - dense(inputs)).square().mean())


def without_refit(net: nn.Module, pruned: nn.Module, example: Tensor) -> nn.Module:
    """The network with the same channels removed as the pruned one, its weights as they were."""
    recipe = copy.deepcopy(recipe_of(pruned))
    recipe.new_biases = []
    return thin(analyse(net, example, attention=recipe.attention), recipe).eval()


def prune(net: nn.Module, batches: Sequence[Tensor], **options: Any) -> pocketprune.PruneResult:
    return pruned_by(net, batches, **({"shared_input": "keep", "layers": "all", "points_per_layer": 0} | options))


@pytest.mark.parametrize("selection", ["lasso", "obs"])
@pytest.mark.parametrize("case", CASES)
def test_a_refit_brings_every_consumer_closer(case: str, selection: str, tmp_path: Any) -> None:
    build, draw, options, widths = CASES[case]
    torch.manual_seed(0)
    net = build.build().eval()
    batches, unseen = draw(12, 16, 1), draw(1, 64, 2)[0]
    result = prune(net, batches, selection=selection, **options)
    layers = {layer.name: layer for layer in result.layers}
    assert {name: layers[name].kept for name in widths} == widths
    for name in widths:
        assert layers[name].error_after < layers[name].error_before
    raw = without_refit(net, result.net, batches[0][:2])
    assert sum(p.numel() for p in raw.parameters()) < sum(p.numel() for p in net.parameters())
    assert gap(result.net, net, unseen) < 0.5 * gap(raw, net, unseen)
    pocketprune.save(tmp_path / "net.pt", result.net)
    assert gap(pocketprune.load(tmp_path / "net.pt", net), result.net, unseen) == 0


QUICK = ("resnet_padded", "densenet", "shufflenet_v1", "mobilenet_v3", "convnext", "vit_fused", "unet")


@pytest.mark.parametrize(
    ("family", "shared_input"),
    [
        pytest.param(family, way, marks=() if family in QUICK and way == "couple" else pytest.mark.slow)
        for family in FAMILIES
        for way in ("sample", "couple", "keep")
    ],
)
def test_no_refit_raises_an_error(family: str, shared_input: str) -> None:
    """On every family, with few images: what a refit would make worse is left as it was."""
    torch.manual_seed(0)
    net = shaken(FAMILIES[family]())
    result = prune(net, maps(2, 12, 1), shared_input=shared_input)
    assert all(layer.error_after <= layer.error_before for layer in result.layers)
    assert result.params < result.dense_params or all(layer.kept == layer.channels for layer in result.layers)


def test_a_refit_that_helps_nothing_is_not_applied() -> None:
    """What goes was hardly read: the old weight is all but right, and no fit to four images does better."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    net[2].weight.data[:, 20:] *= 1e-6
    result = prune(net, [torch.randn(5, 12)], selection="magnitude")
    layer = next(layer for layer in result.layers if layer.name == "2")
    assert layer.kept_index == tuple(range(20))
    assert layer.error_after == layer.error_before
    assert torch.equal(result.net[2].weight, net[2].weight[:, :20])


def test_gram_matrices_of_several_consumers_add() -> None:
    """The channels that coupling keeps are those that the Lasso picks on the sum of both readers' matrices."""
    torch.manual_seed(0)
    net = (
        toy(
            lambda n, x: n.last((n.b(y := n.a(x).relu()) + n.c(y)).relu()),
            a=linear(12, 16),
            b=linear(16, 9),
            c=linear(16, 9),
            last=linear(9, 5),
        )
        .build()
        .eval()
    )
    x = torch.randn(200, 12)
    kept = {layer.name: layer.kept_index for layer in prune(net, x.split(50), shared_input="couple").layers}
    with torch.no_grad():
        y = net.a(x).relu()
        total = [torch.zeros(16, 16, dtype=torch.float64), torch.zeros(16, dtype=torch.float64)]
        for layer in (net.b, net.c):
            moments = Moments.zeros(16, 9)
            moments.update(y, y @ layer.weight.T)
            for part, more in zip(
                total, channel_gram(moments.A, moments.B, layer.weight.T.double(), 1, None), strict=True
            ):
                part += more
    assert kept["b"] == kept["c"] == tuple(LassoPath(*total).kept(8).tolist())


def test_inputs_given_by_name() -> None:
    net = (
        toy(
            lambda n, image, extra: n.last(torch.cat([n.b(n.a(image).relu()).mean((2, 3)), extra], 1).relu()),
            a=conv(3, 16),
            b=conv(16, 8),
            last=linear(10, 5),
        )
        .build()
        .eval()
    )
    batches = [{"image": image, "extra": torch.randn(16, 2)} for image in maps(6, 16, 0)]
    result = prune(net, batches)
    layer = next(layer for layer in result.layers if layer.name == "b")
    assert layer.kept == 8
    assert layer.error_after < layer.error_before
    assert result.net(**batches[0]).shape == (16, 5)
