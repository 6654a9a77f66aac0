"""Errors of the service, with the HTTP status, code and title of each. No web framework.

    ServerError                     the message is fit for the caller's eyes
    ├── NotAuthorisedError           nobody knows who asks: no key, or none that is taken
    ├── InsufficientScopeError      this key may not do this
    ├── KeyNotFoundError            there is no such API key
    ├── KeyNotActiveError           the API key has expired or was revoked
    ├── NotAcceptableError          no representation that the caller accepts
    ├── UnsupportedMediaTypeError   the body is not JSON
    ├── UnsupportedImageError       a picture that came is not one that can be read
    ├── UploadTooLargeError         a request with pictures, or one of them, is too large
    ├── UploadsFullError            as many uploads are in hand as may be
    ├── ForeignPageError            a page of another site has sent this
    ├── InputExpiredError           the pictures that the job starts from are not kept any more
    ├── MalformedRequestError       what came is not HTTP
    ├── TooManyConnectionsError     every connection that there may be has a request in hand
    ├── IdempotencyKeyError         the header Idempotency-Key cannot be used like this
    ├── IdempotencyMismatchError    the Idempotency-Key belongs to another request
    ├── ModelNameError              no model of this name is served
    ├── EngineClassError            no engine of the class that the request demands
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
    "EngineClassError",
    "EngineFailedError",
    "EngineLostError",
    "ForeignPageError",
    "IdempotencyKeyError",
    "IdempotencyMismatchError",
    "InputExpiredError",
    "InsufficientScopeError",
    "JobCancelledError",
    "JobDeadError",
    "JobFailedError",
    "JobNotFoundError",
    "KeyNotActiveError",
    "KeyNotFoundError",
    "MalformedRequestError",
    "ModelNameError",
    "NotAcceptableError",
    "NotAuthorisedError",
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
    "UnsupportedImageError",
    "UnsupportedMediaTypeError",
    "UploadTooLargeError",
    "UploadsFullError",
    "kind_of",
]


class ServerError(Exception):
    """The service could not do what was asked. The message is written for the caller."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, field: str | None = None) -> None:
        super().__init__(message if field is None else f"{field} {message}")
        self.retry_after_s = retry_after_s
        """Seconds after which the same request has a good chance; None where waiting does not help."""
        self.field = field
        """The field of the request that is at fault, if it is one; the message is then the rule that it breaks."""
        self.rule = message


class NotAuthorisedError(ServerError):
    """The caller has not shown who it is."""


class InsufficientScopeError(ServerError):
    """The caller's API key does not have the scope that this route needs."""


class KeyNotFoundError(ServerError):
    """No API key has this id."""


class KeyNotActiveError(ServerError):
    """The API key has expired or was revoked, and cannot be used again."""


class NotAcceptableError(ServerError):
    """The `Accept` header leaves nothing that could be sent."""


class UnsupportedMediaTypeError(ServerError):
    """The body is declared to be something other than JSON."""


class UnsupportedImageError(ServerError):
    """What came as a picture is not a PNG, JPEG or WebP file, or cannot be decoded."""


class UploadTooLargeError(ServerError):
    """A request with pictures, or one of its pictures, has too many bytes."""


class UploadsFullError(ServerError):
    """As many bytes of uploads are in hand as may be."""


class ForeignPageError(ServerError):
    """A page of another site has let a browser send this request."""


class InputExpiredError(ServerError):
    """The pictures that the job starts from were deleted."""


class MalformedRequestError(ServerError):
    """What came over the connection is not HTTP, or not of a kind that is spoken here."""


class TooManyConnectionsError(ServerError):
    """The connection limit (`MAX_CONNECTIONS`) is reached."""


class IdempotencyKeyError(ServerError):
    """The header `Idempotency-Key` is there more than once, empty, too long or not plain."""


class IdempotencyMismatchError(ServerError):
    """The `Idempotency-Key` was used for another request before, whose job is still kept."""


class EngineClassError(ServerError):
    """No engine that draws now is of the class that the request demands."""


class JobNotFoundError(ServerError):
    """This caller has no job or picture with this id."""


class ModelNameError(ServerError):
    """No model of this name is served."""


class NotDoneError(ServerError):
    """The job has no pictures: it is not done, or ended without."""


class NotDeadError(ServerError):
    """Only a dead job can be requeued."""


class ResultExpiredError(ServerError):
    """The job's pictures were deleted when their time was over."""


class JobCancelledError(ServerError):
    """The job that the caller waited for was cancelled."""


class JobDeadError(ServerError):
    """The job failed repeatedly and is not retried after it had lost its engine too often."""


class JobFailedError(ServerError):
    """The job ended without pictures some time ago; what is still known is the code of its error."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class OperatorOnlyError(ServerError):
    """Only the command line on this machine may do this."""


class RateLimitedError(ServerError):
    """A rate limit is reached: requests or work of an API key, or failed authentications of an address."""

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
    """How one kind of error is reported over HTTP."""

    status: int
    code: str
    """A word for programs; part of the API."""
    title: str
    """The same for every occurrence; what happened this time is in `detail`."""


PROBLEMS: Mapping[type[Exception], ProblemKind] = MappingProxyType(
    {
        InvalidParamsError: ProblemKind(422, "invalid_request", "Invalid request"),
        DoesNotFitError: ProblemKind(422, "does_not_fit", "The picture does not fit into the device's memory"),
        NotFiniteError: ProblemKind(500, "not_finite", "The model produced non-finite values"),
        ModelNotFoundError: ProblemKind(503, "engine_failed", "The model cannot be served"),
        ModelLoadError: ProblemKind(503, "engine_failed", "The model cannot be served"),
        DeviceError: ProblemKind(503, "engine_lost", "The engine failed while drawing"),
        EngineError: ProblemKind(500, "engine_error", "The engine could not draw this"),
        NotAuthorisedError: ProblemKind(401, "unauthorized", "Not authorised"),
        InsufficientScopeError: ProblemKind(403, "insufficient_scope", "The API key lacks a required scope"),
        KeyNotFoundError: ProblemKind(404, "key_not_found", "No such API key"),
        KeyNotActiveError: ProblemKind(409, "key_not_active", "The API key is not active"),
        NotAcceptableError: ProblemKind(406, "not_acceptable", "No acceptable media type"),
        UnsupportedMediaTypeError: ProblemKind(415, "unsupported_media_type", "Unsupported media type"),
        UnsupportedImageError: ProblemKind(415, "unsupported_image", "The picture cannot be read"),
        UploadTooLargeError: ProblemKind(413, "upload_too_large", "The upload is too large"),
        UploadsFullError: ProblemKind(503, "too_many_uploads", "Too many uploads at the same time"),
        ForeignPageError: ProblemKind(403, "foreign_page", "Requests from pages of other sites are refused"),
        InputExpiredError: ProblemKind(410, "input_expired", "The pictures that the job starts from have expired"),
        MalformedRequestError: ProblemKind(400, "malformed_request", "Malformed HTTP request"),
        TooManyConnectionsError: ProblemKind(503, "too_many_connections", "Too many connections"),
        IdempotencyKeyError: ProblemKind(422, "invalid_idempotency_key", "Invalid Idempotency-Key"),
        IdempotencyMismatchError: ProblemKind(
            422, "idempotency_key_reused", "The Idempotency-Key was already used for another request"
        ),
        JobNotFoundError: ProblemKind(404, "job_not_found", "No such job"),
        ModelNameError: ProblemKind(404, "model_not_found", "No such model"),
        EngineClassError: ProblemKind(409, "engine_class_not_found", "No engine of this class"),
        NotDoneError: ProblemKind(409, "job_not_done", "The job has no pictures"),
        NotDeadError: ProblemKind(409, "job_not_dead", "The job is not dead"),
        ResultExpiredError: ProblemKind(410, "result_expired", "The pictures have expired"),
        JobCancelledError: ProblemKind(409, "cancelled", "The job was cancelled"),
        JobDeadError: ProblemKind(500, "job_dead", "The job failed repeatedly and is not retried"),
        JobFailedError: ProblemKind(500, "job_failed", "The job failed"),
        OperatorOnlyError: ProblemKind(403, "operator_only", "Reserved for the operator"),
        RateLimitedError: ProblemKind(429, "rate_limited", "Rate limit exceeded"),
        StoreTroubleError: ProblemKind(503, "store_unavailable", "Storage unavailable"),
        QueueFullError: ProblemKind(503, "queue_full", "The queue is full"),
        DrainingError: ProblemKind(503, "draining", "The server is shutting down"),
        EngineFailedError: ProblemKind(503, "engine_failed", "The model cannot be served"),
        EngineLostError: ProblemKind(503, "engine_lost", "The engine failed while drawing"),
        RequestTimeoutError: ProblemKind(504, "request_timeout", "Request timed out"),
        # 499 is nginx's word for it; it is seen in logs only, since nobody is left to read the answer.
        ClientGoneError: ProblemKind(499, "client_closed_request", "Client closed the request"),
        ServerError: ProblemKind(500, "internal_error", "Internal server error"),
    }
)
"""Error type -> what HTTP says. An error that is not here is looked up by its nearest parent."""


_BY_CODE = {kind.code: kind for kind in PROBLEMS.values()}


def kind_of(error: Exception) -> ProblemKind:
    """What HTTP says about an error of ours."""
    if isinstance(error, JobFailedError) and error.code in _BY_CODE:
        return _BY_CODE[error.code]
    return next(PROBLEMS[ancestor] for ancestor in type(error).__mro__ if ancestor in PROBLEMS)
