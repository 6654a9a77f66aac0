"""CORS: which origins may read responses (`CORS_ORIGINS`), and the responses to preflights."""

from __future__ import annotations

import secrets
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from server.problems import PROBLEM_MEDIA_TYPE, problem_of

__all__ = ["CORS", "Cors"]

CORS: Final[dict[str, Any]] = {
    "allow_methods": ("GET", "HEAD", "POST"),
    "allow_headers": (
        "Authorization",
        "Idempotency-Key",
        "If-None-Match",
        "Last-Event-ID",
        "Prefer",
        "X-API-Key",
        "X-Request-Id",
    ),
    "expose_headers": (
        "ETag",
        "Location",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "Server-Timing",
        "X-Engine-Class",
        "X-Job-Id",
        "X-Model-Id",
        "X-Noise-Schedule",
        "X-Prompt-Truncated",
        "X-Request-Id",
        "X-Sampler",
        "X-Seed",
    ),
    # Keys travel in a header that the page sets itself; there is no cookie that a browser could add for it.
    "allow_credentials": False,
    "max_age": 7200,
}
"""How Starlette's `CORSMiddleware` is set up, but for the origins."""


class Cors(CORSMiddleware):
    """Starlette's, whose refusals are problem documents as every other error is."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to a preflight."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        why = bytes(response.body).decode().removeprefix("Disallowed CORS ")
        error = HTTPException(403, f"the preflight is refused: {why} is not among those that this server allows")
        problem, _ = problem_of(error, instance="", request_id=secrets.token_hex(16))
        headers = {name: value for name, value in response.headers.items() if name.startswith(("access-", "vary"))}
        return JSONResponse(problem.as_json(), problem.status, headers, media_type=PROBLEM_MEDIA_TYPE)
