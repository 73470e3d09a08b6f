"""The parts of the public writers."""
