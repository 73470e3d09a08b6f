"""Settings from the environment, and where the daemon and its files are."""
