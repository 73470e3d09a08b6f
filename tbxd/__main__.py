"""``python -m tbxd``."""

from .cli import main

main()
