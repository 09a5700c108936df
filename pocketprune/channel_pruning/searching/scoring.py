"""Held-out images: what a network's predictions on them say about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pocketprune.common.errors import UserError
from pocketprune.search.interface import Score

LEAST = 50  # images; fewer say nothing about accuracy


class HeldOut:
    """Images that judge networks, and the dense network's predictions on them.

    Args:
        batches: images (m, C, H, W), or pairs of images and labels (m,). Where there are no labels, those that the
            dense network predicts take their place: accuracy is then the agreement with it.

    Raises:
        UserError: fewer than 50 images.
    """

    def __init__(self, dense: nn.Module, batches: Iterable[Tensor | tuple[Tensor, Tensor]]) -> None:
        given = [_pair(batch, number) for number, batch in enumerate(batches)]
        images = sum(len(x) for x, _ in given)
        if images < LEAST:
            raise UserError(
                f"{images} images given; a search needs {LEAST} or more to tell networks apart", argument="held_out"
            )
        self._expected = [dense(x).float().log_softmax(1) for x, _ in given]
        self._batches = [
            (x, expected.argmax(1) if labels is None else labels)
            for (x, labels), expected in zip(given, self._expected, strict=True)
        ]

    @torch.inference_mode()
    def judge(self, net: nn.Module) -> Score:
        """Return the score of a network in evaluation mode."""
        correct = loss = divergence = images = 0.0
        for (x, labels), expected in zip(self._batches, self._expected, strict=True):
            found = net(x).float().log_softmax(1)
            correct += float((found.argmax(1) == labels).sum())
            loss += float(functional.nll_loss(found, labels, reduction="sum"))
            divergence += float(functional.kl_div(found, expected, reduction="sum", log_target=True))
            images += len(labels)
        return Score(correct / images, loss / images, divergence / images)


def _pair(batch: Any, number: int) -> tuple[Tensor, Tensor | None]:
    """A batch as images and labels, if it has any."""
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch):
        return batch[0], batch[1]
    raise UserError(
        f"{type(batch).__name__} given; a tensor of images, or a pair of images and labels, is accepted",
        argument=f"held_out[{number}]",
    )
