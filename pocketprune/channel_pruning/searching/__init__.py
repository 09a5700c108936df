"""The search of preserve ratios: a network as an environment of `pocketprune.search`."""
