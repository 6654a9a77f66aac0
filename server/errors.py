"""What can go wrong in the service, and the status, code and title that each error has over HTTP. No web framework.

    ServerError                     the message is fit for the caller's eyes
    ├── UnauthorizedError           this caller may not use this route
    ├── NotAcceptableError          no representation that the caller accepts
    ├── UnsupportedMediaTypeError   the body is not JSON
    ├── IdempotencyUnsupportedError the request asks for a promise that cannot be kept yet
    ├── QueueFullError              as many requests wait as may wait
    ├── DrainingError               the server is shutting down
    ├── EngineFailedError           the engine cannot serve until the operator has acted
    ├── EngineLostError             the engine ended while it drew
    ├── RequestTimeoutError         not finished within REQUEST_TIMEOUT
    └── ClientGoneError             the caller hung up; nobody reads the answer

How an error becomes a problem document is in `problems.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from engine.errors import (
    DeviceError,
    DoesNotFitError,
    EngineError,
    InvalidParamsError,
    ModelLoadError,
    ModelNotFoundError,
    NotFiniteError,
)

__all__ = [
    "PROBLEMS",
    "ClientGoneError",
    "DrainingError",
    "EngineFailedError",
    "EngineLostError",
    "IdempotencyUnsupportedError",
    "NotAcceptableError",
    "ProblemKind",
    "QueueFullError",
    "RequestTimeoutError",
    "ServerError",
    "UnauthorizedError",
    "UnsupportedMediaTypeError",
]


class ServerError(Exception):
    """The service could not do what was asked. The message is written for whoever asked."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds after which the same request has a good chance; None where waiting does not help."""


class UnauthorizedError(ServerError):
    """The caller has not shown that it may use this route."""


class NotAcceptableError(ServerError):
    """The `Accept` header leaves nothing that could be sent."""


class UnsupportedMediaTypeError(ServerError):
    """The body is declared to be something other than JSON."""


class IdempotencyUnsupportedError(ServerError):
    """An `Idempotency-Key` promises that a retry never draws twice, and nothing here could keep that promise."""


class QueueFullError(ServerError):
    """As many requests wait as may wait."""


class DrainingError(ServerError):
    """The server is shutting down and draws nothing more."""


class EngineFailedError(ServerError):
    """The model cannot be served until the operator has acted."""


class EngineLostError(ServerError):
    """The engine process ended while it drew."""


class RequestTimeoutError(ServerError):
    """The request was not finished within `REQUEST_TIMEOUT`, waiting included."""


class ClientGoneError(ServerError):
    """The caller hung up before its pictures were finished."""


class ProblemKind(NamedTuple):
    """How one kind of error is told over HTTP."""

    status: int
    code: str
    """A word for programs; part of the API."""
    title: str
    """The same for every occurrence; what happened this time is in `detail`."""


PROBLEMS: Mapping[type[Exception], ProblemKind] = MappingProxyType(
    {
        InvalidParamsError: ProblemKind(422, "invalid_request", "The request asks for something that cannot be"),
        DoesNotFitError: ProblemKind(422, "does_not_fit", "The picture does not fit into the device's memory"),
        NotFiniteError: ProblemKind(500, "not_finite", "The network's arithmetic broke down"),
        ModelNotFoundError: ProblemKind(503, "engine_failed", "The model cannot be served"),
        ModelLoadError: ProblemKind(503, "engine_failed", "The model cannot be served"),
        DeviceError: ProblemKind(503, "engine_lost", "The engine failed while drawing"),
        EngineError: ProblemKind(500, "engine_error", "The engine could not draw this"),
        UnauthorizedError: ProblemKind(401, "unauthorized", "Not authorized"),
        NotAcceptableError: ProblemKind(406, "not_acceptable", "Nothing that the Accept header allows"),
        UnsupportedMediaTypeError: ProblemKind(415, "unsupported_media_type", "The body must be JSON"),
        IdempotencyUnsupportedError: ProblemKind(422, "idempotency_unsupported", "Idempotency-Key is not supported"),
        QueueFullError: ProblemKind(503, "queue_full", "The queue is full"),
        DrainingError: ProblemKind(503, "draining", "The server is shutting down"),
        EngineFailedError: ProblemKind(503, "engine_failed", "The model cannot be served"),
        EngineLostError: ProblemKind(503, "engine_lost", "The engine failed while drawing"),
        RequestTimeoutError: ProblemKind(504, "request_timeout", "Not finished in time"),
        # 499 is nginx's word for it; it is seen in logs only, since nobody is left to read the answer.
        ClientGoneError: ProblemKind(499, "client_closed_request", "The client hung up"),
        ServerError: ProblemKind(500, "internal_error", "The server made a mistake"),
    }
)
"""Error type -> what HTTP says. An error that is not here is looked up by its nearest parent."""
