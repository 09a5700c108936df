"""Statistics: which weights are masked at present, as a table for people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    Attributes:
        name: of the layer.
        weights: how many it has.
        masked: how many of them are masked.
        pattern: in which they are.
    """

    name: str
    weights: int
    masked: int
    pattern: str

    @property
    def level(self) -> float:
        """The share that is masked."""
        return self.masked / self.weights


@dataclass(frozen=True)
class WeightStatistics:
    """What is masked at present; printed as a table.

    Attributes:
        layers: all layers that a rule takes.
    """

    layers: tuple[LayerRow, ...]

    @property
    def level(self) -> float:
        """The share of all these layers' weights that is masked."""
        return sum(row.masked for row in self.layers) / sum(row.weights for row in self.layers)

    def __str__(self) -> str:
        """Return one line for each layer, and one for all."""
        total = LayerRow("all", sum(r.weights for r in self.layers), sum(r.masked for r in self.layers), "")
        width = max(len("layer"), *(len(row.name) for row in self.layers))
        lines = [f"{'layer':{width}}  {'weights':>10}  {'masked':>10}  level  pattern"]
        for row in (*self.layers, total):
            lines.append(f"{row.name:{width}}  {row.weights:10,}  {row.masked:10,}  {row.level:.3f}  {row.pattern}")
        return "\n".join(line.rstrip() for line in lines)
