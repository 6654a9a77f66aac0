"""The OpenAPI description: what FastAPI finds, the problem document of every error, and both headers for a key."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from server.problems import PROBLEM_MEDIA_TYPE
from server.schemas import Problem

__all__ = ["openapi_of"]

_HEADER_ALIAS = {"x_api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key"}}

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
            _tell_unauthorized(operation)
        description["components"]["securitySchemes"] |= _HEADER_ALIAS
        app.openapi_schema = description
    return app.openapi_schema


def _tell_invalid(responses: dict[str, Any]) -> None:
    """Put our answer to a wrong value where FastAPI has put its own."""
    schema = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref") == "#/components/schemas/HTTPValidationError":
        responses["422"] = _problem("A value breaks a rule; `errors` names field, rule and value")


def _tell_unauthorized(operation: dict[str, Any]) -> None:
    """Of an operation that needs a scope: the other header for the key, and what is answered without one."""
    security: list[dict[str, list[str]]] = operation.get("security", [])
    for scopes in [requirement["bearer"] for requirement in security if "bearer" in requirement]:
        security.append(dict.fromkeys(_HEADER_ALIAS, scopes))
        operation["responses"]["401"] = _problem(
            "No API key, or none that is taken; without keys: not from this machine"
        )
        operation["responses"]["403"] = _problem(f"The API key does not have the scope `{scopes[0]}`")
        operation["responses"]["429"] = _problem(
            "The API key has asked for as much as it may; `Retry-After` says when to go on"
        )


def _problem(description: str) -> dict[str, Any]:
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content}
