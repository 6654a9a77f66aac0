"""Exit codes of the commands, and the error with an exit code."""

from __future__ import annotations

from typing import Final

__all__ = ["EXIT_CODES", "REFUSED", "UNREACHABLE", "CommandError"]

REFUSED: Final = 1
UNREACHABLE: Final = 3

EXIT_CODES: Final = """\
exit codes:
  0    done
  1    refused or failed; one line on standard error says why
  2    the command line is wrong
  3    the server cannot be reached, and its store is in use or missing
"""


class CommandError(Exception):
    """A command could not do what was asked. The message is one line for the operator."""

    def __init__(self, message: str, exit_code: int = REFUSED) -> None:
        super().__init__(message)
        self.exit_code = exit_code
