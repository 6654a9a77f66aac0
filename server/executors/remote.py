"""An engine on another machine, reached over HTTP: each job is one request whose answer is the stream of its events.

Who started that engine, and who starts another, is no business of the gateway's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Collection, Mapping
from typing import Final, NamedTuple, get_args

import httpx2
import msgspec
import structlog

from engine.errors import ModelLoadError
from server.errors import EngineLostError
from server.executors.base import (
    EngineBusyError,
    EngineVitals,
    ExecutorState,
    Job,
    JobEvent,
    RestartReason,
)
from server.executors.engine_protocol import ALONE, DRAW, FINISH, FRAMES, INFO, PROTOCOL, EngineStatus
from server.executors.message_executor import RESTART_ESTIMATE_S, error_from
from server.executors.messages import EngineInfo, FinishEarly, JobDone, JobFailed, ModelsChanged, WorkDone, frame
from server.executors.remote_stream import DrawStream, Event
from server.executors.work_times import WorkTimes

__all__ = ["EngineAddress", "RemoteEngine"]

_log = structlog.get_logger("server.engine")

_POLL_S: Final = 1.0
_CONNECT_S: Final = 5.0
_WRITE_S: Final = 30.0
_BUSY_RETRY_S: Final = 0.2
_UNREACHABLE_RETRY_S: Final = 1.0
_MAX_STATUS_BYTES: Final = 2**16
_RECENT_WORK: Final = 64


class EngineAddress(NamedTuple):
    """Where an engine is."""

    url: str
    """`http://10.0.0.7:9000`"""
    host: str | None = None
    """The name that its certificate is for, and that it is asked by, where `url` has an address instead."""


class RemoteEngine:
    """An `Executor` for an engine that somebody else runs. Belongs to the event loop's thread."""

    def __init__(
        self,
        address: EngineAddress,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        allowed_silence_s: float = 10.0,
    ) -> None:
        """Say where it is; `start` begins to ask how it is.

        Args:
            address: its address.
            token: what it wants to be shown (`ENGINE_TOKEN`).
            tls: whom to believe; None: the system's certificate authorities.
            allowed_silence_s: after so long without a byte, an attempt or the engine counts as lost.
        """
        self.work_times = WorkTimes()
        self.allowed_silence_s = allowed_silence_s
        self._address = address
        self._token = token
        self._tls = tls
        self._client: httpx2.AsyncClient | None = None
        self._streams: dict[str, DrawStream] = {}
        """Of the attempts that are being drawn."""
        self._polling: asyncio.Task[None] | None = None
        self._state: ExecutorState = "loading"
        self._status: EngineStatus | None = None
        self._trouble: str | None = None
        self._heard_at = time.monotonic()
        self._has_loaded = asyncio.Event()
        self._recent_work: deque[WorkDone] = deque(maxlen=_RECENT_WORK)

    # --- how it is ----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> ExecutorState:
        """See `Executor.state`. One that cannot be reached, or drains, is `loading`: it may come back."""
        return self._state

    @property
    def failure(self) -> str | None:
        """See `Executor.failure`."""
        return self._status.failure if self._status is not None and self._state == "failed" else None

    @property
    def load_trouble(self) -> str | None:
        """See `Executor.load_trouble`; or why it cannot be reached."""
        return self._trouble

    @property
    def info(self) -> EngineInfo | None:
        """See `Executor.info`."""
        return None if self._status is None else self._status.info

    @property
    def models(self) -> ModelsChanged | None:
        """See `Executor.models`."""
        return None if self._status is None else self._status.models

    @property
    def silence_s(self) -> float:
        """See `Executor.silence_s`."""
        return time.monotonic() - self._heard_at if self._state == "ready" else 0.0

    @property
    def load_seconds(self) -> dict[str, float]:
        """See `Executor.load_seconds`. Not known here."""
        return {}

    @property
    def load_phase(self) -> str | None:
        """See `Executor.load_phase`. Not known here."""
        return None

    @property
    def restarts(self) -> int:
        """See `Executor.restarts`. Not known here."""
        return 0

    @property
    def vitals(self) -> EngineVitals:
        """See `Executor.vitals`. Its process is not ours."""
        restarts: Counter[RestartReason] = Counter(dict.fromkeys(get_args(RestartReason), 0))
        return EngineVitals(restarts=restarts)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to ask the engine how it is."""
        headers = {} if self._token is None else {"Authorization": f"Bearer {self._token}"}
        if self._address.host is not None:
            headers["Host"] = self._address.host
        self._client = httpx2.AsyncClient(
            base_url=self._address.url,
            headers=headers,
            verify=True if self._tls is None else self._tls,
            timeout=httpx2.Timeout(self.allowed_silence_s, connect=_CONNECT_S, write=_WRITE_S, pool=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=8),
            trust_env=False,
            follow_redirects=False,
        )
        self._polling = asyncio.create_task(self._keep_asking(self._client), name=f"ask {self._address.url}")

    async def wait_until_ready(self) -> None:
        """See `Executor.wait_until_ready`."""
        await self._has_loaded.wait()
        if self.failure is not None:
            raise ModelLoadError(self.failure)

    async def stop(self) -> None:
        """Ask no more. The engine goes on; what it draws for this gateway is cancelled with the connections."""
        self._state = "stopped"
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def _keep_asking(self, client: httpx2.AsyncClient) -> None:
        while True:
            try:
                async with asyncio.timeout(self.allowed_silence_s):
                    self._take_status(await self._ask(client))
            except (httpx2.HTTPError, TimeoutError, EngineLostError) as error:
                self._unreachable(str(error) or type(error).__name__)
            await asyncio.sleep(_POLL_S)

    async def _ask(self, client: httpx2.AsyncClient) -> EngineStatus:
        """How it says that it is.

        Raises:
            EngineLostError: that cannot be understood.
        """
        body = bytearray()
        async with client.stream("GET", INFO, extensions=self._extensions) as response:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _MAX_STATUS_BYTES:
                    raise EngineLostError("its answer is too large")
        if response.status_code == 401:
            raise EngineLostError("it refuses ENGINE_TOKEN")
        if response.status_code != 200:
            raise EngineLostError(f"it answers with {response.status_code}")
        try:
            status = msgspec.json.decode(bytes(body), type=EngineStatus)
        except msgspec.DecodeError as error:
            raise EngineLostError(f"its answer cannot be read: {error}") from None
        if status.protocol != PROTOCOL:
            raise EngineLostError(f"it speaks version {status.protocol} of the protocol, not {PROTOCOL}")
        if status.info is not None and status.info.max_images_in_flight < 1:
            raise EngineLostError("it has no places")
        return status

    @property
    def _extensions(self) -> Mapping[str, str]:
        return {} if self._address.host is None else {"sni_hostname": self._address.host.rpartition(":")[0]}

    def _take_status(self, status: EngineStatus) -> None:
        self._heard_at = time.monotonic()
        self._status = status
        state: ExecutorState = "loading" if status.is_draining or status.state == "stopped" else status.state
        self._trouble = "it is shutting down" if status.is_draining else status.load_trouble
        if state == "ready" and status.info is None:
            state = "loading"
        self._become(state)

    def _unreachable(self, reason: str) -> None:
        self._trouble = f"the engine at {self._address.url} cannot be reached: {reason}"
        self._become("loading")

    def _become(self, state: ExecutorState) -> None:
        if state != self._state:
            log = _log.info if state == "ready" else _log.warning
            log("a remote engine changed its state", engine=self._address.url, state=state, reason=self._trouble)
        self._state = state
        if state in {"ready", "failed"}:
            self._has_loaded.set()
        else:
            self._has_loaded.clear()

    # --- drawing ------------------------------------------------------------------------------------------------------

    async def run(self, job: Job) -> AsyncGenerator[JobEvent, None]:
        """See `Executor.run`."""
        if self._client is None or self._state != "ready":
            raise EngineBusyError("the engine is not ready", retry_after_s=_UNREACHABLE_RETRY_S)
        body = frame(job.submit)
        stream = self._streams[job.attempt_id] = DrawStream(job, self.allowed_silence_s)
        url = f"{DRAW}?{ALONE}" if job.alone else DRAW
        headers = {"Content-Type": FRAMES, **self._routing(job)}
        is_answered = False
        try:
            async with contextlib.AsyncExitStack() as exits:
                response = await exits.enter_async_context(
                    self._client.stream("POST", url, content=body, headers=headers, extensions=self._extensions)
                )
                is_answered = True
                self._check_answer(response)
                async for chunk in response.aiter_raw():
                    for event in stream.feed(chunk):
                        yield self._told(event)
                        if isinstance(event, JobDone):
                            return
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise EngineBusyError(f"no connection: {error}", retry_after_s=_UNREACHABLE_RETRY_S) from None
        except httpx2.HTTPError as error:
            raise self._broken_off(str(error) or type(error).__name__, is_answered=is_answered) from None
        finally:
            del self._streams[job.attempt_id]
        raise self._broken_off("its answer ended before the job", is_answered=is_answered)

    def _routing(self, _job: Job) -> Mapping[str, str]:
        """Headers for a balancer on the way."""
        return {}

    def _broken_off(self, reason: str, *, is_answered: bool) -> EngineLostError | EngineBusyError:
        """What the end of the connection means. An engine answers before it begins."""
        where = f"the engine at {self._address.url}"
        if not is_answered:
            return EngineBusyError(
                f"{where} did not answer: {reason}", retry_after_s=_UNREACHABLE_RETRY_S, is_fault=True
            )
        if self._status is not None and self._status.is_draining:
            return EngineBusyError(f"{where} was shut down", retry_after_s=_UNREACHABLE_RETRY_S)
        return EngineLostError(f"{where} broke off: {reason}", retry_after_s=RESTART_ESTIMATE_S)

    async def finish_early(self, job: Job, image_indices: Collection[int] | None) -> bool:
        """See `Executor.finish_early`. One that is older than this, or does not answer, goes on."""
        stream = self._streams.get(job.attempt_id)
        if stream is None or self._client is None or self._status is None or not self._status.finishes_early:
            return False
        message = FinishEarly(job.attempt_id, None if image_indices is None else tuple(image_indices))
        stream.may_be_partial = True  # its end may be on its way before the answer is
        try:
            response = await self._client.post(
                FINISH, content=frame(message), headers={"Content-Type": FRAMES}, extensions=self._extensions
            )
        except httpx2.HTTPError as error:
            _log.warning(
                "a remote engine was not asked for pictures early", engine=self._address.url, reason=str(error)
            )
            return False
        return response.status_code == 200

    def _check_answer(self, response: httpx2.Response) -> None:
        if response.status_code == 503:
            raise EngineBusyError("the engine is full", retry_after_s=_BUSY_RETRY_S)
        if response.status_code != 200 or response.headers.get("content-type") != FRAMES:
            raise EngineLostError(f"the engine at {self._address.url} answered with {response.status_code}")

    def _told(self, event: Event) -> JobEvent:
        """Take what an event says of the engine itself.

        Raises:
            EngineError: the job has failed.
            EngineLostError: the engine process was lost.
        """
        self._heard_at = time.monotonic()
        if isinstance(event, JobFailed):
            error = error_from(event)
            raise self._broken_off(str(error), is_answered=True) if isinstance(error, EngineLostError) else error
        # Every job that had a part in a work item is told of it, each with its own rows.
        if isinstance(event, WorkDone) and not any(_is_same(event, other) for other in self._recent_work):
            self._recent_work.append(event)
            self.work_times.observe(event)
        return event


def _is_same(item: WorkDone, other: WorkDone) -> bool:
    return (item.seconds, item.kind, item.rows) == (other.seconds, other.kind, other.rows)
