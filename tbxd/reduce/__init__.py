"""Reductions over ranks: the values of several processes of a job at one tag and step become one point."""
