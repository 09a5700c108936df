"""Pruned networks on their way out: saved, exported, run elsewhere, timed, drawn."""
