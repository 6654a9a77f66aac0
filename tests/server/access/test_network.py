"""Without API keys only this machine is served: peer, Host and forwarding headers, each alone is enough to refuse."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from server.access.open_host import refuse_open_host
from server.config import Settings, StartError
from server.main import create_app
from server.worker.fake_executor import FakeExecutor

PROMPT = {"prompt": "a cat", "num_inference_steps": 1}


@pytest.fixture
def app(tmp_path):
    settings = Settings(_env_file=None, model_id="fake", data_dir=tmp_path / "data")
    return create_app(settings, executor=FakeExecutor())


def client_from(app, peer: str, host: str = "127.0.0.1:8000") -> TestClient:
    return TestClient(app, base_url="http://127.0.0.1:8000", client=(peer, 50000), headers={"Host": host})


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:8000", "[::1]:8000", "127.0.0.1"])
def test_this_machine_is_served(app, peer, host):
    with client_from(app, peer, host) as client:
        assert client.post("/generate", json=PROMPT).status_code == 200


def assert_refused(answer):
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["code"] == "unauthorized"
    assert "no API keys" in answer.json()["detail"]


@pytest.mark.parametrize("peer", ["192.168.1.7", "10.0.0.1", "8.8.8.8", "::2", "::ffff:10.0.0.1", "unix", ""])
def test_another_machine_is_refused(app, peer):
    assert_refused(client_from(app, peer).post("/generate", json=PROMPT))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0:8000",
        "192.168.1.7:8000", "", "127.0.0.1@evil.example", "localhost:99999", "localhost/x", "[::1", "2130706433",
    ],
)  # fmt: skip
def test_a_foreign_host_name_is_refused_so_that_dns_rebinding_does_not_work(app, host):
    assert_refused(client_from(app, "127.0.0.1", host).post("/generate", json=PROMPT))


def test_two_host_headers_are_refused(app):
    client = TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 50000))
    headers = [("Host", "127.0.0.1:8000"), ("Host", "127.0.0.1:8000"), ("Content-Type", "application/json")]
    assert_refused(client.post("/generate", content=b'{"prompt": "a cat"}', headers=headers))


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Host"])
def test_a_forwarded_request_is_refused(app, name):
    assert_refused(client_from(app, "127.0.0.1").post("/generate", json=PROMPT, headers={name: "127.0.0.1"}))


def test_unknown_paths_are_protected_too(app):
    assert_refused(client_from(app, "10.0.0.1").get("/v1/anything"))


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/livez", "/readyz", "/health", "/static/docs.js"])
def test_what_tells_about_the_server_is_open_to_all(app, path):
    with client_from(app, "8.8.8.8", "gpu.example") as client:
        assert client.get(path).status_code in {200, 503}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
def test_a_loopback_address_may_be_listened_on(host):
    refuse_open_host(Settings(_env_file=None, host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "gpu.example", "", "*"])
def test_an_open_address_is_refused_without_keys_and_the_line_says_what_to_do(tmp_path, host):
    with pytest.raises(StartError, match=r"^HOST must be a loopback.*keys create.*HOST=127\.0\.0\.1") as caught:
        refuse_open_host(Settings(_env_file=None, host=host, data_dir=tmp_path / "data"))
    assert not (tmp_path / "data").exists()
    assert "\n" not in str(caught.value)
