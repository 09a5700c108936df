"""The doors of tools that people come from: their dictionaries, files and classes, in PocketPrune's words."""
