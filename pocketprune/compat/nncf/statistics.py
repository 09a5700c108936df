"""What is pruned at present, in the tables that NNCF prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

GIGA, MEGA = 1e9, 1e6


@dataclass(frozen=True)
class PrunedLayerSummary:
    """One pruned layer: its name, the shapes of its weight and mask, and the share of its filters that is masked."""

    name: str
    weight_shape: list[int]
    mask_shape: list[int]
    filter_pruning_level: float


@dataclass(frozen=True)
class PrunedModelStatistics:
    """The network as it was and without what is masked.

    Attributes:
        full_flops, current_flops: as NNCF counts them, so also parameters and filters.
        pruned_layers_summary: the pruned layers.
        left_alone: layers that are not pruned, each with the reason.
    """

    full_flops: float
    current_flops: float
    full_params_num: float
    current_params_num: float
    full_filters_num: float
    current_filters_num: float
    pruned_layers_summary: Sequence[PrunedLayerSummary]
    left_alone: Sequence[tuple[str, str]] = ()

    @property
    def flops_pruning_level(self) -> float:
        """The share of the FLOPs that is gone."""
        return 1 - self.current_flops / self.full_flops

    @property
    def params_pruning_level(self) -> float:
        """The share of the parameters that is gone."""
        return 1 - self.current_params_num / self.full_params_num

    @property
    def filter_pruning_level(self) -> float:
        """The share of the filters that is gone."""
        return 1 - self.current_filters_num / max(self.full_filters_num, 1)

    def to_str(self) -> str:
        """Return the tables of layers and of the network."""
        layers = [
            (s.name, str(s.weight_shape), str(s.mask_shape), f"{s.filter_pruning_level:.3f}")
            for s in self.pruned_layers_summary
        ]
        counts = [
            ("GFLOPs", self.full_flops / GIGA, self.current_flops / GIGA, self.flops_pruning_level, ".3f"),
            ("MParams", self.full_params_num / MEGA, self.current_params_num / MEGA, self.params_pruning_level, ".3f"),
            ("Filters", self.full_filters_num, self.current_filters_num, self.filter_pruning_level, ".0f"),
        ]
        model = [(name, format(a, shape), format(b, shape), f"{level:.3f}") for name, a, b, level, shape in counts]
        return "\n".join(
            (
                "Statistics by pruned layers:",
                _table(("Layer's name", "Weight's shape", "Mask's shape", "Filter pruning level"), layers),
                *(
                    ("Layers left alone:", _table(("Layer's name", "Reason"), self.left_alone))
                    if self.left_alone
                    else ()
                ),
                "Statistics of the pruned model:",
                _table(("#", "Full", "Current", "Pruning level"), model),
                "Prompt: statistic pruning level = 1 - statistic current / statistic full.",
            )
        )


@dataclass(frozen=True)
class FilterPruningStatistics:
    """The network, and the levels of the schedule: now and at its end."""

    model_statistics: PrunedModelStatistics
    current_pruning_level: float
    target_pruning_level: float
    prune_flops: bool

    def to_str(self) -> str:
        """Return all tables."""
        mode = "FLOPs" if self.prune_flops else "filter"
        rows = [
            (f"{mode[0].upper()}{mode[1:]} pruning level in current epoch", f"{self.current_pruning_level:.3f}"),
            (f"Target {mode} pruning level", f"{self.target_pruning_level:.3f}"),
        ]
        head = "Statistics of the filter pruning algorithm:"
        return f"{self.model_statistics.to_str()}\n{head}\n{_table(('Statistic name', 'Value'), rows)}"


@dataclass(frozen=True)
class QuantizationStatistics:
    """What is quantised: layers and their bits, activations and theirs, and what stays in float."""

    layers: dict[str, int]
    activations: dict[str, int]
    in_float: Sequence[str]

    def to_str(self) -> str:
        """Return a table of counts."""
        rows = [
            ("Quantised weights", str(len(self.layers))),
            ("Quantised activations", str(len(self.activations))),
            ("In float", ", ".join(self.in_float) or "nothing"),
        ]
        return f"Statistics of the quantization algorithm:\n{_table(('Statistic name', 'Value'), rows)}"


@dataclass(frozen=True)
class NNCFStatistics:
    """The statistics of every algorithm of a configuration; None for those that are not in it."""

    filter_pruning: FilterPruningStatistics
    quantization: QuantizationStatistics | None = field(default=None)
    magnitude_sparsity: None = field(default=None)
    rb_sparsity: None = field(default=None)

    def to_str(self) -> str:
        """Return all tables."""
        parts = [self.filter_pruning.to_str(), *([self.quantization.to_str()] if self.quantization else [])]
        return "\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in a frame of plus signs and dashes."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    frame = "+".join(["", *("-" * (width + 2) for width in widths), ""])
    lines = [frame, _row(head, widths), frame.replace("-", "=")]
    for row in rows:
        lines += [_row(row, widths), frame]
    return "\n".join(lines)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"| {cell:<{width}} " for cell, width in zip(cells, widths, strict=True)) + "|"
