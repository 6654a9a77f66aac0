"""What can go wrong in the service, and the status, code and title that each error has over HTTP. No web framework.

    ServerError                     the message is fit for the caller's eyes
    ├── UnauthorizedError           nobody knows who asks: no key, or none that is taken
    ├── InsufficientScopeError      this key may not do this
    ├── KeyNotFoundError            there is no such API key
    ├── KeyNotActiveError           the API key has expired or was revoked
    ├── NotAcceptableError          no representation that the caller accepts
    ├── UnsupportedMediaTypeError   the body is not JSON
    ├── MalformedRequestError       what came is not HTTP
    ├── TooManyConnectionsError     every connection that there may be has a request in hand
    ├── IdempotencyKeyError         the header Idempotency-Key cannot be used like this
    ├── IdempotencyMismatchError    the Idempotency-Key belongs to another request
    ├── JobNotFoundError            there is no such job, or it is another key's
    ├── NotDoneError                the job has no pictures (yet)
    ├── NotDeadError                only a dead job can be requeued
    ├── ResultExpiredError          the job's pictures are not kept any more
    ├── JobCancelledError           the job that was waited for was cancelled
    ├── JobDeadError                the job lost its engine too often
    ├── JobFailedError              the job ended without pictures, for the reason that its code names
    ├── OperatorOnlyError           only the command line on this machine may do this
    ├── RateLimitedError            this key, or this address, has asked for as much as it may
    ├── StoreTroubleError           the disk takes nothing
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
    "IdempotencyKeyError",
    "IdempotencyMismatchError",
    "InsufficientScopeError",
    "JobCancelledError",
    "JobDeadError",
    "JobFailedError",
    "JobNotFoundError",
    "KeyNotActiveError",
    "KeyNotFoundError",
    "MalformedRequestError",
    "NotAcceptableError",
    "NotDeadError",
    "NotDoneError",
    "OperatorOnlyError",
    "ProblemKind",
    "QueueFullError",
    "RateLimitedError",
    "RequestTimeoutError",
    "ResultExpiredError",
    "ServerError",
    "StoreTroubleError",
    "TooManyConnectionsError",
    "UnauthorizedError",
    "UnsupportedMediaTypeError",
    "kind_of",
]


class ServerError(Exception):
    """The service could not do what was asked. The message is written for whoever asked."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """Seconds after which the same request has a good chance; None where waiting does not help."""


class UnauthorizedError(ServerError):
    """The caller has not shown who it is."""


class InsufficientScopeError(ServerError):
    """The caller's API key does not have the scope that this route needs."""


class KeyNotFoundError(ServerError):
    """There is no API key with this id."""


class KeyNotActiveError(ServerError):
    """The API key has expired or was revoked, and cannot be used again."""


class NotAcceptableError(ServerError):
    """The `Accept` header leaves nothing that could be sent."""


class UnsupportedMediaTypeError(ServerError):
    """The body is declared to be something other than JSON."""


class MalformedRequestError(ServerError):
    """What came over the connection is not HTTP, or not of a kind that is spoken here."""


class TooManyConnectionsError(ServerError):
    """As many connections as there may be have a request in hand."""


class IdempotencyKeyError(ServerError):
    """The header `Idempotency-Key` is there more than once, empty, too long or not plain."""


class IdempotencyMismatchError(ServerError):
    """The `Idempotency-Key` was used for another request before, whose job is still kept."""


class JobNotFoundError(ServerError):
    """There is no such job or picture for this caller."""


class NotDoneError(ServerError):
    """The job has no pictures: it is not done, or ended without."""


class NotDeadError(ServerError):
    """Only a dead job can be requeued."""


class ResultExpiredError(ServerError):
    """The job's pictures were deleted when their time was over."""


class JobCancelledError(ServerError):
    """The job that the caller waited for was cancelled."""


class JobDeadError(ServerError):
    """The job was given up after it had lost its engine too often."""


class JobFailedError(ServerError):
    """The job ended without pictures some time ago; what is still known is the code of its error."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class OperatorOnlyError(ServerError):
    """Only the command line on this machine may do this."""


class RateLimitedError(ServerError):
    """The API key has asked, or the address has failed to authenticate, as often as it may for now."""

    def __init__(
        self, message: str, *, limit: str, headers: Mapping[str, str], retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.limit = limit
        """The name of the limit that was reached."""
        self.headers = headers
        """Its `RateLimit` and `RateLimit-Policy`."""


class StoreTroubleError(ServerError):
    """The job store cannot be written or read: a full disk, most likely."""


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
        InsufficientScopeError: ProblemKind(403, "insufficient_scope", "The API key may not do this"),
        KeyNotFoundError: ProblemKind(404, "key_not_found", "No such API key"),
        KeyNotActiveError: ProblemKind(409, "key_not_active", "The API key is not active"),
        NotAcceptableError: ProblemKind(406, "not_acceptable", "Nothing that the Accept header allows"),
        UnsupportedMediaTypeError: ProblemKind(415, "unsupported_media_type", "The body must be JSON"),
        MalformedRequestError: ProblemKind(400, "malformed_request", "This is no HTTP request"),
        TooManyConnectionsError: ProblemKind(503, "too_many_connections", "Too many connections"),
        IdempotencyKeyError: ProblemKind(422, "invalid_idempotency_key", "The Idempotency-Key cannot be used"),
        IdempotencyMismatchError: ProblemKind(
            422, "idempotency_key_reused", "The Idempotency-Key was used for another request"
        ),
        JobNotFoundError: ProblemKind(404, "job_not_found", "No such job"),
        NotDoneError: ProblemKind(409, "job_not_done", "The job has no pictures"),
        NotDeadError: ProblemKind(409, "job_not_dead", "The job is not dead"),
        ResultExpiredError: ProblemKind(410, "result_expired", "The pictures are not kept any more"),
        JobCancelledError: ProblemKind(409, "cancelled", "The job was cancelled"),
        JobDeadError: ProblemKind(500, "job_dead", "The job was given up"),
        JobFailedError: ProblemKind(500, "job_failed", "The job failed"),
        OperatorOnlyError: ProblemKind(403, "operator_only", "Only for the operator"),
        RateLimitedError: ProblemKind(429, "rate_limited", "Too much in too short a time"),
        StoreTroubleError: ProblemKind(503, "store_unavailable", "Nothing can be written down right now"),
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


_BY_CODE = {kind.code: kind for kind in PROBLEMS.values()}


def kind_of(error: Exception) -> ProblemKind:
    """What HTTP says about an error of ours."""
    if isinstance(error, JobFailedError) and error.code in _BY_CODE:
        return _BY_CODE[error.code]
    return next(PROBLEMS[ancestor] for ancestor in type(error).__mro__ if ancestor in PROBLEMS)
