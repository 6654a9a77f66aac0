"""The OpenAPI document: FastAPI's, with the problem documents of errors and both headers for API keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from server.dialects.base import Dialect
from server.routes.responses import problem, problems
from server.schemas.generation import Problem

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
        document = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = description["components"]["schemas"]
        schemas |= document.pop("$defs") | {"Problem": document}
        for name in _FASTAPIS_OWN:
            schemas.pop(name, None)
        _describe_size_multiple(schemas["GenerateRequest"], app.state.service.defaults.pixels_per_latent)
        for path, method, operation in _operations(description["paths"]):
            _describe_invalid(operation["responses"])
            _describe_not_authorised(operation)
            for dialect in app.state.dialects:
                if dialect.speaks(method.upper(), path):
                    _translate(operation["responses"], dialect)
        description["components"]["securitySchemes"] |= _HEADER_ALIAS
        app.openapi_schema = description
    return app.openapi_schema


def _operations(paths: Mapping[str, Mapping[str, dict[str, Any]]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    return ((path, method, operation) for path, found in paths.items() for method, operation in found.items())


def _translate(responses: dict[str, dict[str, Any]], dialect: Dialect) -> None:
    """Say the errors of an operation as the API says them that it belongs to."""
    content = {"application/json": {"schema": dict(dialect.schema)}}
    for status in [status for status in responses if status >= "400"]:
        known = Problem(type="", title="", status=int(status), detail="", instance="", code="", request_id="")
        said = str(dialect.say(known).status)
        responses[said] = {"description": responses.pop(status)["description"], "content": content}


def _describe_size_multiple(request: dict[str, Any], pixels_per_latent: int) -> None:
    """Say what every size is a multiple of, which depends on the model."""
    for name in ("height", "width"):
        whole, _ = request["properties"][name]["anyOf"]
        whole["multipleOf"] = pixels_per_latent


def _describe_invalid(responses: dict[str, Any]) -> None:
    """Put our answer to a wrong value where FastAPI has put its own."""
    schema = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if schema.get("$ref") == "#/components/schemas/HTTPValidationError":
        responses["422"] = problems(422)[422]


def _describe_not_authorised(operation: dict[str, Any]) -> None:
    """Of an operation that needs a scope: the other header for the key, and what is answered without one."""
    security: list[dict[str, list[str]]] = operation.get("security", [])
    for scopes in [requirement["bearer"] for requirement in security if "bearer" in requirement]:
        security.append(dict.fromkeys(_HEADER_ALIAS, scopes))
        operation["responses"]["401"] = problem(
            "API key missing or invalid; on a server without keys: request from another machine"
        )
        operation["responses"]["403"] = problem(f"The API key does not have the scope `{scopes[0]}`")
        operation["responses"]["429"] = problem("Rate limit of the API key exceeded; retry after `Retry-After`")
