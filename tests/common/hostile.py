"""Contents that no honest file has."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def odd_tensors(shape: tuple[int, ...]) -> dict[str, Tensor]:
    """A tensor of every kind that does not fill floating-point weights, by words of the message about it."""
    numbers = torch.ones(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantised tensors are going out of use
        return {
            "int64": numbers.long(),
            "uint8": numbers.byte(),
            "bool": numbers.bool(),
            "complex64": numbers.to(torch.complex64),
            "quantised qint8": torch.quantize_per_tensor(numbers, 0.1, 0, torch.qint8),
            "sparse float32": numbers.to_sparse(),
            "meta float32": torch.empty(shape, device="meta"),
        }


def inside_itself() -> dict[str, Any]:
    """A dict that contains itself where training scripts put their state dict."""
    content: dict[str, Any] = {"epoch": 3}
    content["state_dict"] = {"model": content}
    return content


def deflate(path: Path) -> None:
    """Pack an archive again with compression, which torch.save never does."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
