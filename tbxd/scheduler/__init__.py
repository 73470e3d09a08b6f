"""Which runs the daemon knows, and when each is written."""
