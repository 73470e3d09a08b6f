"""``python -m tbxd``."""

from .cli import main

main(prog_name="tbxd")
