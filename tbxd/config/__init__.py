"""The daemon's settings and where they come from."""
