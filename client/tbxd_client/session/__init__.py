"""One session for each process: one journal and one sender for all its writers."""
