"""HTTP client of the command line: uses the running server or, if none runs, its store.

A server that runs is asked over the operator's unix socket. While none does, the app itself is asked, in this process
and over the same data, with an engine that never starts. So a command has one way, and its answer one form.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from server.access.operator_socket import address_of, connect_to, socket_path
from server.cli.errors import UNREACHABLE, CommandError
from server.config import Settings, StartError
from server.settings_file import load_settings

if TYPE_CHECKING:
    import httpx2

__all__ = ["ServerClient", "any_server", "command_settings", "refuse_locked", "running_server"]

_TIMEOUT_S: Final = 10.0
_DOWNLOAD_TIMEOUT_S: Final = 600.0
"""Copying ten million jobs from a slow disk."""
_HOST: Final = "operator"
"""The app's own name for a request that this process sends it; see `access/network.py`, `is_operator`."""


def command_settings() -> Settings:
    """The settings, for a command.

    Raises:
        CommandError: one is wrong.
    """
    try:
        return load_settings()
    except StartError as error:
        raise CommandError(str(error)) from None


@contextlib.contextmanager
def running_server(folder: Path, *, timeout_s: float = _TIMEOUT_S) -> Iterator[ServerClient | None]:
    """The server that runs with its data in `folder` (`DATA_DIR/server`); None if none does.

    Raises:
        CommandError: there may be one, but this user cannot reach it.
    """
    import httpx2  # noqa: PLC0415 -- a tenth of a second, which `serve` and `--help` need not wait for

    path = socket_path(folder)
    with contextlib.ExitStack() as stack:
        try:
            connect_to(path, timeout_s).close()
            address = stack.enter_context(address_of(path))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            client = None
        except PermissionError:
            raise CommandError(
                f"{folder} belongs to another user: run this as the user that the server runs as", UNREACHABLE
            ) from None
        except OSError as error:
            raise CommandError(f"the server at {path} cannot be reached: {error}", UNREACHABLE) from None
        else:
            runner = stack.enter_context(asyncio.Runner())
            transport = httpx2.AsyncHTTPTransport(uds=address)
            client = stack.enter_context(_client(runner, transport, f"the server at {path}", timeout_s))
        yield client


@contextlib.contextmanager
def any_server(settings: Settings, *, makes_folder: bool = False) -> Iterator[ServerClient]:
    """The server that runs; or, while none does, the app itself.

    Args:
        settings: whose `DATA_DIR` it is.
        makes_folder: whether a server may never have run there: the first API key comes before the first start.

    Raises:
        CommandError: the server does not answer; or none runs, and its data cannot be used.
    """
    folder = settings.server_folder
    with running_server(folder) as server:
        if server is not None:
            yield server
            return
    if not makes_folder and not folder.is_dir():
        raise CommandError(f"there is no server data in {folder}; is DATA_DIR correct?", UNREACHABLE)
    with _stopped_server(settings) as server:
        yield server


class ServerClient:
    """Sends one request after the other, as the operator."""

    def __init__(self, runner: asyncio.Runner, client: httpx2.AsyncClient, name: str) -> None:
        self._runner = runner
        self._client = client
        self._name = name

    def ask(self, method: str, path: str, *, params: Any = None, json: object = None) -> dict[str, Any]:  # noqa: ANN401 -- httpx2's own
        """The JSON of its answer.

        Raises:
            CommandError: it refuses, or does not answer.
        """
        answer = self.answer(method, path, params=params, json=json)
        document: dict[str, Any] = answer.json()
        if answer.is_error:
            raise CommandError(str(document.get("detail") or f"the server answered with status {answer.status_code}"))
        return document

    def answer(self, method: str, path: str, *, params: Any = None, json: object = None) -> httpx2.Response:  # noqa: ANN401 -- httpx2's own
        """Its answer, whatever status it has.

        Raises:
            CommandError: it does not answer.
        """
        with self._errors():
            return self._runner.run(self._client.request(method, path, params=params, json=json))

    def download(self, path: str, file: BinaryIO) -> None:
        """Write the body of its answer to a file, piece by piece.

        Raises:
            CommandError: it refuses, or does not answer.
        """

        async def stream() -> None:
            async with self._client.stream("GET", path, timeout=_DOWNLOAD_TIMEOUT_S) as answer:
                if answer.is_error:
                    await answer.aread()
                    raise CommandError(str(answer.json().get("detail")))
                async for chunk in answer.aiter_raw():
                    file.write(chunk)

        with self._errors():
            self._runner.run(stream())

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        import httpx2  # noqa: PLC0415 -- as above

        try:
            yield
        except httpx2.TimeoutException:
            raise CommandError(f"{self._name} does not respond", UNREACHABLE) from None
        except (httpx2.HTTPError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise CommandError(f"{self._name} cannot be reached: {reason}", UNREACHABLE) from None


@contextlib.contextmanager
def refuse_locked(folder: Path) -> Iterator[None]:
    """Say who has the job store open, and what else is wrong with it.

    Raises:
        CommandError: another process has it open, or it cannot be used.
    """
    from server.store.database import lock_holder  # noqa: PLC0415 -- as above
    from server.store.errors import StoreError, StoreLockedError  # noqa: PLC0415

    try:
        yield
    except StoreLockedError:
        raise CommandError(
            f"{lock_holder(folder)} has the job store open and does not listen at {socket_path(folder)}: it is "
            "starting or stopping, or was not started by `python -m server serve`",
            UNREACHABLE,
        ) from None
    except StoreError as error:
        raise CommandError(str(error)) from None


@contextlib.contextmanager
def _client(
    runner: asyncio.Runner, transport: httpx2.AsyncBaseTransport, name: str, timeout_s: float
) -> Iterator[ServerClient]:
    import httpx2  # noqa: PLC0415 -- as above

    client = httpx2.AsyncClient(transport=transport, base_url=f"http://{_HOST}", timeout=timeout_s)
    try:
        yield ServerClient(runner, client, name)
    finally:
        runner.run(client.aclose())


@contextlib.contextmanager
def _stopped_server(settings: Settings) -> Iterator[ServerClient]:
    # Half a second, which a command that finds a running server need not wait for.
    import httpx2  # noqa: PLC0415

    from engine.models.locate import locate  # noqa: PLC0415
    from server.executors.idle import IdleExecutor  # noqa: PLC0415
    from server.log_format import configure_logging  # noqa: PLC0415
    from server.main import create_app  # noqa: PLC0415

    configure_logging("critical", settings.log_format)  # what goes wrong is the command's answer
    # Only the server itself deletes, and whether its model is there does not matter here.
    forever = {"keep_jobs_days": 1e6, "keep_results_hours": 1e6, "keep_results_mib": 10**9}
    model_s_own = {"default_height": None, "default_width": None}
    app = create_app(settings.model_copy(update=forever | model_s_own), executor=IdleExecutor(), model=locate("fake"))
    app.state.operator_socket_name = _HOST
    with asyncio.Runner() as runner, refuse_locked(settings.server_folder):
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        try:
            with _client(runner, httpx2.ASGITransport(app), "the job store", _TIMEOUT_S) as client:
                yield client
        finally:
            runner.run(lifespan.__aexit__(None, None, None))
