"""Metrics of the daemon, and their endpoint for Prometheus."""
