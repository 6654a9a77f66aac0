"""Clients that are slow, send nonsense or hang up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import Response

from server.access.client_timeouts import ClientTimeouts
from server.access.connections import (
    MAX_AHEAD,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_TARGET_BYTES,
)
from server.worker.fake_executor import FakeExecutor
from tests.server.access.guarded import served
from tests.server.access.raw_connections import (
    GOOD,
    HASTY,
    POST,
    connected,
    one_answer,
    refusal,
    said_until_closed,
    some,
)


@pytest.fixture(scope="module")
def hasty(module_serve):
    return module_serve(guards={"timeouts": HASTY})


def test_a_head_that_trickles_in_is_cut_off_however_steadily_it_comes(hasty):
    with connected(hasty) as connection:
        began = time.monotonic()
        connection.settimeout(0)
        said = b""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for byte in GOOD * 10:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
                with contextlib.suppress(BlockingIOError):
                    said += connection.recv(65536)
                if said:
                    break
        assert time.monotonic() - began < 3
    refusal(said, 408, "request_too_slow")


def test_a_head_that_stops_halfway_is_told_so(hasty):
    with connected(hasty) as connection:
        connection.sendall(GOOD[:20])
        refusal(said_until_closed(connection), 408, "request_too_slow")


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n\r\n"])
def test_a_connection_on_which_nothing_is_asked_is_closed_without_a_word(hasty, sent):
    with connected(hasty) as connection:
        connection.sendall(sent)
        assert said_until_closed(connection) == b""


def test_an_empty_line_after_a_request_does_not_keep_a_connection_for_ever(hasty):
    with connected(hasty) as connection:
        connection.sendall(GOOD)
        assert one_answer(connection)[0] == 200
        connection.sendall(b"\r\n")
        assert said_until_closed(connection) == b""


def test_a_drawing_may_take_longer_than_any_of_these_limits(serve):
    server = serve(FakeExecutor(step_s=0.05), guards={"timeouts": ClientTimeouts(head_s=0.1, idle_s=0.1, linger_s=0.1)})
    wish = json.dumps({"prompt": "a cat", "num_inference_steps": 12}).encode()
    with connected(server) as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(wish) + wish)
        assert one_answer(connection)[0] == 200


def test_half_of_the_next_request_does_not_take_the_answer_to_the_first(serve):
    server = serve(FakeExecutor(step_s=0.05), guards={"timeouts": ClientTimeouts(head_s=0.1)})
    wish = json.dumps({"prompt": "a cat", "num_inference_steps": 12}).encode()
    with connected(server) as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(wish) + wish + GOOD[:10])
        assert one_answer(connection)[0] == 200
        refusal(said_until_closed(connection), 408, "request_too_slow")


def test_requests_that_are_sent_ahead_are_answered_in_order(hasty):
    with connected(hasty) as connection:
        connection.sendall(GOOD + GOOD.replace(b"/livez", b"/nowhere") + GOOD)
        said = said_until_closed(connection)
    statuses = [int(part[:3]) for part in said.split(b"HTTP/1.1 ")[1:]]
    assert statuses[0] == statuses[2] == 200
    assert statuses[1] in {401, 404}


def test_of_very_many_requests_that_are_sent_ahead_the_first_are_answered_and_nothing_piles_up(hasty):
    with connected(hasty) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(GOOD * 50_000)
        said = said_until_closed(connection)
    assert 1 <= said.count(b"HTTP/1.1 200 OK\r\n") <= 1 + MAX_AHEAD
    assert httpx2.get(f"{hasty.url}/livez").status_code == 200


def test_as_many_requests_as_may_be_sent_ahead_are_all_answered(hasty):
    with connected(hasty) as connection:
        connection.sendall(GOOD * (1 + MAX_AHEAD))
        assert said_until_closed(connection).count(b"HTTP/1.1 200 OK\r\n") == 1 + MAX_AHEAD


async def never_ending(_scope, receive, send):
    """Answers for as long as somebody listens."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    gone = asyncio.ensure_future(receive_until_the_end(receive))
    while not gone.done():
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.wait([gone], timeout=0.05)


async def receive_until_the_end(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


def test_an_app_is_told_of_a_hang_up_behind_requests_that_were_sent_ahead():
    num_running = 0

    async def app(scope, receive, send):
        nonlocal num_running
        num_running += 1
        await never_ending(scope, receive, send)
        num_running -= 1

    with served(app, HASTY) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(GOOD * 3)
            some(connection)
            assert num_running == 1
        deadline = time.monotonic() + 5
        while num_running:
            assert time.monotonic() < deadline
            time.sleep(0.01)


CHUNKED = b"Host: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"

KEY = "a key of forty characters or even a little more"


def test_a_trailer_is_no_header(serve):
    """
    A proxy looks at the headers, and passes trailers on: what they say it has not said.
    """
    server = serve(api_key=KEY)
    for said in (f"X-API-Key: {KEY}", f"Authorization: Bearer {KEY}"):
        with connected(server) as connection:
            connection.sendall(b"GET /v1/jobs HTTP/1.1\r\n" + CHUNKED + b"0\r\n" + said.encode() + b"\r\n\r\n")
            assert one_answer(connection)[0] == 401


def test_trailers_are_passed_over_and_the_connection_goes_on():
    seen = []

    async def app(scope, receive, send):
        await Request(scope, receive).body()
        seen.append([name for name, _ in scope["headers"]])
        await Response()(scope, receive, send)

    with served(app, HASTY) as port, socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        for _ in range(2):
            connection.sendall(b"POST / HTTP/1.1\r\n" + CHUNKED + b"2\r\nhi\r\n0\r\n")
            time.sleep(0.05)
            connection.sendall(b"X-Forwarded-For: 127.0.0.1\r\nDigest: x\r\n\r\n")
            assert one_answer(connection)[0] == 200
    assert seen == [[b"host", b"transfer-encoding"]] * 2


def test_trailers_that_go_on_after_the_answer_are_cut_off_without_another_answer(hasty):
    with connected(hasty) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\n" + CHUNKED)
        assert one_answer(connection)[0] == 200
        connection.sendall(b"0\r\n" + b"A: b\r\n" * 50_000)
        assert said_until_closed(connection) == b""


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"GET /" + b"x" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n\r\n", 414, "target_too_long"),
        (b"GET /?" + b"x" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n\r\n", 414, "target_too_long"),
        (b"GET /livez HTTP/1.1\r\nA: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n", 431, "headers_too_large"),
        (b"GET /livez HTTP/1.1\r\n" + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n", 431, "headers_too_large"),
        (b"GET /livez HTTP/1.1\r\nA: " + b"x" * 8 * 2**20, 431, "headers_too_large"),
        (b"GET /livez HTTP/1.1\r\n" + b"x" * 8 * 2**20, 431, "headers_too_large"),
        (b"GET /" + b"x" * 8 * 2**20, 431, "headers_too_large"),
        (b"GET /livez HTTP/1.1\r\n" + b"A: b\r\n" * 2**20, 431, "headers_too_large"),
        (b"nonsense\r\n\r\n", 400, "malformed_request"),
        (b"GET /livez HTTP/9.9\r\n\r\n", 400, "malformed_request"),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400, "malformed_request"),
        (b"GET /livez HTTP/1.1\r\nA\0: b\r\n\r\n", 400, "malformed_request"),
        (b"GET /livez HTTP/1.1\r\nA: b\0\r\n\r\n", 400, "malformed_request"),
        (b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n", 400, "malformed_request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed_request"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"x" * 8 * 2**20, 431, "headers_too_large"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;a=" + b"x" * 8 * 2**20, 431, "headers_too_large"),
        (POST + b"Content-Length: -5\r\n\r\n", 400, "malformed_request"),
        (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400, "malformed_request"),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "malformed_request"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", 400, "malformed_request"),
    ],
)  # fmt: skip
def test_what_is_no_request_gets_a_problem_document_and_the_end_of_its_connection(hasty, head, status, code):
    with connected(hasty) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(head)
        refusal(said_until_closed(connection), status, code)
    assert httpx2.get(f"{hasty.url}/livez").status_code == 200


def test_the_largest_honest_head_is_served(hasty):
    target = b"/static/docs.js?" + b"x" * (MAX_TARGET_BYTES - 16)
    fields = b"".join(b"A%d: %s\r\n" % (number, b"x" * 230) for number in range(MAX_FIELDS - 1))
    with connected(hasty) as connection:
        connection.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n" + fields + b"\r\n")
        assert one_answer(connection)[0] == 200


def test_an_upgrade_to_something_else_is_answered_as_plain_http_and_the_connection_goes_on(hasty):
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
    websocket = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\nSec-WebSocket-Version: 13\r\n"
    with connected(hasty) as connection:
        for extra in (upgrade, websocket, b""):
            connection.sendall(GOOD[:-2] + extra + b"\r\n")
            assert one_answer(connection)[0] == 200


def test_a_body_that_goes_on_after_its_refusal_is_read_for_a_moment_and_then_cut_off(hasty):
    """
    For a moment: if it were closed at once, the system would take the answer back before the client has read it.
    """
    with connected(hasty) as connection:
        connection.sendall(POST + b"Content-Length: 100000000\r\n\r\n" + b"x" * 1000)
        status, _, body = one_answer(connection)
        assert (status, json.loads(body)["code"]) == (413, "upload_too_large")
        connection.sendall(b"x" * 100_000)
        began = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while time.monotonic() - began < 3:
                connection.sendall(b"x" * 100)
                time.sleep(0.02)
