"""This process: its descriptors, threads, signals and children."""
