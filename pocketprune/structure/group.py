"""One channel group: channels that are alike, with everything that goes with each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pocketprune.structure.propagation import Slice


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are alike: each can be removed, with all its slices, independently of the others.

    Attributes:
        name: path of the first layer that writes it (with a number where that layer writes several groups).
        size: channels in the group.
        prunable: whether they can be removed; `reason` says why not, naming the node.
        exact: False where statistics are taken over the channels, so that removal changes them; `inexact_reason` says
            where, naming the node.
        channels: per channel, its slices `(tensor, axis, index)`.
        producers, consumers: names of the weights that write and read it, in forward order.
        products: operators that read it without a weight (the scores of an attention, a sum over channels).
    """

    name: str
    size: int
    prunable: bool
    reason: str
    exact: bool
    channels: tuple[tuple[Slice, ...], ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    classes: tuple[int, ...] = field(default=(), repr=False)
    products: tuple[str, ...] = ()
    inexact_reason: str = ""

    def __str__(self) -> str:
        """One line for people: size, what writes and reads it, and why it stays if it does."""
        channels = f"{self.size} channel{'s' if self.size > 1 else ''}"
        readers = _listed((*self.consumers, *self.products)) or "nothing"
        notes = ("" if self.exact else f"  [inexact: {self.inexact_reason}]") + (
            "" if self.prunable else f"  [stays: {self.reason}]"
        )
        return f"{self.name}: {channels}, {_listed(self.producers)} -> {readers}{notes}"

    def slices(self, channels: Sequence[int]) -> dict[tuple[str, int], list[int]]:
        """(tensor, axis) -> indices that belong to these channels."""
        found: dict[tuple[str, int], list[int]] = {}
        for channel in channels:
            for piece in self.channels[channel]:
                found.setdefault((piece.tensor, piece.axis), []).append(piece.index)
        return found


def _listed(names: Sequence[str], most: int = 4) -> str:
    """Names joined for people, a long list cut."""
    shown = " + ".join(names[:most])
    return f"{shown} + {len(names) - most} more" if len(names) > most else shown
