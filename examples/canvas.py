"""Pictures with several digits on them, drawn from scikit-learn's: for segmentation and for detection."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

SIZE = 32
CLASSES = 10
TRIES = 20  # places tried for a digit before it is left out

Place = tuple[int, int, int, int]


@dataclass
class Canvas:
    """Pictures and what is on them.

    Attributes:
        images: (n, 1, SIZE, SIZE), standardised.
        masks: (n, SIZE, SIZE), the digit of each pixel plus one, 0 where there is none.
        boxes: for each picture (k, 4): left, top, right, bottom in pixels.
        labels: for each picture (k,): the digits.
    """

    images: Tensor
    masks: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]

    def __len__(self) -> int:
        return len(self.images)


def draw(count: int, seed: int) -> Canvas:
    """Return `count` pictures with one to three digits each, of 8, 12 or 16 pixels, which do not overlap."""
    digits = load_digits()
    glyphs, chosen = torch.tensor(digits.images / 16.0, dtype=torch.float32), np.random.default_rng(seed)
    images = torch.zeros(count, 1, SIZE, SIZE)
    masks = torch.zeros(count, SIZE, SIZE, dtype=torch.long)
    boxes, labels = [], []
    for number in range(count):
        placed: list[Place] = []
        kinds: list[int] = []
        for _ in range(chosen.integers(1, 4)):
            which, side = int(chosen.integers(len(glyphs))), int(chosen.choice([8, 12, 16]))
            place = _free_place(placed, side, chosen)
            if place is None:
                continue
            left, top = place
            glyph = F.interpolate(glyphs[which][None, None], size=(side, side), mode="bilinear")[0, 0]
            images[number, 0, top : top + side, left : left + side] = glyph
            kind = int(digits.target[which])
            masks[number, top : top + side, left : left + side][glyph > 0.3] = kind + 1
            placed.append((left, top, left + side, top + side))
            kinds.append(kind)
        boxes.append(torch.tensor(placed, dtype=torch.float32).reshape(-1, 4))
        labels.append(torch.tensor(kinds, dtype=torch.long))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return Canvas((images + 0.1 * noise - 0.1) / 0.3, masks, boxes, labels)


def _free_place(placed: list[Place], side: int, chosen: np.random.Generator) -> tuple[int, int] | None:
    for _ in range(TRIES):
        left, top = (int(chosen.integers(SIZE - side + 1)) for _ in range(2))
        if all(left + side <= a or left >= c or top + side <= b or top >= d for a, b, c, d in placed):
            return left, top
    return None
