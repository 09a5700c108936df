"""Example inputs from `input_info`, or from a registered data loader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pocketprune.common.devices import device_of
from pocketprune.common.errors import UserError
from pocketprune.common.names import nearest
from pocketprune.compat.nncf.config import NNCFConfig

FILLERS = ("random", "ones", "zeros")
Example = tuple[tuple[Any, ...], dict[str, Any]]


def example_inputs(net: nn.Module, config: NNCFConfig) -> Example:
    """Return (args, kwargs) that the network can be traced with, on its device.

    Raises:
        UserError: neither `input_info` nor a data loader says what they are.
    """
    listed = config.get("input_info", config.get("input_infos"))
    device = device_of(net)
    if listed is None:
        return (_first_input(config).to(device),), {}
    infos = [listed] if isinstance(listed, Mapping) else listed
    args, kwargs = [], {}
    for number, info in enumerate(infos):
        path = "input_info" if isinstance(listed, Mapping) else f"input_info[{number}]"
        tensor = _tensor(info, path).to(device)
        if "keyword" in info:
            kwargs[info["keyword"]] = tensor
        else:
            args.append(tensor)
    return tuple(args), kwargs


def inputs_of(batch: Any) -> Tensor:
    """Return the network's input of one batch of a data loader: the first part of a pair or a longer tuple."""
    first = batch[0] if isinstance(batch, (tuple, list)) else batch
    if not isinstance(first, Tensor):
        raise UserError(
            f"its batches begin with {type(first).__name__}; a tensor, or a tuple that begins with one, is accepted",
            argument="train_loader",
        )
    return first


def adaptation_batches(loader: Iterable[Any], samples: int, device: torch.device) -> list[Tensor]:
    """Return the first batches of a loader, at least so many samples if it has them."""
    found: list[Tensor] = []
    for batch in loader:
        if sum(map(len, found)) >= samples:
            break
        found.append(inputs_of(batch).to(device))
    return found


def _first_input(config: NNCFConfig) -> Tensor:
    loader = config.registered.train_loader
    if loader is None:
        raise UserError('none given; {"sample_size": [1, 3, 224, 224]} is accepted', argument="input_info")
    return inputs_of(next(iter(loader)))[:2]


def _tensor(info: Mapping[str, Any], path: str) -> Tensor:
    if "sample_size" not in info:
        raise UserError("none given; a shape such as [1, 3, 224, 224] is accepted", argument=f"{path}.sample_size")
    size = info["sample_size"]
    shape = [int(length) for length in (size if isinstance(size, (list, tuple)) else [size])]
    filler, kind = info.get("filler", FILLERS[0]), info.get("type", "float")
    if filler not in FILLERS:
        raise UserError(f"'{filler}' given{nearest(filler, FILLERS)}", argument=f"{path}.filler")
    dtypes = {"float": torch.float32, "long": torch.int64}
    if kind not in dtypes:
        raise UserError(f"'{kind}' given{nearest(kind, dtypes)}", argument=f"{path}.type")
    tensor = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    if filler != "random":
        tensor.fill_(filler == "ones")
    return tensor.to(dtypes[kind])
