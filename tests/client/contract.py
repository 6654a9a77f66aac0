"""What the client relies on in the server's OpenAPI document, cut out of it: `contract.json` is a copy of that.

python -m tests.client.contract    writes the copy anew, after the client has been made to fit
"""

from __future__ import annotations

import dataclasses
import json
import types
from datetime import date
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from semantic_bit_client.drawing import JobDrawing
from semantic_bit_client.models import Health, JobState, Model, Queue, Sampler, UsageDay, UsageSum

from server.config import Settings
from server.errors import PROBLEMS
from server.main import create_app
from server.problems import _HTTP_CODES
from server.worker.fake_executor import FakeExecutor

COPY = Path(__file__).with_name("contract.json")

OPERATIONS: dict[str, Any] = {
    "POST /v1/jobs": JobState,
    "GET /v1/jobs/{job_id}": JobState,
    "POST /v1/jobs/{job_id}/cancel": JobState,
    "GET /v1/jobs/{job_id}/images/{index}": None,
    "GET /v1/jobs/{job_id}/events": None,
    "GET /v1/queue": Queue,
    "GET /v1/models": {"data": tuple[Model, ...]},
    "GET /v1/samplers": {"samplers": tuple[Sampler, ...]},
    "GET /v1/usage": {"from": date, "to": date, "rows": tuple[UsageDay, ...], "total": UsageSum},
    "GET /health": Health,
}
"""Each operation that the client uses -> what it reads from a success."""

MISSING = "is not there"


def document() -> dict[str, Any]:
    """The OpenAPI document of the real app."""
    return create_app(Settings(_env_file=None, model_id="fake"), executor=FakeExecutor()).openapi()


def codes() -> dict[str, int]:
    """Every code that a problem document can have, and its status."""
    return {kind.code: kind.status for kind in (*PROBLEMS.values(), *_HTTP_CODES.values())}


def relied_on(document: dict[str, Any]) -> dict[str, Any]:
    """The parts of an OpenAPI document that the client would notice."""
    return {
        "operations": {name: _operation(name, document) for name in OPERATIONS},
        "problem": _shape({"code": str, "detail": str, "request_id": str}, {"$ref": _SCHEMAS + "Problem"}, document),
        "codes": codes(),
    }


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """Every place at which two JSON values differ, a line each."""
    if isinstance(before, dict) and isinstance(after, dict):
        names = [*before, *(name for name in after if name not in before)]
        return [
            line
            for name in names
            for line in differences(before.get(name, MISSING), after.get(name, MISSING), f"{where} > {name}")
        ]
    return [] if before == after else [f"{where.removeprefix(' > ')}: {before!r} became {after!r}"]


_SCHEMAS = "#/components/schemas/"


def _operation(name: str, document: dict[str, Any]) -> Any:
    method, path = name.split(" ")
    operation = document["paths"].get(path, {}).get(method.lower())
    if operation is None:
        return MISSING
    told: dict[str, Any] = {
        "parameters": {
            parameter["name"]: {"in": parameter["in"], "schema": _bare(parameter["schema"], document)}
            for parameter in operation.get("parameters", [])
        },
        "successes": {
            status: sorted(response.get("content", {}))
            for status, response in operation["responses"].items()
            if status.startswith("2")
        },
    }
    if "requestBody" in operation:
        schema = _resolved(operation["requestBody"]["content"]["application/json"]["schema"], document)
        fields = ["prompt", *sorted(JobDrawing.__annotations__)]
        told["request"] = {field: _bare(schema["properties"].get(field, MISSING), document) for field in fields}
        told["required"] = schema["required"]
    if OPERATIONS[name] is not None:
        success = min(told["successes"])
        schema = operation["responses"][success]["content"]["application/json"]["schema"]
        told["answer"] = _shape(OPERATIONS[name], schema, document)
    return told


def _shape(kind: Any, schema: Any, document: dict[str, Any]) -> Any:
    """A schema, as far as the client reads it: `kind` is what it reads it as."""
    schema = _resolved(schema, document)
    if dataclasses.is_dataclass(kind):
        kind = get_type_hints(kind)
    if isinstance(kind, dict):
        if "anyOf" in schema:
            [schema] = [_resolved(choice, document) for choice in schema["anyOf"] if choice != {"type": "null"}]
        properties = schema.get("properties", {})
        return {
            field: _shape(of, properties[field], document) if field in properties else MISSING
            for field, of in kind.items()
        }
    if get_origin(kind) in {Union, types.UnionType}:
        [wanted] = [choice for choice in get_args(kind) if choice is not types.NoneType]
        return {"or null": {"type": "null"} in schema.get("anyOf", []), "is": _shape(wanted, schema, document)}
    if get_origin(kind) is tuple:
        return {"items": _shape(get_args(kind)[0], schema.get("items", {}), document)}
    return _bare(schema, document)


def _resolved(schema: Any, document: dict[str, Any]) -> Any:
    if isinstance(schema, dict) and "$ref" in schema:
        return document["components"]["schemas"][schema["$ref"].removeprefix(_SCHEMAS)]
    return schema


def _bare(schema: Any, document: dict[str, Any]) -> Any:
    """Without what is only for people."""
    schema = _resolved(schema, document)
    if isinstance(schema, list):
        return [_bare(item, document) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _bare(value, document)
        for name, value in schema.items()
        if name not in {"title", "description", "default"}
    }


if __name__ == "__main__":
    COPY.write_text(json.dumps(relied_on(document()), indent=1) + "\n")
