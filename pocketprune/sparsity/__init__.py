"""Masks on single weights of a network, chosen at once or while it is trained."""
