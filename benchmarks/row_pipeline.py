"""The straightforward way, to compare with: explicit rows, LassoLars with a search over alpha, LinearRegression.

For every layer the images are run through the network as pruned so far, patches are cut out at sampled positions and
stacked; a few hundred rows choose channels, all rows refit the weight. This is how channel pruning is usually written.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LassoLars, LinearRegression
from torch import Tensor, nn


def prune_by_rows(
    net: nn.Module, layers: Sequence[str], batches: Sequence[Tensor], ratio: float, points: int, seed: int = 0
) -> dict[str, float]:
    """Prune (by zeroing) the input channels of named convolutions of a copy; the relative error left in each layer."""
    import copy

    dense, pruned = net, copy.deepcopy(net)
    rng = np.random.default_rng(seed)
    errors = {}
    for name in layers:
        X, Y = _rows(dense, pruned, name, batches, points, rng)
        conv = pruned.get_submodule(name)
        kept = _select(X, Y, conv.weight.detach().numpy(), max(1, round(ratio * conv.in_channels)), rng)
        taps = conv.weight[0, 0].numel()
        columns = (kept[:, None] * taps + np.arange(taps)).ravel()
        fit = LinearRegression().fit(X[:, columns], Y)
        residual = Y - fit.predict(X[:, columns])
        errors[name] = float((residual**2).sum() / ((Y - Y.mean(0)) ** 2).sum())
        weight = np.zeros((conv.out_channels, X.shape[1]), dtype=np.float32)
        weight[:, columns] = fit.coef_
        with torch.no_grad():
            conv.weight.copy_(torch.from_numpy(weight).view_as(conv.weight))
            conv.bias = nn.Parameter(torch.from_numpy(fit.intercept_.astype(np.float32)))
    return errors


@torch.no_grad()
def _rows(
    dense: nn.Module, pruned: nn.Module, name: str, batches: Sequence[Tensor], points: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Patches from the pruned network and outputs of the dense one at random positions."""
    seen: dict[str, Tensor] = {}
    hooks = [
        pruned.get_submodule(name).register_forward_pre_hook(lambda m, a: seen.__setitem__("x", a[0])),
        dense.get_submodule(name).register_forward_hook(lambda m, a, out: seen.__setitem__("y", out)),
    ]
    X, Y = [], []
    for batch in batches:
        dense(batch)
        pruned(batch)
        conv = dense.get_submodule(name)
        positions = rng.permutation(seen["y"][0, 0].numel())[:points]
        patches = F.unfold(seen["x"], conv.kernel_size, padding=conv.padding, stride=conv.stride)[:, :, positions]
        X.append(patches.transpose(1, 2).flatten(0, 1).numpy())
        Y.append(seen["y"].flatten(2)[:, :, positions].transpose(1, 2).flatten(0, 1).numpy())
    for hook in hooks:
        hook.remove()
    return np.concatenate(X), np.concatenate(Y)


def _select(X: np.ndarray, Y: np.ndarray, weight: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Channels with a nonzero Lasso coefficient, alpha doubled and then bisected until there are `count`."""
    channels = weight.shape[1]
    rows = rng.integers(0, len(X), min(400, len(X) // 20))
    blocks = X[rows].reshape(len(rows), channels, -1)
    design = np.stack([(blocks[:, i] @ weight[:, i].reshape(len(weight), -1).T).ravel() for i in range(channels)], 1)
    low, high, target = 0.0, 1e-4, Y[rows].ravel()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while len(found := _nonzero(design, target, high)) > count:
            low, high = high, high * 2
        for _ in range(30):
            if len(found) == count:
                break
            alpha = (low + high) / 2
            found = _nonzero(design, target, alpha)
            low, high = (alpha, high) if len(found) > count else (low, alpha)
    return found


def _nonzero(design: np.ndarray, target: np.ndarray, alpha: float) -> np.ndarray:
    return np.flatnonzero(LassoLars(alpha=alpha, fit_intercept=False, max_iter=3000).fit(design, target).coef_)
