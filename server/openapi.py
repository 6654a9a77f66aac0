"""The OpenAPI description: what FastAPI finds, and the problem document that every error has."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from server.schemas import Problem

__all__ = ["openapi_of"]


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """Describe the app; made once, when it is first asked for."""
    if app.openapi_schema is None:
        description = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes, openapi_version="3.1.0"
        )
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        description["components"]["schemas"] |= problem.pop("$defs") | {"Problem": problem}
        app.openapi_schema = description
    return app.openapi_schema
