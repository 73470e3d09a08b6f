"""Subinterpreters are refused, before pyzmq is imported in one."""

from __future__ import annotations

import importlib

MODULES = ("_interpreters", "_xxsubinterpreters")  # from Python 3.13 on, and before


def in_subinterpreter() -> bool:
    """Return True in a subinterpreter; False if unknown.

    Python has no public API for this before 3.14 (``concurrent.interpreters``, PEP 734). It takes 0.2 to 0.4 ms, most
    of it for finding the module.
    """
    for name in MODULES:
        try:
            module = importlib.import_module(name)
            return bool(module.get_current() != module.get_main())
        except (ImportError, AttributeError):
            continue
    return False


def refuse_subinterpreters() -> None:
    """Make the import fail in a subinterpreter.

    pyzmq's and msgpack's extensions are made for one interpreter of a process, and threads and exit handlers of a
    subinterpreter end at moments of their own.

    Raises:
        ImportError: in a subinterpreter.
    """
    if in_subinterpreter():
        raise ImportError(
            "tbxd_client cannot be used in a subinterpreter, because pyzmq cannot. Log from the main interpreter, "
            "or start a process for this work (multiprocessing, ProcessPoolExecutor): any number of processes may log "
            "to one folder"
        )
