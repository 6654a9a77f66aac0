"""One host's engines as an HTTP service: `POST /engine/v1/draw` draws a job and streams its events.

Keeps no queue and stores nothing: what it has no place for is refused at once, and whoever asked must ask again. It
reads no path and no address from a request. The interface is described in `executors/engine_protocol.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec
import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from engine.errors import EngineError
from server.errors import EngineLostError
from server.executors import engine_protocol
from server.executors.base import Job, JobEvent
from server.executors.engine_protocol import ALONE, DRAW, FINISH, FRAMES, HEARTBEAT_S, EngineStatus
from server.executors.messages import (
    HEADER,
    FinishEarly,
    JobDone,
    JobFailed,
    Pong,
    Submit,
    ToEngine,
    WorkDone,
    decode_to_engine,
    frame,
)
from server.executors.pool import EnginePool
from server.executors.seat import Seat
from server.store.input_files import is_whole_png

__all__ = ["EngineService"]

_log = structlog.get_logger("server.engine")

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MAX_BODY_BYTES: Final = 64 * 2**20
_ATTEMPT_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}\.\d{1,9}")
_JSON: Final = "application/json"
_OPEN: Final = frozenset({"/livez", "/readyz"})


class _RefusedError(Exception):
    """The request is answered with an error."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class EngineService:
    """An ASGI application. Belongs to the event loop's thread."""

    def __init__(self, pool: EnginePool, token: str | None) -> None:
        """Make it; its lifespan starts the engines.

        Args:
            pool: the engines.
            token: what a gateway must show (`ENGINE_TOKEN`); None: nothing.
        """
        self.pool = pool
        self.is_draining = False
        """Whether it takes no more jobs."""
        self._token = token
        self._numbers = itertools.count()
        self._idle = asyncio.Event()
        self._num_drawing = 0
        self._drawing: dict[str, tuple[Seat, Job]] = {}
        """By the names that gateways know attempts by; of two with one name, the later one."""
        self._ends: Counter[str] = Counter(dict.fromkeys(("done", "failed", "lost", "cancelled", "refused"), 0))

    async def drain(self, timeout_s: float) -> None:
        """Take no more jobs, and wait for those that are being drawn, at most so long."""
        self.is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._num_drawing:
                    self._idle.clear()
                    await self._idle.wait()

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Serve a request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        try:
            await self._answer(scope, receive, send)
        except _RefusedError as refusal:
            headers = [(b"retry-after", b"1")] if refusal.status == 503 else []
            problem = {"title": "The engine refused the request", "status": refusal.status, "detail": str(refusal)}
            await _respond(send, refusal.status, "application/problem+json", json.dumps(problem).encode(), headers)

    async def _live(self, receive: _Receive, send: _Send) -> None:
        await receive()
        await self.pool.start(lambda _: None)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.pool.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        path, method = scope["path"], scope["method"]
        if path not in _OPEN:
            self._check_token(scope)
        if (method, path) == ("POST", DRAW):
            await self._draw(scope, receive, send)
            return
        if (method, path) == ("POST", FINISH):
            await self._finish_early(scope, receive)
            await _respond(send, 200, _JSON, b"{}")
            return
        await _respond(send, *self._reading(method, path))

    def _reading(self, method: str, path: str) -> tuple[int, str, bytes]:
        """Status, media type and body of what can only be read."""
        match path if method == "GET" else None:
            case "/livez":
                return 200, _JSON, b'{"alive":true}'
            case "/readyz":
                is_ready = self.pool.state == "ready" and not self.is_draining
                body = json.dumps({"ready": is_ready, "state": self.pool.state, "draining": self.is_draining})
                return 200 if is_ready else 503, _JSON, body.encode()
            case engine_protocol.INFO:
                return 200, _JSON, msgspec.json.encode(self._status())
            case "/metrics":
                return 200, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(_Found(self._metrics()))
        raise _RefusedError(404, f"there is no {method} {path} here: this is an engine, not the server")

    def _check_token(self, scope: _Scope) -> None:
        shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if self._token is not None and not hmac.compare_digest(shown, f"Bearer {self._token}".encode()):
            raise _RefusedError(401, "the header Authorization must carry ENGINE_TOKEN")

    def _status(self) -> EngineStatus:
        pool = self.pool
        return EngineStatus(
            state=pool.state,
            failure=pool.failure if pool.state == "failed" else None,
            load_trouble=pool.load_trouble,
            info=pool.info,
            images_in_flight=sum(seat.num_images for seat in pool.seats),
            is_draining=self.is_draining,
            finishes_early=True,
            models=pool.seats[0].executor.models if len(pool.seats) == 1 else None,
        )

    def _metrics(self) -> list[Metric]:
        status = self._status()
        ready = GaugeMetricFamily("semantic_bit_engine_ready", "1 if the engine would draw.")
        ready.add_metric([], float(status.state == "ready" and not status.is_draining))
        images = GaugeMetricFamily("semantic_bit_engine_images_in_flight", "Pictures being drawn.")
        images.add_metric([], status.images_in_flight)
        places = GaugeMetricFamily(
            "semantic_bit_engine_images_in_flight_max", "Pictures drawn at the same time at most."
        )
        places.add_metric([], 0 if status.info is None else status.info.max_images_in_flight)
        ends = CounterMetricFamily("semantic_bit_engine_draws", "Requests to draw, by their end.", labels=["end"])
        for end, number in self._ends.items():
            ends.add_metric([end], number)
        restarts = CounterMetricFamily(
            "semantic_bit_engine_restarts", "Restarts of the engine process, by reason.", labels=["reason"]
        )
        for reason, number in self.pool.vitals.restarts.items():
            restarts.add_metric([reason], number)
        return [ready, images, places, ends, restarts]

    # --- drawing ------------------------------------------------------------------------------------------------------

    async def _draw(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        submit = await _submit_of(scope, receive)
        alone = scope["query_string"] == ALONE.encode()
        seat = None if self.is_draining else self.pool.place_for(submit.params, alone=alone)
        if seat is None:
            self._ends["refused"] += 1
            raise _RefusedError(503, "the engine is draining" if self.is_draining else "the engine has no room now")
        # Of our own: a gateway that gave an attempt up may ask for it again before we know.
        own_id = f"{submit.job_id}/{next(self._numbers)}"
        job = Job.of(submit, own_id)
        seat.take(own_id, submit.params, alone=alone)
        self._drawing[submit.job_id] = seat, job
        self._num_drawing += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", FRAMES.encode())]})
            drawing = asyncio.create_task(self._stream(seat, job, submit.job_id, send), name=f"draw {own_id}")
            hang_up = asyncio.create_task(_hang_up(receive), name=f"hang-up {own_id}")
            try:
                await asyncio.wait({drawing, hang_up}, return_when=asyncio.FIRST_COMPLETED)
                self._ends[drawing.result() if drawing.done() else "cancelled"] += 1
            finally:
                drawing.cancel()
                hang_up.cancel()
                await asyncio.gather(drawing, hang_up, return_exceptions=True)
        finally:
            seat.leave(own_id)
            if self._drawing.get(submit.job_id) == (seat, job):  # else it was asked for again
                del self._drawing[submit.job_id]
            self._num_drawing -= 1
            self._idle.set()

    async def _finish_early(self, scope: _Scope, receive: _Receive) -> None:
        message = await _message_of(scope, receive)
        if not isinstance(message, FinishEarly):
            raise _RefusedError(400, "the frame must ask for pictures of a job")
        drawing = self._drawing.get(message.job_id)
        if drawing is None:
            raise _RefusedError(404, "this engine draws no such job")
        seat, job = drawing
        if not await seat.executor.finish_early(job, message.image_indices):
            raise _RefusedError(404, "this engine does not draw that job any more")

    async def _stream(self, seat: Seat, job: Job, attempt_id: str, send: _Send) -> str:
        """Send a job's events, and a sign of life where there are none; how it ended."""
        executor, end = seat.executor, "done"
        async with contextlib.aclosing(executor.run(job)) as events:
            while True:
                coming = asyncio.ensure_future(anext(events))
                try:
                    while not (await asyncio.wait({coming}, timeout=HEARTBEAT_S))[0]:
                        if executor.silence_s <= executor.allowed_silence_s:
                            await _send_frames(send, frame(Pong(0)))
                    event = coming.result()
                except StopAsyncIteration:
                    break
                except (EngineError, EngineLostError) as error:
                    end = "failed" if isinstance(error, EngineError) else "lost"
                    await _send_frames(send, frame(JobFailed.of(attempt_id, error)))
                    break
                finally:
                    if not coming.done():
                        coming.cancel()
                        await asyncio.gather(coming, return_exceptions=True)
                told = _told(event, job.attempt_id, attempt_id)
                if isinstance(told, JobDone) and executor.info is not None:
                    told = msgspec.structs.replace(told, engine_class=executor.info.engine_class)
                await _send_frames(send, frame(told))
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return end


class _Found(Collector):
    """What was found, as the library wants it."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


async def _body_of(receive: _Receive) -> bytearray:
    """A request's body.

    Raises:
        _RefusedError: it is too large, or does not come.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _RefusedError(400, "the connection was closed")
        body += message.get("body", b"")
        if len(body) > _MAX_BODY_BYTES:
            raise _RefusedError(413, f"the body must have at most {_MAX_BODY_BYTES} bytes")
        if not message.get("more_body", False):
            break
    return body


async def _message_of(scope: _Scope, receive: _Receive) -> ToEngine:
    """The frame that is a request's body.

    Raises:
        _RefusedError: it is none.
    """
    body = await _body_of(receive)
    if (b"content-type", FRAMES.encode()) not in scope["headers"]:
        raise _RefusedError(415, f"the body must be {FRAMES}")
    try:
        if len(body) < HEADER.size or HEADER.unpack_from(body)[0] != len(body) - HEADER.size:
            raise _RefusedError(400, "the body must be one frame")
        return decode_to_engine(bytes(body[HEADER.size :]))
    except (msgspec.DecodeError, EngineError) as error:
        raise _RefusedError(400, f"the job cannot be read: {error}") from None


async def _submit_of(scope: _Scope, receive: _Receive) -> Submit:
    """The job in a request's body.

    Raises:
        _RefusedError: there is none that could be drawn.
    """
    submit = await _message_of(scope, receive)
    if not isinstance(submit, Submit) or not _ATTEMPT_ID.fullmatch(submit.job_id):
        raise _RefusedError(400, "the frame must be a job with the id of an attempt")
    if submit.output_format not in {"png", "webp", "jpeg"}:
        raise _RefusedError(400, f"output_format must be png, webp or jpeg, not {submit.output_format!r:.20}")
    # The name of a picture is the hash of its pixels, not of its file: that it is whole is seen without decoding it.
    mask = submit.params.mask
    pictures = (submit.params.image, None if mask is None else mask.image)
    named = {picture.sha256 for picture in pictures if picture is not None}
    if named != submit.inputs.keys() or not all(map(is_whole_png, submit.inputs.values())):
        raise _RefusedError(400, "the pictures of the job must be those that it names, as whole PNG files")
    return submit


async def _hang_up(receive: _Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _respond(
    send: _Send, status: int, media_type: str, body: bytes, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    length = (b"content-length", str(len(body)).encode())
    all_headers = [(b"content-type", media_type.encode()), length, *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": body})


async def _send_frames(send: _Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


def _told(event: JobEvent, own_id: str, attempt_id: str) -> JobEvent:
    """The event under the name that the gateway knows the job by, without other jobs' names."""
    if not isinstance(event, WorkDone):
        return msgspec.structs.replace(event, job_id=attempt_id)
    others = sum(rows for job_id, rows in event.rows_by_job.items() if job_id != own_id)
    rows = {attempt_id: event.rows_by_job[own_id]} | ({"": others} if others else {})
    return msgspec.structs.replace(event, rows_by_job=rows)
