"""Reductions over ranks: what several processes of a job log with one tag and step becomes one point."""
