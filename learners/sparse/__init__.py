"""Sparsity: single weights are masked, at once or while the network is trained."""
