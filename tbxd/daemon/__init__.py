"""The daemon's life: start, loop, reload, stop."""
