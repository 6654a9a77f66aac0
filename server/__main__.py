"""`python -m server`: the command line, which is in `cli/arguments.py`."""

from __future__ import annotations

import sys

from server.cli.arguments import main

__all__ = ["run"]


def run() -> None:
    """Do what the command line asks, and end with its exit code."""
    sys.exit(main())


if __name__ == "__main__":
    run()
