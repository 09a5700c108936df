"""Distiller's schedules, summaries and sensitivity analysis under their names."""

from pocketprune.compat.distiller.scheduler import CompressionScheduler, dict_config, file_config
from pocketprune.compat.distiller.sensitivity import (
    perform_sensitivity_analysis,
    sensitivities_to_csv,
    sensitivities_to_png,
)
from pocketprune.compat.distiller.summaries import model_performance_summary, model_summary, weights_sparsity_summary
from pocketprune.compat.distiller.thresholding import group_threshold_mask

__all__ = [
    "CompressionScheduler",
    "dict_config",
    "file_config",
    "group_threshold_mask",
    "model_performance_summary",
    "model_summary",
    "perform_sensitivity_analysis",
    "sensitivities_to_csv",
    "sensitivities_to_png",
    "weights_sparsity_summary",
]
