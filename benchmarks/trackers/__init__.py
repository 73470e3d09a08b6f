"""Trackers that are no ``SummaryWriter``: one module each, which is imported in the tracker's own environment.

Each module has

- ``SummaryWriter(folder)`` with ``add_scalar``, ``log``, ``add_histogram``, ``add_image``, ``flush`` and ``close``, as
  thin as can be, with the tracker's default settings but offline; `NotPossible` is raised where the tracker has no such
  thing;
- ``kept(folder)``: how many points of each tag the tracker's files hold, read without the writer that wrote them.
"""
