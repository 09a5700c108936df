"""A traced graph rewritten for thinner tensors, where a network's own code no longer fits."""
