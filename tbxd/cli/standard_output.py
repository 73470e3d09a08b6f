"""The command line's stdout: where what a command says cannot be written, that is said on stderr, and is an error."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import click

EXIT_UNTOLD = 1  # as for other errors


class Commands(click.Group):
    """Commands of which none ends with a traceback because its output goes to a full disk."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run, and have all written before the exit code says that all is well."""
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
    """Write what waits, and ``more``; where that cannot be, end with an error.

    Raises:
        SystemExit: it cannot be.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.write(more)
            sys.stdout.flush()
    except OSError as error:
        if error.errno != errno.EPIPE:  # who has heard enough has closed it, as `head` does
            click.echo(f"tbxd: what this command has to say could not be written to stdout: {error.strerror}", err=True)
        # Or the interpreter would try once more at its end, with a traceback.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        sys.exit(EXIT_UNTOLD)
