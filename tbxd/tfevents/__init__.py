"""Event files: the schema of an event, the framing of records, and the files on disk."""
