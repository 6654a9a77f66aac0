"""Log format of gateway and engine process, and the ids of every log line. Never a prompt.

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

__all__ = ["configure_logging", "job_context", "log_loop_error", "type_and_place"]

_log = structlog.get_logger("server")

_SAFE_ERRORS: Final = (EngineError, OSError, sqlite3.Error, MemoryError)
"""Errors whose messages hold nothing that a caller wrote, except for `InvalidParamsError`, which quotes a value."""


def configure_logging(
    level: str,
    log_format: Literal["auto", "json", "pretty"],
    *,
    shows_prompts: bool = False,
    safe_errors: tuple[type[Exception], ...] = (),
) -> None:
    """Send everything that is logged, by uvicorn too, to standard error in one format.

    Args:
        level: the least severe that is logged.
        log_format: `auto` is pretty on a terminal and else json.
        shows_prompts: whether an error's message is logged even where it could quote what a caller wrote.
        safe_errors: the caller's own errors, whose messages never quote what a caller wrote.
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
                _ExceptionFormatter(shows_all=shows_prompts, safe_errors=(*_SAFE_ERRORS, *safe_errors)),
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
    # The gateway asks each engine elsewhere how it is once a second; what matters is logged where it is asked.
    logging.getLogger("httpx2").setLevel(max(root.level, logging.WARNING))
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


def log_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an error that a task or callback did not catch. (The loop's own way quotes the error in the task's name.)"""
    _log.error("unexpected error", what=context.get("message"), exc_info=context.get("exception"))


def type_and_place(error: BaseException) -> dict[str, Any]:
    """Type and place of an error, for the log. Its message stays out: it could quote what a caller wrote."""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(error).__qualname__,
        "where": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


class _ExceptionFormatter:
    """Writes an exception out as text: the places without local variables, the messages where they hold no prompt."""

    def __init__(self, *, shows_all: bool, safe_errors: tuple[type[Exception], ...]) -> None:
        self._shows_all = shows_all
        self._safe_errors = safe_errors

    def __call__(self, _logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        exc_info = event.pop("exc_info", None)
        error = exc_info[1] if isinstance(exc_info, tuple) else sys.exc_info()[1] if exc_info is True else exc_info
        if isinstance(error, BaseException):
            event["exception"] = self._chain(error)
        return event

    def _chain(self, error: BaseException) -> str:
        chain: list[str] = []
        seen: set[int] = set()
        waiting = [error]
        while waiting:
            error = waiting.pop()
            if id(error) in seen:
                continue
            seen.add(id(error))
            chain.append(self._one(error))
            if isinstance(error, BaseExceptionGroup):
                waiting += error.exceptions
            reason = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
            if reason is not None:
                waiting.append(reason)
        return "\ncaused by\n".join(chain)

    def _one(self, error: BaseException) -> str:
        places = "".join(traceback.format_tb(error.__traceback__))
        is_shown = self._shows_all or (
            isinstance(error, self._safe_errors) and not isinstance(error, InvalidParamsError)
        )
        is_shown = is_shown or type(error).__module__.partition(".")[0] == "torch"
        message = str(error) if is_shown else "(message left out: it could contain a prompt)"
        return f"{places}{type(error).__qualname__}: {message}"


def _drop_color_message(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    event.pop("color_message", None)
    return event
