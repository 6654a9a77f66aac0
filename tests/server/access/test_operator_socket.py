"""The operator's socket: nobody else can open it, it replaces a stale one, and it alone makes an operator."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from server.access.authentication import Authentication
from server.access.key_ring import KeyRing
from server.access.network import is_operator
from server.access.operator_socket import OperatorSocket, connect_to, socket_path
from server.cli.errors import CommandError
from server.cli.server_client import running_server
from server.config import StartError
from server.draining_server import bound_socket
from server.errors import NotAuthorisedError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "server"


@contextlib.contextmanager
def listening(folder: Path) -> Iterator[OperatorSocket]:
    operator_socket = OperatorSocket(folder)
    with operator_socket.listener as listener:
        listener.listen()
        operator_socket.publish()
        yield operator_socket
    operator_socket.withdraw()


def test_only_this_user_can_open_it(folder):
    with listening(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(socket_path(folder).stat().st_mode) == 0o600
        connect_to(socket_path(folder), 1.0).close()


def test_what_killed_servers_left_is_replaced_and_removed(folder):
    stale = OperatorSocket(folder)
    stale.publish()
    stale.listener.close()
    OperatorSocket(folder).listener.close()  # killed before it was published
    with listening(folder):
        connect_to(socket_path(folder), 1.0).close()
        assert [path.name for path in folder.iterdir()] == ["admin.sock"]


def test_a_second_server_that_fails_to_start_disturbs_nothing(folder):
    with listening(folder):
        second = OperatorSocket(folder)
        second.listener.close()
        second.withdraw()
        connect_to(socket_path(folder), 1.0).close()
        assert [path.name for path in folder.iterdir()] == ["admin.sock"]


def test_nothing_is_left_at_the_end(folder):
    with listening(folder):
        pass
    assert list(folder.iterdir()) == []


def test_a_folder_whose_path_is_longer_than_an_address_will_do(tmp_path):
    folder = tmp_path / ("x" * 120) / "server"
    with listening(folder):
        connect_to(socket_path(folder), 1.0).close()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"^cannot make a socket in .*/file/server: Not a directory; set DATA_DIR$"):
        OperatorSocket(tmp_path / "file" / "server")


class Served:
    """A small app behind `Authentication`, on TCP, on the operator's socket and on one more unix socket."""

    def __init__(self, folder: Path) -> None:
        async def who(request: Request) -> JSONResponse:
            return JSONResponse({"operator": is_operator(request.scope)})

        def refused(_request: Request, _error: Exception) -> JSONResponse:
            return JSONResponse({"detail": "unauthorized"}, 401)

        class Refusals:
            def __init__(self, app):
                self.app = app

            async def __call__(self, scope, receive, send):
                try:
                    await self.app(scope, receive, send)
                except NotAuthorisedError as error:
                    await refused(None, error)(scope, receive, send)

        authentication = Middleware(Authentication, keys=KeyRing())
        app = Starlette(routes=[Route("/who", who)], middleware=[Middleware(Refusals), authentication])
        self.operator_socket = OperatorSocket(folder)
        app.state.operator_socket_name = self.operator_socket.name
        self.tcp = bound_socket("127.0.0.1", 0)
        self.port = self.tcp.getsockname()[1]
        self.other = socket.socket(socket.AF_UNIX)
        self.other.bind(str(folder / "other.sock"))
        self.server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", proxy_headers=False))
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.tcp, self.operator_socket.listener, self.other]}
        )

    def __enter__(self) -> Served:
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            self.thread.join(0.01)
        self.operator_socket.publish()
        return self

    def __exit__(self, *failure) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.operator_socket.withdraw()

    def ask(self, connection: socket.socket, **headers: str) -> tuple[int, dict]:
        client = http.client.HTTPConnection("anything")
        client.sock = connection
        client.request("GET", "/who", headers=headers)
        answer = client.getresponse()
        told = json.loads(answer.read())
        client.close()
        return answer.status, told


def test_only_who_comes_over_the_operators_socket_is_the_operator(folder):
    with Served(folder) as served:
        over_tcp = served.ask(socket.create_connection(("127.0.0.1", served.port)), Host="127.0.0.1")
        assert over_tcp == (200, {"operator": False})
        # Neither Host nor forwarding headers matter: no browser and no proxy can open the socket.
        over_socket = served.ask(connect_to(socket_path(folder), 1.0), Host="x.example", Via="x")
        assert over_socket == (200, {"operator": True})
        # Another unix socket, such as one for a reverse proxy, has peers without addresses too.
        assert served.ask(connect_to(folder / "other.sock", 1.0), Host="127.0.0.1")[0] == 401


def test_the_command_line_reaches_a_server_through_a_long_path_too(tmp_path):
    folder = tmp_path / ("y" * 120) / "server"
    folder.mkdir(parents=True)
    with listening(folder):
        assert_is_found(folder)


def assert_is_found(folder: Path) -> None:
    with running_server(folder) as server:
        assert server is not None


@pytest.mark.parametrize("is_stale", [False, True], ids=["no socket", "a stale socket"])
def test_nobody_listens(folder, is_stale):
    if is_stale:
        operator_socket = OperatorSocket(folder)
        operator_socket.publish()
        operator_socket.listener.close()
    with running_server(folder) as server:
        assert server is None


def test_a_server_that_does_not_answer_is_one_line(folder):
    with (
        listening(folder),
        running_server(folder, timeout_s=0.05) as server,
        pytest.raises(CommandError, match="does not respond") as caught,
    ):
        server.ask("GET", "/v1/keys")
    assert caught.value.exit_code == 3
