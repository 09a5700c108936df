"""What a run works on: its images, its network, its files, in a few numbers that tell them from others.

The numbers are the same wherever the data lies and on every device, so that a run may be moved before it goes on.
"""

from __future__ import annotations

import copy
import hashlib
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from config import Config
from datasets import DATASETS, Dataset, Split
from pocketprune.common.modes import evaluation_mode
from pocketprune.training.checkpoint import random_states, seed_everything, set_random_states

LOOKED_AT = 32  # images of each split
TOLERANCE = 0.02  # of means of normalised pixels and of outputs: devices and decoders round differently
NET, FILES = ("layers", "outputs"), ("init_checkpoint", "dst_checkpoint")  # parts of an identity
SPLITS = {"train": "training", "val": "validation", "test": "test"}

Identity = dict[str, Any]
"""Name -> plain values, with a list of numbers wherever they are compared within TOLERANCE."""


def identity_of(config: Config, dataset: Dataset, net: nn.Module) -> Identity:
    """Return what a run and its resumption must have in common beside their flags."""
    files: dict[str, Any] = {name: config.as_dict()[name] for name in FILES}
    before = random_states()
    try:
        return {
            **{f"{title} images": _images(getattr(dataset, part)) for part, title in SPLITS.items()},
            "layers": _layers(net),
            "outputs": _outputs(net, dataset.input_shape),
            **{name: _content(Path(path)) if path else "" for name, path in files.items()},
        }
    finally:
        set_random_states(before)


def other_parts(saved: Mapping[str, Any], now: Identity) -> list[str]:
    """Return the names of what differs. What an earlier version did not save is not compared."""
    return [name for name in now if name in saved and not _alike(saved[name], now[name])]


def complaint(config: Config, parts: list[str], whose: str) -> str:
    """Return in words that `parts`, at least one, are not those of `whose`, opened by the flag that gives them."""
    images = [name.removesuffix(" images") for name in parts if name.endswith(" images")]
    if images:
        flag = "data_dir" if config.data.dataset in DATASETS else "dataset"
        hint = "" if "test" in images else "; --seed and --nb_smpls_val divide them"
        return f"--{flag}={getattr(config.data, flag)}: not the images of {whose} (other: {', '.join(images)}{hint})"
    net = [name for name in parts if name in NET]
    if net:
        return f"--net={config.net.net}: not the network of {whose} (other {' and '.join(net)})"
    if parts[0] not in FILES:
        return f"--workdir={config.workdir}: not the {parts[0]} of {whose}"
    return f"--{parts[0]}={config.as_dict()[parts[0]]}: not the file of {whose} (other content)"


def _images(split: Split) -> list[Any]:
    """Return the number of images, and of a few drawn ones the labels, mean pixels and deviations."""
    seed_everything(0)  # a person's own split may draw from the global generators
    images, labels = next(iter(split.batches(min(LOOKED_AT, len(split)), shuffle=True)))
    pixels = images.flatten(1).double()
    every = getattr(split, "labels", labels)
    return [
        len(split),
        hashlib.sha256(every.cpu().contiguous().numpy().tobytes()).hexdigest()[:16],
        labels.tolist(),
        pixels.mean(1).tolist(),
        pixels.std(1, correction=0).tolist(),
    ]


def _layers(net: nn.Module) -> str:
    """Return a digest of the printed network and of its tensors' names and shapes."""
    tensors = {name: tuple(getattr(tensor, "shape", ())) for name, tensor in net.state_dict().items()}
    return hashlib.sha256(f"{net}\n{tensors}".encode()).hexdigest()[:16]


def _outputs(net: nn.Module, input_shape: tuple[int, ...]) -> list[float]:
    """Return what the network makes of two fixed images with fixed weights: what its code computes, not its numbers.

    Empty where it cannot be run so, on the CPU; it is then known by its layers.
    """
    try:
        alike = copy.deepcopy(net).cpu()
        _fill(alike)
        images = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
        seed_everything(0)
        with torch.no_grad(), evaluation_mode(alike):
            logits = alike(images).flatten().double()
    except Exception:  # a person's own code can raise anything; what is wrong with it is told elsewhere
        return []
    scale = float(logits.abs().max())
    return (logits / scale).tolist() if math.isfinite(scale) and scale > 0 else []


@torch.no_grad()
def _fill(net: nn.Module) -> None:
    """Give every floating-point tensor numbers that follow from its name and shape alone."""
    for name, tensor in net.state_dict().items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            continue
        source = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        if tensor.dim() > 1:
            values = torch.randn(tensor.shape, generator=source) * math.sqrt(2 / max(1, tensor[0].numel()))
        else:
            values = 0.5 + torch.rand(tensor.shape, generator=source)
        tensor.copy_(values)


def _content(path: Path) -> str:
    """Return a digest of a file; empty where it cannot be read, which is told by whoever needs it."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError:
        return ""


def _alike(first: Any, second: Any) -> bool:
    """Return whether two values are equal, numbers within TOLERANCE."""
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_alike, first, second))
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, abs_tol=TOLERANCE)
    return bool(first == second)
