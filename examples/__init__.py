"""One example for each kind of network: each trains one on embedded data, prunes it, and ends with a table."""
