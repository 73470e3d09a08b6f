"""The log folder: its lock, the names of its event files, names that its file system refuses."""
