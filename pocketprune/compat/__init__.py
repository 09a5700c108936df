"""Doors for users of other tools: their words, this project's engine."""
