"""Settings from the environment, and the places of the daemon and its files."""
