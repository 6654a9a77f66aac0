"""Error responses: makes the problem document (RFC 9457) of any error. Status and code come from `errors.py`.

Nothing of a traceback, a file or a caller's whole value ever gets into a document.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from engine.errors import EngineError, InvalidParamsError
from server.dialects.base import ERROR_CODE_HEADER, Dialect
from server.error_wording import harmless, path_without_secrets, rule_of
from server.errors import PROBLEMS, NotAuthorisedError, ProblemKind, RateLimitedError, ServerError, kind_of
from server.schemas.generation import GenerateRequest, Problem, ProblemEntry

__all__ = ["PROBLEM_MEDIA_TYPE", "add_problem_handlers", "problem_of", "problem_response"]

PROBLEM_MEDIA_TYPE = "application/problem+json"

_MOST_ENTRIES = 20
"""Wrong values that one document lists; a body of a thousand unknown fields is not echoed."""

_HTTP_CODES = {
    400: ProblemKind(400, "malformed_body", "Malformed request body"),
    404: ProblemKind(404, "not_found", "Path not found"),
    405: ProblemKind(405, "method_not_allowed", "Method not allowed"),
    408: ProblemKind(408, "request_too_slow", "The request arrived too slowly"),
    413: ProblemKind(413, "content_too_large", "The body is too large"),
    414: ProblemKind(414, "target_too_long", "The path and query are too long"),
    431: ProblemKind(431, "headers_too_large", "The headers are too large"),
}
"""What the framework finds wrong by itself."""

_INVALID = PROBLEMS[InvalidParamsError]

_FIELD_NAME = re.compile(r"[\w-]{1,31}(\.[\w-]{1,31})*", re.ASCII)
"""Names short enough to be no API key."""
_WORD_FIELDS = GenerateRequest.model_fields.keys() - {"prompt", "negative_prompt", "image", "mask"}
"""Where text is a word that was chosen, so that it helps to see it again."""
_SIZE = re.compile(r"\d{1,5}x\d{1,5}", re.ASCII)
"""Width and height of a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    """The content of a problem document, before it is bound to a request."""

    kind: ProblemKind
    detail: str
    entries: list[ProblemEntry] | None = None
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error that is raised inside the app with its problem document."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        return problem_response(request, error)

    for error_type in (EngineError, ServerError, RequestValidationError, HTTPException):
        app.add_exception_handler(error_type, answer)


def problem_response(request: Request, error: Exception) -> JSONResponse:
    """The answer to a request that ended in `error`; an unexpected error is a 500 without details."""
    problem, headers = problem_of(error, instance=request.url.path, request_id=request.state.request_id)
    request.state.log["code"] = problem.code
    if isinstance(error, RateLimitedError):
        request.state.log["limit"] = error.limit
    for dialect in _dialects_of(request):
        if dialect.speaks(request.method, request.url.path):
            said = dialect.say(problem)
            return JSONResponse(said.content, said.status, {**headers, ERROR_CODE_HEADER: problem.code, **said.headers})
    return JSONResponse(problem.as_json(), problem.status, headers, media_type=PROBLEM_MEDIA_TYPE)


def _dialects_of(request: Request) -> Sequence[Dialect]:
    """Those of the app; its own state, so that errors outside of its routes are said in them too."""
    app = request.scope.get("app")
    dialects: Sequence[Dialect] = getattr(app.state, "dialects", ()) if app is not None else ()
    return dialects


def problem_of(error: Exception, *, instance: str, request_id: str) -> tuple[Problem, dict[str, str]]:
    """The document, and the headers that go with it.

    Args:
        error: any.
        instance: the path that was asked; empty where it never became known.
        request_id: of the request or, if it never became one, of its refusal.
    """
    content = _content_of(error)
    problem = Problem(
        type=f"urn:semantic-bit:problem:{content.kind.code}",
        title=content.kind.title,
        status=content.kind.status,
        detail=content.detail,
        instance=path_without_secrets(instance),
        code=content.kind.code,
        request_id=request_id,
        errors=content.entries,
        retry_after=None if content.retry_after_s is None else max(1, math.ceil(content.retry_after_s)),
    )
    headers = dict(content.headers)
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    return problem, headers


def _content_of(error: Exception) -> _Content:
    match error:
        case InvalidParamsError():
            entry = ProblemEntry(field=error.field, rule=error.rule, value=_repeated(error.field, error.value))
            is_quoted = entry.value == error.value
            detail = str(error) if is_quoted else f"{error.field} {error.rule}"
            return _Content(kind=_INVALID, detail=detail, entries=[entry])
        case RequestValidationError():
            return _content_of_validation(error)
        case HTTPException():
            kind = _HTTP_CODES.get(error.status_code)
            if kind is None:
                kind = ProblemKind(error.status_code, "http_error", HTTPStatus(error.status_code).phrase)
            return _Content(kind=kind, detail=str(error.detail), headers=error.headers or {})
        case RateLimitedError():
            return _Content(
                kind=kind_of(error), detail=str(error), retry_after_s=error.retry_after_s, headers=error.headers
            )
        case ServerError(field=str(field)):
            entries = [ProblemEntry(field=field, rule=error.rule, value=None)]
            return _Content(kind=kind_of(error), detail=str(error), entries=entries)
        case ServerError() | EngineError():
            # RFC 9110 wants every 401 to name a way to authenticate.
            headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, NotAuthorisedError) else {}
            retry_after_s = error.retry_after_s if isinstance(error, ServerError) else None
            return _Content(kind=kind_of(error), detail=str(error), retry_after_s=retry_after_s, headers=headers)
        case _:
            detail = "unexpected error; look up this request_id in the server's log"
            return _Content(kind=PROBLEMS[ServerError], detail=detail)


def _content_of_validation(error: RequestValidationError) -> _Content:
    findings = error.errors()
    if findings[0]["type"] == "json_invalid":
        why = f"{findings[0]['ctx']['error']} at character {findings[0]['loc'][-1]}"
        return _Content(kind=_HTTP_CODES[400], detail=f"the body must be valid JSON: {why}")
    entries = [
        ProblemEntry(
            field=(field := _field_of(finding)),
            rule=rule_of(finding),
            value=None if finding["type"] == "missing" else _repeated(field, finding["input"]),
        )
        for finding in findings[:_MOST_ENTRIES]
    ]
    others = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    first = InvalidParamsError(entries[0].field, entries[0].rule, entries[0].value)
    is_quoted = findings[0]["type"] != "extra_forbidden" and entries[0].value == findings[0]["input"]
    detail = str(first) if is_quoted else f"{first.field} {first.rule}"
    return _Content(kind=_INVALID, detail=f"{detail}{others}", entries=entries)


def _field_of(finding: Mapping[str, Any]) -> str:
    where, *parts = finding["loc"]
    if where == "query":
        parts = parts[:1]  # a parameter that may be repeated has no places that a caller would know
    name = ".".join(str(part) for part in parts) or "body"
    return name if _FIELD_NAME.fullmatch(name) else "a field"


def _repeated(field: str, value: object) -> str | int | float | bool | None:
    """A wrong value, as far as it can be repeated: documents are logged and shown, and must hold no prompt and no key.

    Where text is meant for something else, in an unknown or misspelt field, it may well be a prompt.
    """
    if isinstance(value, str) and _SIZE.fullmatch(value):
        return value
    if isinstance(value, str) and len(value) > 1 and field not in _WORD_FIELDS:
        return f"a text of {len(value)} characters"
    return harmless(value)
