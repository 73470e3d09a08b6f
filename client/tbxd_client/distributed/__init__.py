"""Ranks and jobs: the identity of this process in its job."""
