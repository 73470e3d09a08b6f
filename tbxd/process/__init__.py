"""What concerns this process: descriptors, threads, memory, logs, the service manager."""
