"""Log format: log lines contain no form input, and their length is limited."""

from __future__ import annotations

import copy
import logging
import re
from typing import Final

__all__ = ["LineFormatter"]

_ROWS: Final = re.compile(r"\s*\bDETAIL:.*?(?=\n\nThe above exception|\n\nDuring handling|\Z)", re.DOTALL)


class LineFormatter(logging.Formatter):
    """Leaves out what PostgreSQL adds to an error: it quotes the row, and with it a dream's prompt.

    What a caller did wrong, such as a form that is too long, is one line: a trace shows where we went wrong.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the trace behind it where the fault is ours."""
        if 400 <= getattr(record, "status_code", 0) < 500:  # set by Django where it answers a caller's mistake
            record = copy.copy(record)
            record.exc_info = record.exc_text = None
        return _ROWS.sub("", super().format(record))
