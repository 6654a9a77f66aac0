"""The command line: `python -m server serve`."""

from __future__ import annotations

import argparse

from server.serving import serve

__all__ = ["main"]


def main() -> None:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m server", description="The Semantic Bit GPU server.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serving = commands.add_parser("serve", help="start the server; its settings are in docs/configuration.md")
    serving.set_defaults(run=serve)
    parser.parse_args().run()


if __name__ == "__main__":
    main()
