"""Keeps float32 products float32: TF32 and bfloat16 shortcuts would cost the moments four of their seven digits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def full_precision(like: Tensor) -> Iterator[None]:
    """Inside, matrix products on the device of ``like`` use IEEE float32; the caller's settings return on exit."""
    legacy = torch.get_float32_matmul_precision()
    backends = [b for b in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul) if _has_precision(b)]
    saved = [b.fp32_precision for b in backends]
    # The old setter moves the old and the new switches together; mixing them by hand makes torch refuse to multiply.
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(like.device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(legacy)
        for backend, precision in zip(backends, saved, strict=True):
            if backend.fp32_precision != precision:
                backend.fp32_precision = precision


def _has_precision(backend: object) -> bool:
    """Whether this torch has the per-backend switch (2.9 and later)."""
    try:
        return isinstance(backend.fp32_precision, str)
    except (AttributeError, AssertionError):
        return False
