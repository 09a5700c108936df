"""Channel pruning by reconstruction: `prune_channels`, `search_ratios`, and what they share."""
