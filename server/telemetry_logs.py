"""How everything that is logged looks, here and in the engine process, and which ids it carries. Never a prompt.

Prompts could come in by two ways. Our own lines hold none, and an error's message is left out where it could quote one:
type and place remain. `LOG_PROMPTS=true` lets both in.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sqlite3
import sys
import traceback
from typing import Any, Final, Literal

import structlog

from engine.errors import EngineError, InvalidParamsError
from server.errors import ServerError
from server.jobs.store_errors import StoreError

__all__ = ["configure_logging", "job_context", "log_loop_error", "told_without_message"]

_log = structlog.get_logger("server")

_WRITTEN_BY_US: Final = (EngineError, ServerError, StoreError, OSError, sqlite3.Error, MemoryError)
"""Errors whose messages hold nothing that a caller wrote, except for `InvalidParamsError`, which quotes a value."""


def configure_logging(
    level: str, log_format: Literal["auto", "json", "pretty"], *, shows_prompts: bool = False
) -> None:
    """Send everything that anybody logs, uvicorn included, to standard error in one format.

    Args:
        level: the least severe that is told.
        log_format: `auto` is pretty on a terminal and else json.
        shows_prompts: whether an error's message is told even where it could quote what a caller wrote.
    """
    is_pretty = log_format == "pretty" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            # What the engine, which knows no structlog, says of a job.
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow={"job_id"}), _drop_color_message],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _ExceptionTeller(shows_all=shows_prompts),
                structlog.dev.ConsoleRenderer() if is_pretty else structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # Its lines would say less than ours. Without handlers uvicorn does not even make them.
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False


def job_context(job_id: str) -> contextvars.Context:
    """A context for the tasks of a job: what is logged there carries its id, and that of the request that asked for it.

    Made while that request is served. Without it a task would carry the ids of whichever request made room for the job.
    """
    ids = structlog.contextvars.get_contextvars() | {"job_id": job_id}
    context = contextvars.Context()
    context.run(structlog.contextvars.bind_contextvars, **ids)
    return context


def log_loop_error(_loop: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
    """Log what nobody caught in a task or a callback. (The loop's own way quotes the error in the task's name.)"""
    _log.error("unexpected error", what=told.get("message"), exc_info=told.get("exception"))


def told_without_message(error: BaseException) -> dict[str, Any]:
    """Type and place of an error, for the log. Its message stays out: it could quote what a caller wrote."""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(error).__qualname__,
        "where": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


class _ExceptionTeller:
    """Writes an exception out as text: the places without local variables, the messages where they hold no prompt."""

    def __init__(self, *, shows_all: bool) -> None:
        self._shows_all = shows_all

    def __call__(self, _logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        exc_info = event.pop("exc_info", None)
        error = exc_info[1] if isinstance(exc_info, tuple) else sys.exc_info()[1] if exc_info is True else exc_info
        if isinstance(error, BaseException):
            event["exception"] = self._told(error)
        return event

    def _told(self, error: BaseException) -> str:
        chain: list[str] = []
        seen: set[int] = set()
        waiting = [error]
        while waiting:
            error = waiting.pop()
            if id(error) in seen:
                continue
            seen.add(id(error))
            chain.append(self._told_alone(error))
            if isinstance(error, BaseExceptionGroup):
                waiting += error.exceptions
            reason = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
            if reason is not None:
                waiting.append(reason)
        return "\nwhich came of\n".join(chain)

    def _told_alone(self, error: BaseException) -> str:
        places = "".join(traceback.format_tb(error.__traceback__))
        is_told = self._shows_all or (isinstance(error, _WRITTEN_BY_US) and not isinstance(error, InvalidParamsError))
        is_told = is_told or type(error).__module__.partition(".")[0] == "torch"
        message = str(error) if is_told else "(no message: it could hold a prompt)"
        return f"{places}{type(error).__qualname__}: {message}"


def _drop_color_message(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event.pop("color_message", None)
    return event
