"""Forwarding headers count from trusted proxies alone; the client is the last hop that none of them vouches for."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse

from server.access.proxies import TrustedProxies
from server.config import Settings, StartError
from server.main import create_app
from server.settings_file import load_settings
from server.worker.fake_executor import FakeExecutor

TRUSTED = "127.0.0.1, 10.0.0.0/8, fd00::/8"


async def seen(scope, receive, send):
    """What the app is told about the client."""
    request = Request(scope, receive)
    told = {
        "client": scope["client"][0],
        "scheme": scope["scheme"],
        "host": request.headers.getlist("host"),
        "forwarding": sorted(name for name in request.headers if "forward" in name or name in {"via", "x-real-ip"}),
    }
    await JSONResponse(told)(scope, receive, send)


def ask(peer: str, headers: list[tuple[str, str]]) -> dict:
    app = TrustedProxies(seen, Settings(_env_file=None, trusted_proxies=TRUSTED).trusted_proxies)
    client = TestClient(app, base_url="http://gpu.example", client=(peer, 50000))
    return client.get("/", headers=headers).json()


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.2.3", "::ffff:127.0.0.1", "fd00::7"])
@pytest.mark.parametrize(
    ("hops", "client"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["2001:db8::7"], "2001:db8::7"),
        (["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, 10.9.9.9"], "203.0.113.7"),
        (["203.0.113.7", "10.9.9.9", "fd00::1"], "203.0.113.7"),
        (["6.6.6.6, 203.0.113.7, 10.9.9.9 , 127.0.0.1"], "203.0.113.7"),
        (["garbage, 203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7:4711"], "203.0.113.7"),
        (["[2001:db8::7]:4711"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["10.9.9.9, 10.8.8.8"], "10.8.8.8"),
        (["127.0.0.1, 10.8.8.8"], "10.8.8.8"),
        (["::1", "127.0.0.1, 10.8.8.8"], "10.8.8.8"),
    ],
)
def test_the_client_is_the_last_hop_that_no_proxy_of_ours_has(peer, hops, client):
    told = ask(peer, [("X-Forwarded-For", hop) for hop in hops])
    assert told["client"] == client
    assert told["forwarding"] == []


@pytest.mark.parametrize(
    ("peer", "hops", "client"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "::1", "::1"),
        ("10.1.2.3", "127.0.0.1", "10.1.2.3"),
        ("10.1.2.3", "::1", "10.1.2.3"),
        ("127.0.0.1", "::1, 10.8.8.8", "10.8.8.8"),
        ("127.0.0.1", "127.0.0.1, 10.8.8.8, 127.0.0.1", "10.8.8.8"),
    ],
)
def test_a_loopback_address_is_this_machine_only_if_it_comes_from_this_machine(peer, hops, client):
    assert ask(peer, [("X-Forwarded-For", hops)])["client"] == client


@pytest.mark.parametrize(
    ("said", "scheme"),
    [(["https"], "https"), (["HTTPS"], "https"), (["http"], "http"), (["http, https"], "https"), (["ftp"], "http"),
     ([], "http")],
)  # fmt: skip
def test_the_scheme_is_what_the_nearest_proxy_says(said, scheme):
    headers = [("X-Forwarded-For", "203.0.113.7"), *(("X-Forwarded-Proto", word) for word in said)]
    assert ask("127.0.0.1", headers)["scheme"] == scheme


def test_the_host_is_the_one_that_the_client_asked_for():
    headers = [("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Host", "dreams.example")]
    assert ask("127.0.0.1", headers)["host"] == ["dreams.example"]
    assert ask("127.0.0.1", headers[:1])["host"] == ["gpu.example"]


SPOOFED = [
    ("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "127.0.0.1"),
    ("Via", "1.1 x"),
]  # fmt: skip


@pytest.mark.parametrize("peer", ["203.0.113.7", "11.0.0.1", "fe80::1", "::ffff:11.0.0.1", "unix"])
def test_a_stranger_is_not_believed(peer):
    told = ask(peer, SPOOFED)
    assert told == {
        "client": peer,
        "scheme": "http",
        "host": ["gpu.example"],
        "forwarding": ["via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"],
    }


@pytest.mark.parametrize(
    "hops", ["", "unknown", "203.0.113.7, unknown", "203.0.113.7,", "_hidden", "1.2.3", "[::1", "x" * 5000]
)
def test_a_proxy_that_does_not_say_who_the_client_is_is_believed_in_nothing(hops):
    told = ask("127.0.0.1", [("X-Forwarded-For", hops), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=127.0.0.1")])
    assert told["client"] == "127.0.0.1"
    assert told["scheme"] == "http"
    assert "forwarded" in told["forwarding"]


def test_the_header_forwarded_is_never_believed():
    """
    A proxy that sets X-Forwarded-For passes this one on as its client wrote it.
    """
    told = ask("127.0.0.1", [("Forwarded", "for=198.51.100.1;proto=https"), ("X-Forwarded-For", "203.0.113.7")])
    assert (told["client"], told["scheme"], told["forwarding"]) == ("203.0.113.7", "http", [])


WISH = {"prompt": "a cat", "num_inference_steps": 1}


@pytest.mark.parametrize(
    ("forwarded_for", "status"),
    [("203.0.113.7", 401), ("127.0.0.1, 203.0.113.7", 401), ("unknown", 401), ("127.0.0.1", 200)],
)
def test_without_keys_a_proxy_lets_nobody_in_who_is_not_on_this_machine(forwarded_for, status):
    app = create_app(Settings(_env_file=None, model_id="fake", trusted_proxies="127.0.0.1"), executor=FakeExecutor())
    with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 50000)) as client:
        assert client.post("/generate", json=WISH, headers={"X-Forwarded-For": forwarded_for}).status_code == status


def test_a_machine_of_a_trusted_network_is_not_this_one_because_it_says_so():
    """
    The proxy appends who asks; what that one has written before it is as true as anything that a client writes.
    """
    app = create_app(Settings(_env_file=None, model_id="fake", trusted_proxies=TRUSTED), executor=FakeExecutor())
    with TestClient(app, base_url="http://127.0.0.1:8000", client=("10.0.0.2", 50000)) as client:
        answer = client.post("/generate", json=WISH, headers={"X-Forwarded-For": "127.0.0.1, 10.0.0.5"})
        assert answer.status_code == 401


def test_without_trusted_proxies_nobody_is_believed():
    app = create_app(Settings(_env_file=None, model_id="fake"), executor=FakeExecutor())
    with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 50000)) as client:
        assert client.post("/generate", json=WISH, headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 401


@pytest.mark.parametrize("value", ["localhost", "10.0.0.1/8", "10.0.0.0/33", "127.0.0.1;10.0.0.1", "caddy", "*"])
def test_a_name_or_a_network_that_is_none_ends_the_start(monkeypatch, tmp_path, value):
    monkeypatch.setenv("TRUSTED_PROXIES", value)
    with pytest.raises(
        StartError, match=r"^TRUSTED_PROXIES must be addresses or networks, like 127\.0\.0\.1,10\.0\.0\.2"
    ):
        load_settings(tmp_path / ".env")


@pytest.mark.parametrize("value", ["0.0.0.0/0", "::/0", "127.0.0.1,0.0.0.0/0"])
def test_everybody_cannot_be_trusted(value):
    with pytest.raises(ValidationError, match="must not include every address"):
        Settings(_env_file=None, trusted_proxies=value)


def test_addresses_and_networks_are_read_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TRUSTED_PROXIES", " 127.0.0.1,10.0.0.0/8 ::1 ")
    networks = load_settings(tmp_path / ".env").trusted_proxies
    assert [str(network) for network in networks] == ["127.0.0.1/32", "10.0.0.0/8", "::1/128"]
