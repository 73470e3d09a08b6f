"""From messages and journals to sessions, and from sessions to batches for runs."""
