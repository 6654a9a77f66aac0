"""A client that dawdles, says too much or nothing at all loses its connection; one that is merely slow does not."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import re
import socket
import time
from collections.abc import Iterator

import httpx2
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from server.access.body_limit import BodyLimit
from server.access.client_timeouts import ClientTimeouts
from server.access.connections import (
    MAX_AHEAD,
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_TARGET_BYTES,
    GuardedProtocol,
    guarded_config,
)
from server.access.operator_socket import OperatorSocket, socket_path
from server.config import REPOSITORY, Settings
from server.draining_server import DrainingServer, bound_socket
from server.main import create_app
from server.worker.fake_executor import FakeExecutor
from tests.server.access.guarded import served

GOOD = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
POST = b"POST /generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
HASTY = ClientTimeouts(head_s=0.3, idle_s=0.3, linger_s=0.3, unread_s=0.3)


@pytest.fixture(scope="module")
def hasty(module_serve):
    return module_serve(guards={"timeouts": HASTY})


@contextlib.contextmanager
def connected(server, **options) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5, **options) as connection:
        yield connection


def said_until_closed(connection: socket.socket) -> bytes:
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65536):
            said += data
    return said


def one_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """An answer with a Content-Length, read off a connection that stays open."""
    said = b""
    while b"\r\n\r\n" not in said:
        said += some(connection)
    head, _, body = said.partition(b"\r\n\r\n")
    status_line, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
    while len(body) < int(headers["content-length"]):
        body += some(connection)
    return int(status_line.split()[1]), headers, body


def some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    assert data, "closed before the end of the answer"
    return data


def refusal(said: bytes, status: int, code: str) -> dict:
    """The problem document that a connection ended with."""
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), said[:200]
    headers = {line.split(b": ")[0].lower(): line.split(b": ")[1] for line in head.split(b"\r\n")[1:]}
    problem = json.loads(body)
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"connection"] == b"close"
    assert headers[b"x-content-type-options"] == b"nosniff"
    assert headers[b"x-request-id"].decode() == problem["request_id"]
    assert int(headers[b"content-length"]) == len(body)
    assert (problem["status"], problem["code"]) == (status, code)
    return problem


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


LARGE = 2**21


@pytest.fixture(scope="module")
def port_of_large_answers():
    with served(Response(b"x" * LARGE), HASTY) as port:
        yield port


@contextlib.contextmanager
def asking_for_a_large_answer(port: int) -> Iterator[socket.socket]:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)  # else loopback sends all or nothing
        connection.settimeout(10)
        connection.connect(("127.0.0.1", port))
        connection.sendall(GOOD)
        yield connection


def test_a_client_that_does_not_read_its_answer_is_cut_off(port_of_large_answers):
    with asking_for_a_large_answer(port_of_large_answers) as connection:
        time.sleep(5 * HASTY.unread_s)
        assert len(said_until_closed(connection)) < LARGE


def test_a_client_that_reads_slowly_gets_all_of_its_answer(port_of_large_answers):
    with asking_for_a_large_answer(port_of_large_answers) as connection:
        said, began = b"", time.monotonic()
        while len(said) < LARGE:
            said += some(connection)
            if time.monotonic() - began < 5 * HASTY.unread_s:
                time.sleep(0.05)


@contextlib.contextmanager
def sending_a_body(timeouts: ClientTimeouts) -> Iterator[socket.socket]:
    """To an app that answers when it has read it all, after the head."""
    app = answering_all_that_goes_wrong(BodyLimit(read_all, timeouts))
    with served(app, timeouts) as port, socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(POST)
        yield connection


@pytest.mark.parametrize(
    "rest", [b"Content-Length: 100\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"]
)
def test_a_body_that_stops_halfway_is_told_so(rest):
    with sending_a_body(ClientTimeouts(body_s=0.3)) as connection:
        connection.sendall(rest)
        assert said_until_closed(connection).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(("rate", "status"), [(500.0, 408), (20.0, 200)])
def test_a_body_that_trickles_in_is_cut_off_and_one_that_is_merely_slow_is_not(rate, status):
    """
    The same bytes in the same time: what is too slow at 500 bytes a second is fast enough at 20.
    """
    with sending_a_body(ClientTimeouts(body_s=0.3, body_bytes_per_s=rate)) as connection:
        connection.sendall(b"Content-Length: 20\r\n\r\n")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(20):
                connection.sendall(b"x")
                time.sleep(0.03)
        assert connection.recv(100).startswith(b"HTTP/1.1 %d " % status)


async def read_all(scope, receive, send):
    await Response(await Request(scope, receive).body())(scope, receive, send)


def answering_all_that_goes_wrong(app):
    async def answering(scope, receive, send):
        try:
            await app(scope, receive, send)
        except HTTPException as error:
            await Response(status_code=error.status_code, headers=error.headers)(scope, receive, send)

    return answering


def test_beyond_the_connection_limit_a_request_is_refused_with_503_and_its_connection_closed(serve):
    server = serve(FakeExecutor(step_s=0.1), guards={"max_connections": 3})
    wish = json.dumps({"prompt": "a cat", "num_inference_steps": 10}).encode()
    request = POST + b"Content-Length: %d\r\n\r\n" % len(wish) + wish
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(connected(server)) for _ in range(3)]
        for connection in busy:
            connection.sendall(request)
        while len(server.executor.started) < 1:
            time.sleep(0.01)
        with connected(server) as surplus:
            surplus.sendall(GOOD)
            said = said_until_closed(surplus)
        problem = refusal(said, 503, "too_many_connections")
        assert f"retry-after: {problem['retry_after']}".encode() in said
        assert [one_answer(connection)[0] for connection in busy] == [200] * 3
    assert_is_served(server)


def assert_is_served(server) -> None:
    """Soon: the server notices a moment later that its clients have gone."""
    deadline = time.monotonic() + 5
    while httpx2.get(f"{server.url}/livez").status_code != 200:
        assert time.monotonic() < deadline


def test_very_many_connections_beyond_the_limit_are_closed_and_make_way_again(serve):
    server = serve(guards={"max_connections": 3, "timeouts": ClientTimeouts(head_s=0.5, linger_s=0.2)})
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connected(server)) for _ in range(200)]
        began = time.monotonic()
        assert {said_until_closed(connection) for connection in silent} == {b""}
        assert time.monotonic() - began < 4
        assert_is_served(server)


def test_an_operator_is_served_however_many_connections_there_are(tmp_path):
    async def main():
        operator = OperatorSocket(tmp_path / "server")
        app = create_app(Settings(_env_file=None, model_id="fake", data_dir=tmp_path), executor=FakeExecutor())
        app.state.operator_socket_name = operator.name
        listener = bound_socket("127.0.0.1", 0)
        server = DrainingServer(guarded_config(app, max_connections=1), operator)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(socket.create_connection(listener.getsockname()))
            transport = httpx2.AsyncHTTPTransport(uds=str(socket_path(tmp_path / "server")))
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                answer = await client.get("/v1/keys")
            server.should_exit = True
            await serving
        return answer.status_code

    assert asyncio.run(main()) == 200


def test_the_hooks_of_uvicorn_that_are_overridden_are_there_and_its_minor_version_is_pinned():
    """
    Uvicorn does not document them: a release without one would leave a guard that guards nothing.
    """
    ours = {name for name, member in vars(GuardedProtocol).items() if callable(member)}
    inherited = ours - {"_error_in_head", "_expect_within", "_expect_nothing", "_is_late", "_refuse"}
    assert {name for name in inherited if not hasattr(HttpToolsProtocol, name)} == set()
    source = inspect.getsource(HttpToolsProtocol) + inspect.getsource(RequestResponseCycle)
    for used in (
        "self.pipeline.appendleft",
        "self._start_asgi_task(",
        "self.on_response_complete",
        "self.message_event",
    ):
        assert used in source, used
    pinned = [
        line.strip(' ",')
        for name in ("pyproject.toml", "requirements.txt")
        for line in (REPOSITORY / name).read_text().splitlines()
        if re.fullmatch(r'\s*"?uvicorn\b.*', line)
    ]
    assert pinned == ["uvicorn>=0.54,<0.55"] * 3


def test_who_closes_its_half_has_hung_up(serve):
    """
    From here a closed half and a closed connection look the same, and what nobody waits for is not drawn.
    """
    server = serve(FakeExecutor(step_s=0.05))
    wish = json.dumps({"prompt": "a cat", "num_inference_steps": 100}).encode()
    with connected(server) as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(wish) + wish)
        connection.shutdown(socket.SHUT_WR)
        assert said_until_closed(connection) == b""
    assert httpx2.get(f"{server.url}/livez").status_code == 200
