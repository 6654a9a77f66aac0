"""How a line of the log is written: never with what somebody wrote into a form."""

from __future__ import annotations

import logging
import re
from typing import Final

__all__ = ["LineFormatter"]

_ROWS: Final = re.compile(r"\s*\bDETAIL:.*?(?=\n\nThe above exception|\n\nDuring handling|\Z)", re.DOTALL)


class LineFormatter(logging.Formatter):
    """Leaves out what PostgreSQL adds to an error: it quotes the row, and with it a dream's prompt."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the trace behind it."""
        return _ROWS.sub("", super().format(record))
