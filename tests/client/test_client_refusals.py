"""What the client does not take: answers that are none, redirects, keys and addresses that cannot be."""

from __future__ import annotations

import json
from dataclasses import replace

import httpx2
import pytest
from semantic_bit_client import (
    AsyncClient,
    BadAnswer,
    Client,
    Job,
    NoConnection,
    Retries,
)
from semantic_bit_client.calls import fail_unless_done

from tests.client.client_values import QUICK, SMALL
from tests.client.proxy import Fault, proxied

SECRET = "sb_live_12345678_abcdefghijklmnop"


# --- answers that are none --------------------------------------------------------------------------------------------


def answering(content, status=200, **headers):
    """A client whose server says always the same."""
    headers = {"content-type": "application/json"} | headers
    transport = httpx2.MockTransport(lambda request: httpx2.Response(status, headers=headers, content=content))
    return Client("http://127.0.0.1", retries=Retries(attempts=1), transport=transport)


QUEUE = (
    b'{"waiting": 0, "running": 0, "max_waiting": 1, "images_in_flight": 0, "max_images_in_flight": null, '
    b'"accepting": true, "eta_s": %s}'
)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"waiting": NaN}', b'{"waiting": "1"}',
        b'{"waiting": true}', b'{"waiting": 1.5}', b'{"waiting": null}', b"<html>", b'{"waiting": 1}',
        b'{"waiting": ' + b"9" * 5000 + b"}", QUEUE % b"1e999", QUEUE % (b"9" * 400), QUEUE % b"true",
    ],
    ids=lambda content: content[:12],
)  # fmt: skip
def test_what_is_no_answer_is_no_answer(content):
    with answering(QUEUE % b"1") as client:
        assert client.queue().eta_s == 1
    with answering(content) as client, pytest.raises(BadAnswer):
        client.queue()


def test_a_job_that_is_done_without_its_pictures_is_no_answer(client):
    job = client.submit("a cat", **SMALL)
    state = job.wait()
    with pytest.raises(BadAnswer, match="0 pictures, not 1"):
        fail_unless_done(replace(state, images=()))


def test_members_that_the_client_does_not_know_do_no_harm(client):
    with httpx2.Client() as http:
        base_url = client._wire.settings.base_url
        told = http.get(f"{base_url}/v1/queue").json()
    with answering(json.dumps(told | {"news": [1, {}]}).encode()) as other:
        assert other.queue() == client.queue()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_with_the_key(server, status):
    asked = []

    def answer(request):
        asked.append(request.url.host)
        return httpx2.Response(status, headers={"location": "http://elsewhere.example/"})

    with Client(server.url) as client:
        job = client.submit("a cat", **SMALL)
    with Client("http://127.0.0.1", SECRET, transport=httpx2.MockTransport(answer), retries=QUICK) as client:
        for ask in (lambda: client.submit("a cat"), client.queue, lambda: list(Job(client._wire, job.state).events())):
            with pytest.raises(BadAnswer):
                ask()
    assert set(asked) == {"127.0.0.1"}


def test_an_answer_without_end_is_not_kept(monkeypatch):
    monkeypatch.setattr("semantic_bit_client.transport._LARGEST_ANSWER", 1000)
    with answering(b"x" * 2000) as client, pytest.raises(NoConnection, match="did not end"):
        client.queue()


# --- the key ----------------------------------------------------------------------------------------------------------


def test_the_key_is_sent_as_a_bearer_and_shown_nowhere(server):
    with proxied(server.url, [None, Fault("503")]) as proxy, Client(proxy.url, SECRET, retries=QUICK) as client:
        client.queue()
        client.queue()
        assert {seen.headers["authorization"] for seen in proxy.seen} == {f"Bearer {SECRET}"}
        assert SECRET not in repr(client._wire.settings)
    with Client("http://127.0.0.1:9", SECRET, retries=Retries(attempts=1)) as client:
        with pytest.raises(NoConnection) as raised:
            client.queue()
        assert SECRET not in f"{raised.value!r} {raised.value.__cause__!r} {raised.value.__dict__}"


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(key):
    with pytest.raises(ValueError, match="printable ASCII") as raised:
        Client("http://127.0.0.1", key)
    assert not key or key not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://127.0.0.1",
        "http://",
        "http://a:b",
        "http://a\n",
        "http://me:secret@a",
        "http://a?b=c",
    ],
)
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="base_url") as raised:
        AsyncClient(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("end", ["", "/"])
def test_the_server_may_live_below_a_path(server, end):
    asked = []

    class Below(httpx2.HTTPTransport):
        def handle_request(self, request):
            asked.append(request.url.path)
            request.url = request.url.copy_with(raw_path=request.url.raw_path.removeprefix(b"/draw"))
            return super().handle_request(request)

    with Client(f"{server.url}/draw{end}", transport=Below()) as client:
        assert client.generate("a cat", seed=7, **SMALL).seed == 7
    assert len(asked) == 4
    assert all(path.startswith("/draw/v1/jobs") for path in asked)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_the_proxies_of_the_environment_do_not_get_the_key(server, monkeypatch, name):
    with proxied(server.url) as proxy:
        for other in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(other, raising=False)
        monkeypatch.setenv(name, proxy.url)
        with Client(server.url, SECRET) as client:
            assert client.health().status == "healthy"
    assert not proxy.seen
