"""Who is served once there are keys: where a key may stand, what it may do, whose jobs it sees."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient

from server.access.authentication import OPEN_PATHS, Authentication
from server.access.key_ring import KeyRing
from server.config import Settings
from server.main import create_app
from server.store.api_keys import new_key
from server.worker.fake_executor import FakeExecutor

ENVIRONMENT = "correct horse battery staple, and two more"
WISH = {"prompt": "a cat", "num_inference_steps": 1}


@dataclass(kw_only=True)
class Gateway:
    """The app, as programs on this machine see it."""

    client: TestClient
    keys: KeyRing

    def key(self, *scopes: str, **how: float | None) -> str:
        name = "+".join(scopes)
        return self.client.portal.call(lambda: self.keys.create(name, scopes, **{"expires_s": None, **how}))[1]

    def get(self, path: str = "/v1/jobs", **headers: str):
        return self.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def draw(self, key: str) -> str:
        answer = self.client.post("/v1/jobs", json=WISH, headers=bearer(key))
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]


def gateway_with(tmp_path, peer: str = "127.0.0.1", **settings) -> Iterator[Gateway]:
    app = create_app(
        Settings(_env_file=None, model_id="fake", data_dir=tmp_path / "data", **settings), executor=FakeExecutor()
    )
    with TestClient(app, base_url="http://127.0.0.1:8000", client=(peer, 50000)) as client:
        yield Gateway(client=client, keys=app.state.service.keys)


@pytest.fixture
def gateway(tmp_path) -> Iterator[Gateway]:
    yield from gateway_with(tmp_path)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def refusal(answer, status: int = 401, code: str = "unauthorized") -> str:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("www-authenticate" in answer.headers) == (status == 401)
    return answer.json()["detail"]


# --- where a key may stand --------------------------------------------------------------------------------------------


def test_with_the_first_key_everybody_needs_one_programs_on_this_machine_too(gateway):
    assert gateway.get().status_code == 200
    key = gateway.key("read")
    assert "API key is required" in refusal(gateway.get())
    assert gateway.get(Authorization=f"Bearer {key}").status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
def test_a_key_may_stand_in_either_header_or_in_both(gateway, scheme):
    key = gateway.key("read")
    assert gateway.get(Authorization=f"{scheme}{key}").status_code == 200
    assert gateway.get(X_API_Key=key).status_code == 200
    assert gateway.get(Authorization=f"{scheme}{key}", x_api_key=key).status_code == 200
    assert gateway.get(Authorization="Basic dXNlcjpwYXNz", x_api_key=key).status_code == 200, "a proxy's own business"


def test_two_different_keys_are_refused_even_if_both_are_right(gateway):
    one, other = gateway.key("read"), gateway.key("read")
    assert "different API keys" in refusal(gateway.get(Authorization=f"Bearer {one}", x_api_key=other))
    for name in ("Authorization", "X-API-Key"):
        values = [f"Bearer {one}", f"Bearer {other}"] if name == "Authorization" else [one, other]
        refusal(gateway.client.get("/v1/jobs", headers=[(name, value) for value in values]))


@pytest.mark.parametrize(
    "header",
    [
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"X-API-Key": ""},
        {"Cookie": "api_key=x"},
        {"Authorization": "\u00e9".encode("latin-1")},
    ],
    ids=str,
)
def test_what_holds_no_key_is_no_key(gateway, header):
    gateway.key("read")
    assert "API key is required" in refusal(gateway.client.get("/v1/jobs", headers=header))


@pytest.mark.parametrize(
    "value", [b"sb_live_", b"Bearer x", b"\xff\xfe", b"a" * 8000, b"' OR 1=1 --", b"%00"], ids=repr
)
def test_nonsense_in_place_of_a_key_is_told_to_be_malformed(gateway, value):
    gateway.key("read")
    assert "malformed" in refusal(gateway.client.get("/v1/jobs", headers={"X-API-Key": value}))


def test_a_key_of_the_environment_works_without_any_in_the_store(tmp_path):
    for gateway in gateway_with(tmp_path, peer="10.0.0.1", api_key=ENVIRONMENT):
        refusal(gateway.get())
        assert refusal(gateway.get(X_API_Key=ENVIRONMENT + "!")) == "the API key is invalid, expired or revoked"
        assert gateway.get(X_API_Key=ENVIRONMENT, Host="gpu.example", Via="1.1 proxy").status_code == 200
        job_id = gateway.draw(ENVIRONMENT)
        assert gateway.get(f"/v1/jobs/{job_id}", Authorization=f"Bearer {ENVIRONMENT}").status_code == 200
        assert ENVIRONMENT not in repr(gateway.keys) + repr(gateway.client.app.state.service)


@pytest.mark.parametrize("path", sorted(OPEN_PATHS | {"/static/docs.js"}))
def test_what_tells_about_the_server_stays_open_whatever_is_sent(gateway, path):
    gateway.key("read")
    for headers in ({}, {"X-API-Key": "wrong"}, {"X-Forwarded-For": "8.8.8.8", "Host": "gpu.example"}):
        assert gateway.client.get(path, headers=headers).status_code in {200, 503}


def test_an_unknown_path_tells_strangers_nothing(gateway):
    key = gateway.key("read")
    refusal(gateway.get("/v1/anything"))
    assert gateway.get("/v1/anything", x_api_key=key).status_code == 404


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/v1/jobs?api_key={}", "/v1/jobs?API-Key={}", "/v1/jobs?x=1&access_token={}", "/v1/jobs?user={}",
        "/v1/jobs?cursor=%73b_live_{tail}", "/v1/jobs/{}", "/v1/jobs/%73b_live_{tail}", "/static/{}", "/?{}=1&token=",
        "/health?key={}", "/health?{}", "/v1/jobs?x%5B{}%5D=1", "/v1/jobs?user=%20{}", "/v1/jobs?user=+{}",
        "/v1/jobs?{}&x", "/v1/jobs?user=key:{}", "/v1/jobs?a;b={}", "/v1/jobs?%73b_live_{tail}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_sent_as_header_too", [False, True])
def test_a_key_in_an_address_is_refused_and_neither_logged_nor_repeated(
    gateway, caplog, capfd, target, is_sent_as_header_too
):
    key = gateway.key("read")
    tail = key.removeprefix("sb_live_")
    with caplog.at_level(logging.DEBUG):
        headers = bearer(key) if is_sent_as_header_too else {}
        answer = gateway.client.get(target.format(key, tail=tail), headers=headers)
    assert "Authorization: Bearer" in refusal(answer)
    logged = caplog.text.replace(str(answer.url), "")  # what the test's own client logs
    printed = capfd.readouterr().out
    assert "code=unauthorized" in printed
    assert tail not in answer.text + logged + printed


def test_a_key_in_an_address_is_refused_without_keys_too(gateway):
    refusal(gateway.get(f"/v1/jobs?api_key={new_key('x', [], created_at=0.0)[1]}"))
    assert gateway.get("/v1/jobs?limit=1&user=sb").status_code == 200


# --- what a key may do ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "statuses"),
    [
        ("read", (200, 403, 403)),
        ("generate", (403, 202, 403)),
        ("metrics", (403, 403, 403)),
        ("admin", (200, 202, 404)),
    ],
)
def test_a_key_may_do_what_its_scopes_say(gateway, scope, statuses):
    headers = bearer(gateway.key(scope))
    answers = (
        gateway.client.get("/v1/jobs", headers=headers),
        gateway.client.post("/v1/jobs", json=WISH, headers=headers),
        gateway.client.post(f"/v1/jobs/{'0' * 16}/requeue", headers=headers),
    )
    assert tuple(answer.status_code for answer in answers) == statuses
    for answer, missing in zip(answers, ("read", "generate", "admin"), strict=True):
        if answer.status_code == 403:
            assert f"the scope {missing}" in refusal(answer, 403, "insufficient_scope")


def test_a_keys_jobs_are_nobody_elses_but_for_an_admin(gateway):
    mine, other = gateway.key("generate", "read"), gateway.key("generate", "read")
    admin = gateway.key("admin")
    job_id = gateway.draw(mine)
    for key, status in ((mine, 200), (other, 404), (admin, 200)):
        assert gateway.get(f"/v1/jobs/{job_id}", x_api_key=key).status_code == status
    seen = [len(gateway.get("/v1/jobs", x_api_key=key).json()["jobs"]) for key in (mine, other, admin)]
    assert seen == [1, 0, 1]
    cancelled = gateway.client.post(f"/v1/jobs/{job_id}/cancel", headers=bearer(other))
    assert refusal(cancelled, 404, "job_not_found")


def test_two_keys_may_use_the_same_idempotency_key(gateway):
    ids = set()
    for _ in range(2):
        headers = {**bearer(gateway.key("generate")), "Idempotency-Key": "k-1"}
        ids.update(gateway.client.post("/v1/jobs", json=WISH, headers=headers).json()["id"] for _ in range(2))
    assert len(ids) == 2


def test_jobs_stay_their_keys_after_its_rotation(gateway):
    old = gateway.key("generate", "read")
    job_id = gateway.draw(old)
    _, new = gateway.client.portal.call(lambda: gateway.keys.rotate(old[8:20], grace_s=0))
    assert gateway.get(f"/v1/jobs/{job_id}", x_api_key=new).status_code == 200
    refusal(gateway.get(f"/v1/jobs/{job_id}", x_api_key=old))


def test_no_key_may_make_keys_not_even_an_admins(gateway):
    assert "on the server's machine" in refusal(gateway.get("/v1/keys"), 403, "operator_only")
    admin = bearer(gateway.key("admin"))
    for method, path in (("GET", ""), ("POST", ""), ("POST", f"/{'0' * 12}/rotate"), ("POST", f"/{'0' * 12}/revoke")):
        answer = gateway.client.request(method, f"/v1/keys{path}", headers=admin, json=None)
        assert refusal(answer, 403, "operator_only")
    assert len(gateway.keys.all()) == 1


def test_the_routes_for_keys_are_not_in_the_public_document(gateway):
    assert "/v1/keys" not in gateway.get("/openapi.json").text


# --- wrong keys -------------------------------------------------------------------------------------------------------


def test_a_good_key_passes_however_many_wrong_ones_its_address_has_sent(gateway):
    key = gateway.key("read")
    wrong = [key[:-1], key + "x", "x" * 40, new_key("x", [], created_at=0.0)[1], "", "sb_live_"]
    for text in wrong * 20:
        refusal(gateway.get(X_API_Key=text))
    assert gateway.get(X_API_Key=key).status_code == 200


@pytest.mark.parametrize("others", ["wrong keys", "no key", "keys in addresses", "another key's whole limit"])
def test_nothing_that_others_send_from_an_address_shuts_out_a_good_key(tmp_path, others):
    """What one caller does is counted for its key alone; strangers are refused and counted for nobody."""
    for gateway in gateway_with(tmp_path, peer="10.0.0.1", limit_requests_per_minute=20):
        good, other = gateway.key("read"), gateway.key("read")
        for number in range(60):
            match others:
                case "wrong keys":
                    refusal(gateway.get(X_API_Key=f"{number:040}"))
                case "no key":
                    refusal(gateway.get())
                case "keys in addresses":
                    refusal(gateway.get(f"/v1/jobs?api_key={number}"))
                case _:
                    assert gateway.get(X_API_Key=other).status_code == (200 if number < 20 else 429)
        assert gateway.get(X_API_Key=good).status_code == 200


# --- cost -------------------------------------------------------------------------------------------------------------


async def test_the_middleware_takes_microseconds():
    """Some 20 on an idle machine; tests run beside others."""
    seen = []

    async def app(scope, _receive, _send):
        seen.append(scope["state"]["caller"].key_id)

    keys = KeyRing(ENVIRONMENT)
    middleware = Authentication(app, keys=keys)
    headers = [(b"host", b"gpu.example"), (b"accept", b"*/*"), (b"x-api-key", ENVIRONMENT.encode())]
    scope = {
        "type": "http",
        "path": "/v1/jobs",
        "raw_path": b"/v1/jobs",
        "query_string": b"limit=5",
        "headers": headers,
    }
    app_of_scope = SimpleNamespace(state=SimpleNamespace())
    scope |= {"client": ("10.0.0.1", 1), "server": ("10.0.0.2", 80), "app": app_of_scope}
    began = time.perf_counter()
    for _ in range(1000):
        await middleware(dict(scope), None, None)
    assert (time.perf_counter() - began) / 1000 < 500e-6
    assert set(seen) == {"environment"}
