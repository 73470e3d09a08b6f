"""The daemon's settings and their sources."""
