"""The client for asyncio. (`scripts/generate_sync_client.py` makes `client.py`, for blocking code, from this.)"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx2
import stamina

from semantic_bit_client import calls
from semantic_bit_client.calls import Call, Reply
from semantic_bit_client.deadline import Deadline
from semantic_bit_client.drawing import Drawing, JobDrawing, Upscaling
from semantic_bit_client.errors import SemanticBitError
from semantic_bit_client.job_follower import EventSession, JobFollower, Step
from semantic_bit_client.models import Health, ImageInfo, JobState, Model, Picture, Progress, Queue, Sampler, Usage
from semantic_bit_client.retries import Retries, RetryBudget
from semantic_bit_client.transport import ResponseReader, Settings, failures_named
from semantic_bit_client.uploads import AnyPicture

__all__ = ["AsyncClient", "AsyncJob"]

_T = TypeVar("_T")


class AsyncClient:
    """A connection to one server. Tasks of one event loop may share it.

    Every method raises a `SemanticBitError` when there is no answer to give (`errors.py` draws the tree). What may
    pass, lost connections and the answers 429, 502, 503 and 504, is tried again within the bounds of `retries`, and
    never draws twice.

    Args:
        base_url: of the server: `http://127.0.0.1:8000`.
        api_key: sent as `Authorization: Bearer`; None where the server wants none.
        connect_timeout_s: seconds to get a connection in.
        read_timeout_s: seconds that an answer, or its next piece, may take. Drawing takes longer: it is waited for by
            following the job, by its ETA.
        retries: how often, and for how long, to try again.
        transport: what sends the requests, in place of the network.

    Raises:
        ValueError: the URL is not valid, or the key could not be sent.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        connect_timeout_s: float = 3.0,
        read_timeout_s: float = 10.0,
        retries: Retries = Retries(),  # noqa: B008 -- frozen
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        settings = Settings(
            base_url=base_url,
            api_key=api_key,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            retries=retries,
        )
        self._wire = _AsyncWire(settings, transport)

    async def __aenter__(self) -> Self:
        """The same client, closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._wire.close()

    async def generate(
        self,
        prompt: str,
        *,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        **drawing: Unpack[Drawing],
    ) -> Picture:
        """Draw one picture and wait for it.

        Args:
            prompt: what to draw.
            timeout_s: seconds that asking, waiting and drawing may take; None: as long as the server goes on.
            idempotency_key: with the same key and arguments it is the same picture, drawn once, however often and
                from wherever it is asked for. Left out, this call and its retries have one of their own.
            **drawing: see `Drawing`.

        Raises:
            JobFailed: it cannot be drawn.
            TookTooLong: the job goes on; `client.job(error.job_id)` finds it again.
            SemanticBitError: see `errors.py`.
        """
        return await self._drawn(calls.submit(prompt, drawing, idempotency_key, Drawing), timeout_s)

    async def submit(
        self, prompt: str, *, idempotency_key: str | None = None, **drawing: Unpack[JobDrawing]
    ) -> AsyncJob:
        """Ask for pictures and go on. What this returns for is written down: it survives the server's end.

        Args:
            prompt: what to draw.
            idempotency_key: with the same key and arguments it is the same job, however often it is asked for.
            **drawing: see `JobDrawing`.

        Raises:
            SemanticBitError: see `errors.py`.
        """
        return AsyncJob(self._wire, await self._wire.ask(calls.submit(prompt, drawing, idempotency_key)))

    async def upscale(
        self,
        image: AnyPicture,
        *,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        **upscaling: Unpack[Upscaling],
    ) -> Picture:
        """Enlarge a picture without drawing, and wait for it.

        Args:
            image: a path, the bytes of a PNG, JPEG or WebP file, or a PIL picture.
            timeout_s: as for `generate`.
            idempotency_key: as for `generate`.
            **upscaling: see `Upscaling`.

        Raises:
            SemanticBitError: as `generate` does.
            OSError: the picture cannot be read.
        """
        return await self._drawn(calls.upscale(image, upscaling, idempotency_key), timeout_s)

    async def image_info(self, image: AnyPicture) -> ImageInfo:
        """How a picture was drawn, as far as its file says.

        Raises:
            SemanticBitError: see `errors.py`.
            OSError: the picture cannot be read.
        """
        return await self._wire.ask(calls.image_info(image))

    async def job(self, job_id: str) -> AsyncJob:
        """Find a job again by its id.

        Raises:
            JobNotFound: there is none, or it is another key's.
            SemanticBitError: see `errors.py`.
            ValueError: that is not a job id.
        """
        return AsyncJob(self._wire, await self._wire.ask(calls.show(job_id)))

    async def health(self) -> Health:
        """How the server is; also an answer where it is bad."""
        return await self._wire.ask(calls.health())

    async def queue(
        self,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        height: int | None = None,
        width: int | None = None,
        num_images: int | None = None,
    ) -> Queue:
        """How busy the server is, and when such a drawing, asked for now, would be done."""
        return await self._wire.ask(
            calls.queue(
                {
                    "num_inference_steps": num_inference_steps,
                    "guidance_scale": guidance_scale,
                    "height": height,
                    "width": width,
                    "num_images": num_images,
                }
            )
        )

    async def samplers(self, *, num_inference_steps: int | None = None) -> tuple[Sampler, ...]:
        """The samplers, with their model calls for so many steps (left out: the default)."""
        return await self._wire.ask(calls.samplers(num_inference_steps))

    async def models(self) -> tuple[Model, ...]:
        """The models that `model` may name, the default one first.

        Raises:
            NotSupported: the server does not list its models.
            SemanticBitError: see `errors.py`.
        """
        return await self._wire.ask(calls.models())

    async def usage(self) -> Usage:
        """What was drawn on the last 30 days, day by day, and what it cost.

        Raises:
            NotSupported: the server does not keep account.
        """
        return await self._wire.ask(calls.usage())

    async def _drawn(self, call: Call[JobState], timeout_s: float | None) -> Picture:
        deadline = Deadline(timeout_s)
        deadline.left_s()
        job = AsyncJob(self._wire, await self._wire.ask(call, deadline))
        await job.wait(timeout_s=deadline.left_s(job.id))
        [picture] = await job.images()
        return picture


class AsyncJob:
    """Pictures that were asked for. Belongs to the `AsyncClient` that asked."""

    def __init__(self, wire: _AsyncWire, state: JobState) -> None:
        self._wire = wire
        self.state = state
        """As it was when the server was last asked."""

    @property
    def id(self) -> str:
        """Under which `client.job(id)` finds it again, from wherever."""
        return self.state.id

    async def refresh(self) -> JobState:
        """Ask how it is."""
        self.state = await self._wire.ask(calls.show(self.id))
        return self.state

    async def events(self, *, timeout_s: float | None = None) -> AsyncGenerator[Progress, None]:
        """How far it is: now and at every change, the last one terminal. A slow reader misses those between.

        Raises:
            TookTooLong: the job goes on.
            SemanticBitError: see `errors.py`. That a job ends without pictures is not an error here.
        """
        follower = self._wire.settings.follower(self.state, Deadline(timeout_s))
        while not follower.is_over:
            step = follower.plan()
            await asyncio.sleep(step.pause_s)
            if step.is_listening:
                async with aclosing(self._wire.listen(self.id, follower, step)) as news:
                    async for progress in news:
                        yield progress
                continue
            self.state = await self._wire.ask(calls.show(self.id), follower.deadline)
            progress = Progress.of(self.state)
            if follower.heard(progress):
                yield progress

    async def wait(self, *, timeout_s: float | None = None) -> JobState:
        """Wait until it is done.

        Raises:
            JobFailed: it ended without pictures.
            TookTooLong: the job goes on.
            SemanticBitError: see `errors.py`.
        """
        if not self.state.is_over:
            async with aclosing(self.events(timeout_s=timeout_s)) as events:
                async for _ in events:
                    pass
            await self.refresh()
        calls.fail_unless_done(self.state)
        return self.state

    async def images(self) -> list[Picture]:
        """The pictures, in the order of their seeds.

        Raises:
            JobNotDone: it has not ended; `wait` first.
            JobFailed: it ended without.
            ResultExpired: they are not kept any more.
            SemanticBitError: see `errors.py`.
        """
        first = await self.image(0)
        return [first, *[await self.image(index) for index in range(1, len(self.state.images))]]

    async def image(self, index: int) -> Picture:
        """One of the pictures, from 0. Raises what `images` raises."""
        state = self.state if self.state.is_over else await self.refresh()
        calls.fail_unless_done(state)
        return await self._wire.ask(calls.picture(state, index))

    async def cancel(self) -> JobState:
        """Cancel it before its next step. One that has ended stays as it is."""
        self.state = await self._wire.ask(calls.cancel(self.id))
        return self.state


class _AsyncWire:
    """Sends what `calls.py` says to send, as often as `retries.py` says. Client and jobs share it."""

    def __init__(self, settings: Settings, transport: httpx2.AsyncBaseTransport | None) -> None:
        self.settings = settings
        transport = transport or httpx2.AsyncHTTPTransport(**settings.of_transport())
        self._http = httpx2.AsyncClient(**settings.of_client(), transport=transport)

    async def close(self) -> None:
        await self._http.aclose()

    async def ask(self, call: Call[_T], deadline: Deadline | None = None) -> _T:
        """Ask, and ask again where that may help and the time allows it."""
        deadline = deadline or Deadline()
        retries = self.settings.retries
        budget = RetryBudget(retries, deadline)
        async for attempt in stamina.retry_context(on=budget.pause_s, attempts=retries.attempts, timeout=None):
            with attempt:
                return call.understand(await self._reply(call, deadline))
        raise AssertionError("the last try returns or raises")

    async def listen(self, job_id: str, follower: JobFollower, step: Step) -> AsyncGenerator[Progress, None]:
        """What is new, from one event stream, until that is lost or the job has ended."""
        call, session = calls.events(job_id, step.silence_s), EventSession(follower, step)
        try:
            async with self._answer(call, follower.deadline) as response:
                if not calls.is_stream(response.status_code, response.headers.get("content-type", "")):
                    call.understand(await _arrived(response, follower.deadline))
                async for piece in response.aiter_bytes():
                    for progress in session.take(piece):
                        yield progress
                    if not session.goes_on():
                        return
        except SemanticBitError as error:
            follower.lost(error)
        else:
            follower.lost(None)

    async def _reply(self, call: Call[_T], deadline: Deadline) -> Reply:
        async with self._answer(call, deadline) as response:
            return await _arrived(response, deadline)

    @asynccontextmanager
    async def _answer(self, call: Call[_T], deadline: Deadline) -> AsyncGenerator[httpx2.Response, None]:
        with failures_named(call.job_id, deadline):
            async with self._http.stream(**self.settings.of_call(call, deadline)) as response:
                yield response


async def _arrived(response: httpx2.Response, deadline: Deadline) -> Reply:
    reader = ResponseReader(response, deadline)
    async for piece in response.aiter_bytes():
        reader.add(piece)
    return reader.reply()
