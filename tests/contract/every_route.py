"""Every route of the app, whether or not the OpenAPI document tells of it: `METHOD /path`."""

from __future__ import annotations

import httpx2
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from server.config import Settings
from server.dialects.base import ERROR_CODE_HEADER
from server.main import create_app
from server.worker.fake_executor import FakeExecutor

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
"""What OpenAPI calls its operations; other names below a path are no operations."""


def new_app() -> FastAPI:
    """The app as it is served, not started."""
    return create_app(Settings(_env_file=None, model_id="fake"), executor=FakeExecutor())


def documented(app: FastAPI) -> dict[str, dict]:
    """The operations of the OpenAPI document."""
    return {
        f"{method.upper()} {path}": operation
        for path, operations in app.openapi()["paths"].items()
        for method, operation in operations.items()
        if method in METHODS
    }


def routed(app: FastAPI) -> set[str]:
    """Whatever a request can reach: routes of included routers too; for a mounted folder, or a socket, `* /path`."""
    return {
        f"{method} {route.path.replace(':path}', '}')}"
        for route in iter_route_contexts(app.routes)
        for method in sorted(route.methods or "*")
    }


def code_of(answer: httpx2.Response) -> str:
    """Our code of an error, in whichever API's words it was said."""
    return answer.headers.get(ERROR_CODE_HEADER) or answer.json()["code"]


def detail_of(answer: httpx2.Response) -> str:
    """What happened, in whichever API's words it was said."""
    said = answer.json()
    error = said.get("error")
    return said.get("detail") or (error["message"] if isinstance(error, dict) else error)
