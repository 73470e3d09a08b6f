"""What concerns this process: its descriptors, threads, signals and children."""
