"""The installed command: the library for a network and data that are named on a command line."""
