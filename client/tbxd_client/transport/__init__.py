"""The way from the journal to the daemon: one thread, one socket."""
