"""What a network consists of: channel groups, prunable layers and their cost, from identities carried through it."""
