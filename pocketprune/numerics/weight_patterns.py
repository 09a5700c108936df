"""Which weights are masked together, and which of them at a given count.

A weight has the shape (outputs, inputs, *taps). Its *pieces* are what is masked as a whole: single weights, blocks of
n outputs x d inputs, or the m - n least ones of each m neighbouring inputs (the pattern n:m, where n stay, which sparse
tensor cores of GPUs compute at 2:4). Every count is exact, and ties go to the piece that comes first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pocketprune.common.errors import UserError

UNSTRUCTURED = "unstructured"
_FORM = re.compile(r"([1-9]\d{0,3})([x:])([1-9]\d{0,3})")


@dataclass(frozen=True)
class Pattern:
    """A shape in which weights are masked.

    Attributes:
        rows, columns: outputs and inputs of a block; 1 and `of` for n:m.
        stay: n of n:m; 0 for blocks, which are masked whole.
    """

    rows: int = 1
    columns: int = 1
    stay: int = 0

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Return the pattern that "unstructured", "4x1" (outputs x inputs) or "2:4" stands for.

        Raises:
            UserError: another text, or n:m where n is not less than m.
        """
        found = _FORM.fullmatch(text) if isinstance(text, str) else None
        if text == UNSTRUCTURED:
            return cls()
        if found is None:
            raise UserError(f"{text!r} given; accepted: {UNSTRUCTURED}, 4x1, 2:4 and the like", argument="pattern")
        first, sign, second = int(found[1]), found[2], int(found[3])
        if sign == "x":
            return cls(first, second)
        if first >= second:
            raise UserError(f"{text!r} given; n:m with n below m is accepted", argument="pattern")
        return cls(1, second, first)

    @property
    def size(self) -> int:
        """How many weights a piece has."""
        return self.rows * self.columns - self.stay

    @property
    def largest_level(self) -> float:
        """The largest share of weights that can be masked."""
        return self.size / (self.rows * self.columns)

    def misfit(self, shape: Sequence[int]) -> str:
        """Return why a weight of this shape has no such pieces; "" where it has."""
        for axis, part, name in ((0, self.rows, "outputs"), (1, self.columns, "inputs")):
            if shape[axis] % part:
                return f"it has {shape[axis]} {name}, which {part} does not divide"
        return ""

    def pieces(self, shape: Sequence[int]) -> int:
        """Return how many pieces a weight of this shape has."""
        return torch.Size(shape).numel() // (self.rows * self.columns)

    def scores(self, scores: Tensor) -> Tensor:
        """Return the score of each piece, the sum of its weights' ones."""
        grouped = self._grouped(scores)
        if self.stay:
            grouped = grouped.sort(dim=1).values[:, : self.size]
        return grouped.sum(1)

    def masked(self, scores: Tensor, chosen: Tensor) -> Tensor:
        """Return where a weight is masked, a boolean of its shape.

        Args:
            scores: of each weight, of the weight's shape; they decide inside the pieces of n:m.
            chosen: boolean (pieces,), the masked ones.
        """
        grouped = torch.zeros_like(self._grouped(scores), dtype=torch.bool)
        if self.stay:
            order = self._grouped(scores).sort(dim=1, stable=True).indices[:, : self.size]
            grouped.scatter_(1, order, True)
        else:
            grouped.fill_(True)
        return self._spread(grouped & chosen[:, None], scores.shape)

    def _grouped(self, values: Tensor) -> Tensor:
        """Return (pieces, weights of one piece's block)."""
        n, d = values.shape[:2]
        parts = values.reshape(n // self.rows, self.rows, d // self.columns, self.columns, -1)
        return parts.permute(0, 2, 4, 1, 3).flatten(0, 2).flatten(1)

    def _spread(self, grouped: Tensor, shape: Sequence[int]) -> Tensor:
        n, d = shape[0] // self.rows, shape[1] // self.columns
        parts = grouped.view(n, d, -1, self.rows, self.columns)
        return parts.permute(0, 3, 1, 4, 2).reshape(shape)


def lowest(scores: Sequence[Tensor], count: int) -> list[Tensor]:
    """Return which entries of several vectors are the `count` lowest of all; of equal ones, those that come first."""
    whole = torch.cat([vector.flatten() for vector in scores])
    chosen = torch.zeros_like(whole, dtype=torch.bool)
    chosen[whole.sort(stable=True).indices[:count]] = True
    return list(chosen.split([vector.numel() for vector in scores]))


def least_masked(weight_scores: Sequence[Tensor], pattern: Pattern, level: float) -> list[Tensor]:
    """Return where weights are masked so that together a level of them is, the lowest scores first.

    Args:
        weight_scores: the score of each weight, of the weights' shapes.
        pattern: what is masked together.
        level: the share of weights; the count of pieces is the nearest one.
    """
    pieces = [pattern.scores(scores) for scores in weight_scores]
    count = piece_count(level, sum(map(len, pieces)), pattern)
    chosen = lowest(pieces, count)
    return [pattern.masked(scores, mine) for scores, mine in zip(weight_scores, chosen, strict=True)]


def piece_count(level: float, pieces: int, pattern: Pattern) -> int:
    """Return how many of so many pieces are masked at a level: the nearest count, at most all."""
    return min(pieces, round(level * pieces / pattern.largest_level))


def pack(mask: Tensor) -> Tensor:
    """Return a boolean tensor as bytes, eight of its values in each."""
    flat = mask.flatten().cpu()
    padded = torch.cat([flat, flat.new_zeros(-len(flat) % 8)]).view(-1, 8).to(torch.uint8)
    return (padded << torch.arange(8, dtype=torch.uint8)).sum(1).to(torch.uint8)


def unpack(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the boolean tensor of this shape that `pack` was given."""
    bits = (packed.cpu()[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return bits.flatten()[: torch.Size(shape).numel()].bool().view(*shape)
