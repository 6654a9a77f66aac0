"""The OpenAPI description: what FastAPI finds, and the problem document that every error has."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from server.problems import PROBLEM_MEDIA_TYPE
from server.schemas import Problem

__all__ = ["openapi_of"]

_FASTAPIS_OWN = ("HTTPValidationError", "ValidationError")
"""Schemas of the answer that FastAPI would give to a wrong value; ours is a problem document."""


def openapi_of(app: FastAPI) -> dict[str, Any]:
    """Describe the app; made once, when it is first asked for."""
    if app.openapi_schema is None:
        description = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes, openapi_version="3.1.0"
        )
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = description["components"]["schemas"]
        schemas |= problem.pop("$defs") | {"Problem": problem}
        for name in _FASTAPIS_OWN:
            schemas.pop(name, None)
        for operation in (operation for path in description["paths"].values() for operation in path.values()):
            _tell_invalid(operation["responses"])
        app.openapi_schema = description
    return app.openapi_schema


def _tell_invalid(responses: dict[str, Any]) -> None:
    """Put our answer to a wrong value where FastAPI has put its own."""
    schema = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref") == "#/components/schemas/HTTPValidationError":
        problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
        responses["422"] = {
            "description": "A value breaks a rule; `errors` names field, rule and value",
            "content": {PROBLEM_MEDIA_TYPE: problem},
        }
