"""Ranks and jobs: which process of which job this is."""
