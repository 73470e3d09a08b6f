"""The command line's stdout: a failure to write it is an error, reported on stderr."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import click

EXIT_UNTOLD = 1  # as for other errors


class Commands(click.Group):
    """A group of commands that do not end with a traceback if their output goes to a full disk."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command, and write all output before the exit code."""
        try:
            return super().main(*arguments, **options)
        except SystemExit:
            _end_if_untold()
            raise
        except OSError as error:
            if error.filename is None:
                _end_if_untold("\n")  # what could not be written waits there still, or is gone (`python -u`)
            raise


def _end_if_untold(more: str = "") -> None:
    """Write buffered output, and ``more``; exit with an error if that fails.

    Raises:
        SystemExit: the output cannot be written.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.write(more)
            sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.EPIPE:  # who has heard enough has closed it, as `head` does
            click.echo(f"tbxd: the output of this command could not be written to stdout: {error.strerror}", err=True)
        # Or the interpreter would try once more at its end, with a traceback.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        sys.exit(EXIT_UNTOLD)
