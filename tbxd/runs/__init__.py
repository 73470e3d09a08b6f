"""The owner of a log folder: batches come in, an event file grows."""
