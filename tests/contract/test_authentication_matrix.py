"""Every operation, asked with every kind of key that is not enough, and with the one that is.

Made from the OpenAPI document and from what the app routes, so that a new route cannot be forgotten.
"""

from __future__ import annotations

import asyncio
import time
from typing import get_args

import httpx2
import msgspec
import pytest

from server.access.authentication import OPEN_PATHS, is_open
from server.store.api_keys import Scope, new_key, rotated
from server.store.job_store import JobStore
from tests.contract.every_route import code_of, detail_of, documented, new_app, routed

APP = new_app()
DOCUMENT = APP.openapi()
OPERATIONS = documented(APP)
CLOSED = {label: operation for label, operation in OPERATIONS.items() if operation.get("security")}
OPERATOR_ONLY = {
    "GET /v1/keys",
    "POST /v1/keys",
    "POST /v1/keys/{key_id}/rotate",
    "POST /v1/keys/{key_id}/revoke",
    "GET /v1/backup",
}
"""For the command line on the server's machine, over its own socket."""
OPEN_FILES = {"GET /docs", "GET /openapi.json", "HEAD /openapi.json", "* /static"}
"""What the document does not tell of, since it is the document, or a page."""
WISH = {"prompt": "a cat", "num_inference_steps": 1}


def scope_of(label: str) -> Scope:
    """The scope that the document says the operation needs."""
    [scope] = CLOSED[label]["security"][0]["bearer"]
    return scope


def put_in(keys) -> dict[str, str]:
    """What a caller may have: a name -> the text of a key that the server knows, or does not. Appends to `keys`."""
    now = time.time()
    texts = {}

    def add(name, scopes, **changes):
        key, texts[name] = new_key(name, scopes, created_at=now - 100)
        keys.append(msgspec.structs.replace(key, **changes))

    for scope in get_args(Scope):
        add(scope, {scope})
    everything = set(get_args(Scope))
    add("owner", everything - {"admin"})
    add("other", everything - {"admin"})
    add("expired", everything, expires_at=now - 1)
    add("revoked", everything, revoked_at=now - 1)
    add("rotated away", everything)
    keys[-1] = rotated(keys[-1], old_until=now - 1)[0]
    texts["unknown"] = new_key("unknown", everything, created_at=now)[1]
    texts["malformed"] = texts["owner"][:-1]
    return texts


@pytest.fixture(scope="module")
def world(module_serve, tmp_path_factory):
    """A running server with keys and a finished job of the key "owner": `ask(label, key_name) -> answer`."""
    data = tmp_path_factory.mktemp("matrix")
    keys = []
    texts = put_in(keys)

    async def fill() -> None:
        store = await JobStore.open(data / "server")
        for key in keys:
            await store.put_key(key)
        await store.close()

    asyncio.run(fill())
    limits = dict.fromkeys(("limit_requests_per_minute", "limit_work_units_per_hour"), 0)
    running = module_serve(data_dir=str(data), **limits)
    with httpx2.Client(base_url=running.url) as client:

        def ask(label: str, headers: dict[str, str], job_id: str = "0" * 16):
            method, path = label.split(" ")
            operation = OPERATIONS.get(label, {})
            values = {"job_id": job_id, "index": "0", "key_id": "0" * 12}
            values |= {"expires": "0", "signature": "0" * 64, "name": "a.png", "model_id": "fake"}
            required = [parameter for parameter in operation.get("parameters", []) if parameter["required"]]
            assert {parameter["name"] for parameter in required} <= values.keys(), "say here what it should be"
            body = {"json": WISH} if "requestBody" in operation else {}
            return client.request(method, path.format(**values), headers=headers, **body)

        drawn = client.post("/generate", json=WISH, headers={"X-API-Key": texts["owner"]})
        yield ask, texts, drawn.headers["x-job-id"]


def test_the_document_is_not_empty():
    assert {"POST /generate", "POST /v1/jobs", "GET /v1/jobs/{job_id}/events"} <= CLOSED.keys()


def test_no_route_is_kept_from_the_document_but_the_operators_and_what_is_open_on_purpose():
    assert OPERATIONS.keys() <= routed(APP)
    assert routed(APP) - OPERATIONS.keys() == OPERATOR_ONLY | OPEN_FILES
    assert {label.split(" ")[1] for label in OPEN_FILES} <= OPEN_PATHS | {"/static"}


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_operation_needs_a_scope_or_is_open_on_purpose(label):
    assert (label in CLOSED) != is_open(*label.split(" ")), "dependencies=[needs(SCOPE)], or OPEN_PATHS"
    if label in CLOSED:
        scope = scope_of(label)
        assert scope in get_args(Scope)
        assert OPERATIONS[label]["security"] == [{"bearer": [scope]}, {"x_api_key": [scope]}]
        for status in ("401", "403"):
            [media_type] = OPERATIONS[label]["responses"][status]["content"]
            is_ours = not any(dialect.speaks(*label.split(" ")) for dialect in APP.state.dialects)
            assert media_type == ("application/problem+json" if is_ours else "application/json")


def test_the_document_tells_how_a_key_is_sent():
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    assert [schemes["x_api_key"][name] for name in ("type", "in", "name")] == ["apiKey", "header", "X-API-Key"]


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
@pytest.mark.parametrize("key", ["none", "malformed", "unknown", "expired", "revoked", "rotated away"])
@pytest.mark.parametrize("label", CLOSED)
def test_nobody_knows_who_asks(world, label, key, header):
    ask, texts, job_id = world
    prefix = "Bearer " if header == "Authorization" else ""
    answer = ask(label, {} if key == "none" else {header: prefix + texts[key]}, job_id)
    assert (answer.status_code, code_of(answer)) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith(("Bearer", "Basic"))
    said = {"none": "API key is required", "malformed": "malformed"}.get(
        key, "the API key is invalid, expired or revoked"
    )
    assert said in detail_of(answer)


@pytest.mark.parametrize("scope", get_args(Scope))
@pytest.mark.parametrize("label", CLOSED)
def test_a_key_with_one_scope_may_do_that_and_nothing_else(world, label, scope):
    ask, texts, _ = world
    answer = ask(label, {"X-API-Key": texts[scope]})
    if scope in {scope_of(label), "admin"}:
        assert answer.status_code not in {401, 403, 429}
        assert answer.status_code < 500
    else:
        assert (answer.status_code, code_of(answer)) == (403, "insufficient_scope")
        assert f"the scope {scope_of(label)}" in detail_of(answer)


@pytest.mark.parametrize("label", sorted(OPERATOR_ONLY))
def test_what_is_the_operators_is_no_keys_business_nor_that_of_programs_on_this_machine(world, server, label):
    ask, texts, _ = world
    for name in (*get_args(Scope), "owner", "other"):
        answer = ask(label, {"X-API-Key": texts[name]})
        assert (answer.status_code, code_of(answer)) == (403, "operator_only"), name
    for headers in ({}, *({"X-API-Key": texts[name]} for name in ("malformed", "unknown", "expired", "revoked"))):
        answer = ask(label, headers)
        assert (answer.status_code, code_of(answer)) == (401, "unauthorized"), headers
    method, path = label.split(" ")
    url = server.url + path.format(key_id="0" * 12)
    for headers, status, code in (({}, 403, "operator_only"), ({"Host": "gpu.example"}, 401, "unauthorized")):
        answer = httpx2.request(method, url, headers=headers)  # of a server without keys
        assert (answer.status_code, code_of(answer)) == (status, code)


@pytest.mark.parametrize("label", [label for label in CLOSED if "{job_id}" in label and scope_of(label) != "admin"])
def test_another_keys_job_is_no_job(world, label):
    ask, texts, job_id = world
    answer = ask(label, {"X-API-Key": texts["other"]}, job_id)
    assert (answer.status_code, code_of(answer)) == (404, "job_not_found")
    assert answer.json() | {"request_id": "", "instance": ""} == ask(label, {"X-API-Key": texts["other"]}).json() | {
        "request_id": "",
        "instance": "",
    }, "as if there were none"
    for key in ("owner", "admin"):
        assert ask(label, {"X-API-Key": texts[key]}, job_id).status_code == 200


@pytest.mark.parametrize("label", sorted(OPERATIONS.keys() - CLOSED.keys()))
def test_what_is_open_is_open_to_everybody(world, label):
    ask, texts, _ = world
    for headers in ({}, {"X-API-Key": texts["malformed"]}, {"Authorization": f"Bearer {texts['revoked']}"}):
        assert ask(label, headers).status_code == (404 if "{signature}" in label else 200)
