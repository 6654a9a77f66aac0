"""How many connections there may be, and large bodies either way."""

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
    GuardedProtocol,
    guarded_config,
)
from server.access.operator_socket import OperatorSocket, socket_path
from server.config import REPOSITORY, Settings
from server.draining_server import DrainingServer, bound_socket
from server.main import create_app
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
