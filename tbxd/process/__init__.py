"""This process: descriptors, threads, memory, logs, the service manager."""
