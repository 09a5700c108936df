"""Filter pruning: channels are masked while the network is trained, and removed at the end."""
