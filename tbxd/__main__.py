"""``python -m tbxd``."""

from .cli.main import main

main(prog_name="tbxd")
