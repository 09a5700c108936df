"""Removing channels from a network: recipes, thinner modules, channel samplers, rewritten graphs."""
