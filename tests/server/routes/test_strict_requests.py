"""Nothing that is sent is ignored in silence: unknown parameters, repeated names, endless numbers, empty keys."""

from __future__ import annotations

import re

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from server.config import Settings
from server.main import create_app
from server.worker.fake_executor import FakeExecutor

ORIGIN = "https://dreams.example"


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strict")
    settings = Settings(_env_file=None, model_id="fake", data_dir=folder, cors_origins=(ORIGIN,))
    with TestClient(
        create_app(settings, executor=FakeExecutor()), base_url="http://127.0.0.1:8000", client=("127.0.0.1", 1)
    ) as client:
        yield client


def routes(client):
    return [route for route in client.app.routes if isinstance(route, APIRoute)]


def test_no_route_of_the_api_ignores_a_query_parameter_that_it_does_not_know(client):
    seen = []
    for route in _all_routes(client):
        if any(dialect.speaks(route["method"], route["path"]) for dialect in client.app.state.dialects):
            continue  # APIs of other programs, whose clients send what they like
        path = re.sub(r"\{job_id\}|\{key_id\}", "0" * 16, route["path"]).replace("{index}", "0")
        if path in {"/", "/docs"}:
            continue  # pages for people
        answer = client.request(route["method"], f"{path}?statuses=dead", json={"prompt": "a cat"})
        assert answer.status_code == 422, (route, answer.text)
        assert answer.json()["errors"][0]["field"] == "statuses"
        seen.append(path)
    assert {"/v1/jobs", "/v1/queue", "/health", "/metrics", "/generate", "/v1/usage", "/livez"} <= set(seen)


def _all_routes(client):
    paths = client.get("/openapi.json").json()["paths"]
    return [{"path": path, "method": method.upper()} for path, methods in paths.items() for method in methods]


def test_known_parameters_are_taken_and_a_wrong_one_is_named_without_its_place(client):
    assert client.get("/v1/jobs?status=dead&status=done&limit=5").status_code == 200
    assert client.get("/v1/usage?from=2026-01-01&group_by=user").status_code == 200
    refused = client.get("/v1/jobs?status=lost").json()
    assert refused["detail"].startswith("status must be ")


@pytest.mark.parametrize(
    "secret", ["sb_live_" + "x" * 40, "a prompt of somebody, with quite a lot of words in it", "ключ"], ids=str
)
def test_an_unknown_parameter_is_not_repeated_where_it_could_be_a_secret(client, secret):
    answer = client.get("/v1/queue", params={secret: "1"})
    assert answer.status_code in {401, 422}
    assert secret not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        '{"prompt": "a cat", "prompt": "a dog"}',
        '{"prompt": "a cat", "seed": 1, "seed": 1}',
        '{"prompt": "a cat", "user": {"a": 1, "a": 2}}',
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/v1/jobs"])
def test_a_name_that_is_there_twice_is_refused_and_no_value_repeated(client, path, body):
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_body")
    assert "more than once" in answer.json()["detail"]
    assert "dog" not in answer.text


@pytest.mark.parametrize("field", ["seed", "height", "num_images", "guidance_scale", "prompt", "unknown"])
@pytest.mark.parametrize("digits", [30, 500, 5000, 100_000])
def test_an_endless_number_is_told_by_its_field_and_rule(client, field, digits):
    content = f'{{"prompt": "a cat", "{field}": {"9" * digits}}}'.replace('"prompt": "a cat", "prompt"', '"prompt"')
    answer = client.post("/generate", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field
    assert len(answer.text) < 1000


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "\u00e9"])
@pytest.mark.parametrize("path", ["/generate", "/v1/jobs"])
def test_an_idempotency_key_that_cannot_be_one_is_refused(client, path, key):
    headers = {"Idempotency-Key": key.encode("latin-1")}
    answer = client.post(path, json={"prompt": "a cat"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_idempotency_key"), answer.text


@pytest.mark.parametrize(
    "asks",
    [
        {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
        {"Origin": ORIGIN, "Access-Control-Request-Method": "DELETE"},
        {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-Evil"},
    ],
)
def test_a_preflight_that_is_refused_is_a_problem_document(client, asks):
    answer = client.options("/v1/jobs", headers=asks)
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
    assert "the preflight is refused" in answer.json()["detail"]
    assert "evil" not in answer.text.lower()


@pytest.mark.parametrize("path", ["/health", "/readyz", "/", "/livez", "/openapi.json"])
@pytest.mark.parametrize(
    "failure", [None, "{folder}/unet/config.json is damaged", "/opt/x y/lib/libcuda.so cannot be read"]
)
def test_no_absolute_path_is_shown_without_a_key(tmp_path, path, failure):
    from engine.models.random_model import make_random_model  # noqa: PLC0415 -- torch: only for this test

    folder = tmp_path / "somewhere" / "my-model"
    make_random_model(folder, seed=1)
    settings = Settings(_env_file=None, model_id=str(folder), data_dir=tmp_path / "data")
    executor = FakeExecutor(load_failure=failure and failure.format(folder=folder))
    with TestClient(
        create_app(settings, executor=executor), base_url="http://127.0.0.1:8000", client=("127.0.0.1", 1)
    ) as client:
        text = client.get(path).text
        assert str(tmp_path) not in text
        assert "/opt/" not in text
        if path in {"/health", "/"}:
            assert "my-model" in text
        if path in {"/health", "/readyz"} and failure:
            assert "unet/config.json is damaged" in text or "libcuda.so cannot be read" in text
