"""The errors that the client raises, and which error each answer of the server becomes.

    SemanticBitError                everything below; `detail` is for people, `code` for programs
    ├── ServerUnavailable           nothing can be drawn right now; trying again later may help
    │   ├── NoConnection            the server was not reached, or what one of the two said did not arrive
    │   ├── BadAnswer               something answered, but not as this server does
    │   └── ServerBusy              as many jobs wait as may wait, or the request was not finished in time
    ├── RateLimited                 this key has used up what it may; `retry_after_s` says until when
    ├── InvalidRequest              the request cannot be granted; `wrong_values` names field, rule and value
    │   └── KeyReused               the idempotency key belongs to another request
    ├── NotAuthorised               no key, a wrong one, or one that may not do this
    ├── NotSupported                the server has no such route: it is older than this client, or no such server
    ├── JobNotFound                 there is no such job or picture, or it is another key's
    ├── JobFailed                   the job ended without pictures, and would again
    │   ├── JobCancelled            it was cancelled
    │   └── JobDead                 it lost its engine too often and was given up
    ├── JobNotDone                  the job's state does not allow this (yet)
    ├── ResultExpired               the pictures were drawn, and are not kept any more
    ├── TookTooLong                 the caller's own `timeout_s` is over; the job goes on
    └── ServerFault                 the server made a mistake; its log has more under `request_id`

Knows nothing of HTTP libraries. Which errors are worth another try is in `retries.py`.
"""
# ruff: noqa: N818 -- the names say what happened; `ServerBusyError` would not say more

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = [
    "ERROR_OF_CODE",
    "BadAnswer",
    "InvalidRequest",
    "JobCancelled",
    "JobDead",
    "JobFailed",
    "JobNotDone",
    "JobNotFound",
    "KeyReused",
    "NoConnection",
    "NotAuthorised",
    "NotSupported",
    "RateLimited",
    "ResultExpired",
    "SemanticBitError",
    "ServerBusy",
    "ServerFault",
    "ServerUnavailable",
    "TookTooLong",
    "WrongValue",
    "error_type",
    "plain",
]

_LONGEST_TEXT: Final = 500


@dataclass(frozen=True, slots=True)
class WrongValue:
    """One value of a request that breaks a rule."""

    field: str
    """Where it stands in the request."""
    rule: str
    """The rule that every value must follow, as a phrase after the field's name."""
    value: str | int | float | bool | None = None
    """What was given, shortened."""


class SemanticBitError(Exception):
    """What this library raises when there is no picture. Its texts hold nothing that a terminal would obey."""

    def __init__(
        self,
        detail: str,
        *,
        code: str = "",
        status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        wrong_values: tuple[WrongValue, ...] = (),
        job_id: str | None = None,
    ) -> None:
        super().__init__(plain(detail))
        self.detail = plain(detail)
        """What happened, for people."""
        self.code = plain(code)
        """The server's word for it, for programs; empty if the server did not say it."""
        self.status = status
        """The answer's HTTP status; None if there was none."""
        self.request_id = None if request_id is None else plain(request_id)
        """Under which the server's log has more."""
        self.retry_after_s = retry_after_s
        """Seconds after which the same has a good chance; None where the server did not say."""
        self.wrong_values = wrong_values
        """Each wrong value of an `InvalidRequest`."""
        self.job_id = job_id
        """The job that it is about, once there is one: `client.job(error.job_id)` finds it again."""


class ServerUnavailable(SemanticBitError):
    """Nothing can be drawn right now; trying again later may help."""


class NoConnection(ServerUnavailable):
    """The server was not reached, or what one of the two said did not arrive."""


class BadAnswer(ServerUnavailable):
    """Something answered, but not as this server does."""


class ServerBusy(ServerUnavailable):
    """As many jobs wait as may wait, or the request was not finished in time."""


class RateLimited(SemanticBitError):
    """A rate limit of this key is reached."""


class InvalidRequest(SemanticBitError):
    """The request cannot be granted; `wrong_values` names field, rule and value."""


class KeyReused(InvalidRequest):
    """The idempotency key belongs to another request."""


class NotAuthorised(SemanticBitError):
    """No key, a wrong one, or one that may not do this."""


class NotSupported(SemanticBitError):
    """The server has no such route."""


class JobNotFound(SemanticBitError):
    """The job or picture does not exist, or is another key's."""


class JobFailed(SemanticBitError):
    """The job ended without pictures, and would again."""


class JobCancelled(JobFailed):
    """The job was cancelled."""


class JobDead(JobFailed):
    """The job lost its engine too often and was given up."""


class JobNotDone(SemanticBitError):
    """The job's state does not allow this (yet)."""


class ResultExpired(SemanticBitError):
    """The pictures were drawn, and are not kept any more."""


class TookTooLong(SemanticBitError):
    """The caller's own time is over; the job goes on."""


class ServerFault(SemanticBitError):
    """Internal server error."""


ERROR_OF_CODE: Mapping[str, type[SemanticBitError]] = MappingProxyType(
    {
        "invalid_request": InvalidRequest,
        "malformed_body": InvalidRequest,
        "malformed_request": InvalidRequest,
        "headers_too_large": InvalidRequest,
        "target_too_long": InvalidRequest,
        "content_too_large": InvalidRequest,
        "unsupported_media_type": InvalidRequest,
        "unsupported_image": InvalidRequest,
        "upload_too_large": InvalidRequest,
        "not_acceptable": InvalidRequest,
        "invalid_idempotency_key": InvalidRequest,
        "idempotency_key_reused": KeyReused,
        "unauthorized": NotAuthorised,
        "insufficient_scope": NotAuthorised,
        "operator_only": NotAuthorised,
        "foreign_page": NotAuthorised,
        "key_not_found": InvalidRequest,
        "key_not_active": InvalidRequest,
        "model_not_found": InvalidRequest,
        "engine_class_not_found": InvalidRequest,
        "not_found": NotSupported,
        "method_not_allowed": NotSupported,
        "job_not_found": JobNotFound,
        "job_not_done": JobNotDone,
        "job_not_dead": JobNotDone,
        "result_expired": ResultExpired,
        "input_expired": ResultExpired,
        "does_not_fit": JobFailed,
        "not_finite": JobFailed,
        "engine_error": JobFailed,
        "job_failed": JobFailed,
        "cancelled": JobCancelled,
        "job_dead": JobDead,
        "rate_limited": RateLimited,
        "request_too_slow": NoConnection,
        "too_many_connections": ServerBusy,
        "too_many_uploads": ServerBusy,
        "queue_full": ServerBusy,
        "request_timeout": ServerBusy,
        "draining": ServerUnavailable,
        "store_unavailable": ServerUnavailable,
        "engine_failed": ServerUnavailable,
        "engine_lost": ServerUnavailable,
        "internal_error": ServerFault,
        "http_error": ServerFault,
        "client_closed_request": ServerFault,
    }
)
"""`code` of a problem document -> what is raised. A code that is not here is looked up by its status."""

_ERROR_OF_STATUS: Mapping[int, type[SemanticBitError]] = MappingProxyType(
    {
        401: NotAuthorised,
        403: NotAuthorised,
        404: NotSupported,
        405: NotSupported,
        408: NoConnection,
        410: ResultExpired,
        429: RateLimited,
        501: NotSupported,
        502: ServerUnavailable,
        503: ServerUnavailable,
        504: ServerUnavailable,
    }
)


def plain(text: str) -> str:
    """A text of the server's as one line that is safe to print: a terminal obeys control characters."""
    return "".join(
        letter if letter.isprintable() else " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}"
        for letter in text[:_LONGEST_TEXT]
    )


def error_type(status: int, code: str) -> type[SemanticBitError]:
    """What an answer is raised as.

    Args:
        status: its HTTP status, anything but a success.
        code: its problem document's, or empty: a proxy in between writes none.
    """
    by_status = _ERROR_OF_STATUS.get(status)
    if by_status is None:
        by_status = ServerFault if status >= 500 else InvalidRequest if status >= 400 else BadAnswer
    return ERROR_OF_CODE.get(code, by_status)
