"""A network as torch.export sees it: traced, run node by node, swept dense and pruned side by side."""
