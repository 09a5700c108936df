"""Channel pruning by reconstruction as a learner."""
