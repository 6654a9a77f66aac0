"""Real servers over loopback, for every test that speaks HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import structlog
from fastapi import FastAPI

from server.access.connections import guarded_config
from server.config import Settings
from server.draining_server import DrainingServer, bound_socket
from server.main import create_app
from server.worker.fake_executor import FakeExecutor


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl+C mean something to the programs that tests start.

    A shell that runs us in the background has told us to ignore it, and whoever we start would inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Commands that a test runs in this process set up logging for a process of their own; later tests need ours."""
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    yield
    if root.level != level:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**config)


@dataclass(kw_only=True)
class RunningServer:
    """The service on a free port, in a thread of its own, with a fake engine."""

    url: str
    port: int
    executor: FakeExecutor
    loop: asyncio.AbstractEventLoop
    app: FastAPI = field(repr=False)
    stop: Callable[[], None] = field(repr=False)

    def call(self, function, *arguments):
        """Call something that belongs to the server's event loop, there."""

        async def called():
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(called(), self.loop).result(5)


@contextlib.contextmanager
def _running(executor, guards, settings) -> Iterator[RunningServer]:
    executor = executor or FakeExecutor()
    folders = contextlib.ExitStack()
    data_dir = folders.enter_context(tempfile.TemporaryDirectory(prefix="semantic-bit-"))
    settings = {"model_id": "fake", "data_dir": data_dir, "drain_timeout": 0, **settings}
    app = create_app(Settings(_env_file=None, **settings), executor=executor, timeouts=guards.get("timeouts"))
    server = DrainingServer(guarded_config(app, timeout_graceful_shutdown=2, **guards))
    listener = bound_socket("127.0.0.1", 0)
    port = listener.getsockname()[1]
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=asyncio.run, args=(main(),), name=f"server on {port}")
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join(15)
        assert not thread.is_alive(), "the server did not stop"

    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            thread.join(0.005)
        yield RunningServer(
            url=f"http://127.0.0.1:{port}", port=port, executor=executor, loop=loops[0], app=app, stop=stop
        )
    finally:
        stop()
        folders.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., RunningServer]]:
    """Start a server: `serve(FakeExecutor(step_s=0.01), max_queued_requests=2)`.

    `guards` are for `guarded_config`, timeouts for the app too: `serve(guards={"timeouts": ClientTimeouts(head_s=1)})`.
    """
    with contextlib.ExitStack() as servers:
        yield lambda executor=None, guards=None, **settings: servers.enter_context(
            _running(executor, guards or {}, settings)
        )


@pytest.fixture(scope="module")
def module_serve() -> Iterator[Callable[..., RunningServer]]:
    """The same, for servers that all tests of a module share."""
    with contextlib.ExitStack() as servers:
        yield lambda executor=None, guards=None, **settings: servers.enter_context(
            _running(executor, guards or {}, settings)
        )


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """One server with the default settings, for tests that leave it as it was."""
    with _running(None, {}, {}) as running:
        yield running
