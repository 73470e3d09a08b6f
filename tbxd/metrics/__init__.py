"""Metrics of the daemon, and where Prometheus scrapes them."""
