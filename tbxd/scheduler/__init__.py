"""The runs that the daemon knows, and the times of their writes."""
