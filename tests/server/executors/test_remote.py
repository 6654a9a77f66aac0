"""An engine over HTTP: drawn there as here, refused when full, cancelled by hanging up, and never believed blindly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx2
import numpy as np
import pytest
import uvicorn

from engine.errors import InvalidParamsError
from engine.params import GenerationParams, InputImage
from server.access.connections import guarded_config
from server.engine_service import EngineService
from server.errors import EngineLostError
from server.executors.balanced import BalancedEngines
from server.executors.base import EngineBusyError, Executor, Job
from server.executors.engine_protocol import DRAW, FINISH, FRAMES, INFO, MAX_REMOTE_FRAME_BYTES
from server.executors.messages import (
    HEADER,
    Cancel,
    FinishEarly,
    ImageReady,
    JobDone,
    Pong,
    Progress,
    Ready,
    Submit,
    WorkDone,
    frame,
)
from server.executors.pool import EnginePool
from server.executors.remote import EngineAddress, RemoteEngine
from server.executors.remote_stream import DrawStream
from server.worker.fake_executor import FakeExecutor
from server.worker.fake_pictures import fake_info
from server.worker.image_files import encode_png
from server.worker.picture_reading import name_of

TOKEN = "t" * 32


def job(name: str = "a", attempt: int = 1, **wishes: object) -> Job:
    ordinary = {"prompt": "a cat", "seed": 1, "num_inference_steps": 4, "height": 64, "width": 64}
    return Job(id=name, attempt=attempt, params=GenerationParams(**(ordinary | wishes)), output_format="png")


@contextlib.asynccontextmanager
async def served(*executors: Executor, token: str | None = TOKEN) -> AsyncIterator[tuple[str, EngineService]]:
    """An engine service on a free port."""
    service = EngineService(EnginePool({f"e{n}": executor for n, executor in enumerate(executors)}), token)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(guarded_config(service))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(30):
            while not server.started:
                await asyncio.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", service
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def remote(
    url: str, token: str | None = TOKEN, kind: type[RemoteEngine] = RemoteEngine
) -> AsyncIterator[RemoteEngine]:
    engine = kind(EngineAddress(url), token=token)
    await engine.start()
    try:
        async with asyncio.timeout(30):
            while engine.state != "ready" and not engine.load_trouble:
                await asyncio.sleep(0.005)
        yield engine
    finally:
        await engine.stop()


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def events_of(engine: Executor, wish: Job) -> list[object]:
    return [event async for event in engine.run(wish)]


async def test_a_remote_engine_draws_the_same_bytes_and_names_its_own_attempt():
    wish = replace(job(attempt=3, num_images=2), image_metadata="none")
    local = FakeExecutor()
    async with served(local) as (url, _), remote(url) as engine:
        assert engine.info == fake_info("fake", 2)
        events = await events_of(engine, wish)
        there = await events_of(local, wish)
    assert [event.data for event in events if isinstance(event, ImageReady)] == [
        event.data for event in there if isinstance(event, ImageReady)
    ]
    assert isinstance(events[-1], JobDone)
    assert {event.job_id for event in events if not isinstance(event, WorkDone)} == {"a.3"}
    assert all(event.rows_by_job["a.3"] for event in events if isinstance(event, WorkDone))
    assert engine.work_times.median_s("step", 4, 64, 64) is not None


async def test_a_picture_goes_to_a_remote_engine_under_the_hash_of_its_pixels():
    pixels = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    name, file = name_of(pixels), encode_png(pixels)
    wish = job(image=InputImage(sha256=name, width=64, height=64), strength=0.5)
    executor = FakeExecutor()
    async with served(executor) as (url, _), remote(url) as engine:
        assert isinstance((await events_of(engine, replace(wish, inputs={name: file})))[-1], JobDone)
        assert executor.started[-1].inputs == {name: file}
        for inputs in ({}, {name: file[:-20]}, {name: file, "0" * 64: file}):
            with pytest.raises(EngineLostError, match="answered with 400"):
                await events_of(engine, replace(wish, inputs=inputs))


async def test_jobs_side_by_side_learn_nothing_of_each_other_and_one_work_item_counts_once():
    executor, counted = FakeExecutor(step_s=0.01), []
    async with served(executor) as (url, _), remote(url) as engine:
        engine.work_times.on_item = counted.append
        a, b = await asyncio.gather(events_of(engine, job("a")), events_of(engine, job("b")))
    assert {name for event in a if isinstance(event, WorkDone) for name in event.rows_by_job} <= {"a.1", ""}
    assert len([item for item in counted if item.kind == "step"]) < sum(
        isinstance(event, WorkDone) and event.kind == "step" for event in a + b
    )


async def test_hanging_up_cancels_the_job_and_frees_its_place():
    executor = FakeExecutor(step_s=60)
    async with served(executor) as (url, service), remote(url) as engine:
        async with contextlib.aclosing(engine.run(job(num_images=2))) as events:
            drawing = asyncio.ensure_future(anext(events))
            await until(lambda: executor.images_in_flight == 2)
            drawing.cancel()
            await asyncio.gather(drawing, return_exceptions=True)
        await until(lambda: executor.images_in_flight == 0)
        assert not service.pool.seats[0].job_ids


async def test_a_full_or_draining_engine_refuses_at_once():
    executor = FakeExecutor(step_s=60)
    async with served(executor) as (url, service), remote(url) as engine:
        full = asyncio.create_task(events_of(engine, job(num_images=2)))
        await until(lambda: executor.images_in_flight == 2)
        with pytest.raises(EngineBusyError, match="full"):
            await events_of(engine, job("b"))
        await service.drain(0)
        with pytest.raises(EngineBusyError, match="full"):
            await events_of(engine, job("c"))
        full.cancel()
        await asyncio.gather(full, return_exceptions=True)
        await until(lambda: engine.state == "loading")
        assert engine.load_trouble == "it is shutting down"


async def test_draining_waits_for_what_is_being_drawn():
    executor = FakeExecutor(step_s=0.02)
    async with served(executor) as (url, service), remote(url) as engine:
        drawing = asyncio.create_task(events_of(engine, job()))
        await until(lambda: executor.images_in_flight == 1)
        await service.drain(60)
        assert executor.images_in_flight == 0
        assert isinstance((await drawing)[-1], JobDone)


async def test_errors_of_the_engine_come_back_as_they_were():
    executor = FakeExecutor()
    async with served(executor) as (url, _), remote(url) as engine:
        executor.fail_next(InvalidParamsError("eta", "must be small", 3))
        with pytest.raises(InvalidParamsError) as caught:
            await events_of(engine, job())
        assert (caught.value.field, caught.value.rule, caught.value.value) == ("eta", "must be small", 3)
        executor.fail_next(InvalidParamsError("prompt", "must be shorter", None))
        with pytest.raises(InvalidParamsError, match=r"^prompt must be shorter$"):
            await events_of(engine, job())
        executor.fail_next(EngineLostError("the engine process ended"))
        with pytest.raises(EngineLostError, match="the engine process ended"):
            await events_of(engine, job())


async def test_pictures_come_early_from_afar_too():
    executor = FakeExecutor(step_s=0.005)
    wish = job(num_images=2, num_inference_steps=100)
    async with served(executor) as (url, _), remote(url) as engine:
        events: list[object] = []
        async with contextlib.aclosing(engine.run(wish)) as running:
            async for event in running:
                events.append(event)
                if isinstance(event, Progress) and (event.image_index, event.step) == (1, 2):
                    assert await engine.finish_early(wish, None)
        assert isinstance(events[-1], JobDone)
        assert len([event for event in events if isinstance(event, ImageReady)]) == 2
        assert max(event.step for event in events if isinstance(event, Progress)) < 50
        assert not await engine.finish_early(wish, None), "it is over"


@pytest.mark.parametrize(
    ("body", "status"),
    [(frame(FinishEarly("a.1")), 404), (frame(Cancel("a.1")), 400), (b"", 400), (frame(FinishEarly("../x")), 404)],
)
async def test_what_cannot_come_early_is_refused(body: bytes, status: int):
    async with served(FakeExecutor()) as (url, _), httpx2.AsyncClient(base_url=url) as client:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": FRAMES}
        assert (await client.post(FINISH, content=body, headers=headers)).status_code == status
        assert (await client.post(FINISH, content=body, headers={"Content-Type": FRAMES})).status_code == 401


async def test_where_nothing_listens_no_attempt_is_used_up():
    async with served(FakeExecutor()) as (url, _), remote(url) as engine:
        pass
    engine = RemoteEngine(EngineAddress(url), token=TOKEN)
    await engine.start()
    engine._state = "ready"  # as it was told a moment ago
    with pytest.raises(EngineBusyError):
        await events_of(engine, job())
    await engine.stop()


async def test_an_engine_that_does_not_answer_has_not_begun_and_uses_up_no_attempt():
    async def ignore(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)

    connections: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    address = EngineAddress(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    for kind, is_fault in ((RemoteEngine, True), (BalancedEngines, False)):  # a balancer may have let it wait
        engine = kind(address, token=TOKEN, allowed_silence_s=0.1)
        await engine.start()
        engine._state = "ready"  # as it was told a moment ago
        with pytest.raises(EngineBusyError, match="did not answer") as caught:
            await events_of(engine, job())
        assert caught.value.is_fault is is_fault
        await engine.stop()
    for connection in connections:
        connection.close()
    server.close()


async def test_an_engine_that_is_shut_down_while_it_draws_uses_up_no_attempt():
    executor = FakeExecutor(step_s=60)
    async with contextlib.AsyncExitStack() as stack:
        url, service = await stack.enter_async_context(served(executor))
        engine = await stack.enter_async_context(remote(url))
        drawing = asyncio.create_task(events_of(engine, job()))
        await until(lambda: executor.images_in_flight == 1)
        await service.drain(0)  # its time is over at once
        await until(lambda: engine.load_trouble == "it is shutting down")
        for seat in service.pool.seats:
            await seat.executor.stop()
        with pytest.raises(EngineBusyError, match="shut down"):
            await drawing


async def test_a_wrong_token_opens_nothing_but_the_probes():
    async with served(FakeExecutor()) as (url, _), httpx2.AsyncClient(base_url=url) as client:
        for path, status in ((INFO, 401), ("/metrics", 401), (DRAW, 401), ("/livez", 200), ("/readyz", 200)):
            assert (await client.get(path, headers={"Authorization": "Bearer no"})).status_code == status
        async with remote(url, token="x" * 32) as engine:
            assert engine.state == "loading"
            assert "refuses ENGINE_TOKEN" in (engine.load_trouble or "")


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"", FRAMES, 400),
        (b"\xff" * 100, FRAMES, 400),
        (frame(Cancel("a.1")), FRAMES, 400),
        (frame(Submit("../../etc", job().params, "png")), FRAMES, 400),
        (frame(Submit("a.1", job().params, "gif")), FRAMES, 400),
        (frame(Submit("a.1", job().params, "png", {"0" * 64: b"other"})), FRAMES, 400),
        (frame(Submit("a.1", job().params, "png")) + b"x", FRAMES, 400),
        (frame(Submit("a.1", job().params, "png")), "text/plain", 415),
    ],
)
async def test_a_job_that_cannot_be_is_refused(body: bytes, media_type: str, status: int):
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": media_type}
    async with served(FakeExecutor()) as (url, service), httpx2.AsyncClient(base_url=url) as client:
        answer = await client.post(DRAW, content=body, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert not service.pool.seats[0].job_ids


async def test_behind_one_address_the_window_follows_what_is_taken():
    executor = FakeExecutor(step_s=0.02, max_images_in_flight=2)
    async with served(executor) as (url, _), remote(url, kind=BalancedEngines) as engine:
        windows = []
        for number in range(2):
            await events_of(engine, job(f"one{number}"))
            windows.append(engine.info.max_images_in_flight)
        slow = asyncio.create_task(events_of(engine, job("slow", num_images=2, num_inference_steps=50)))
        await until(lambda: executor.images_in_flight == 2)
        with pytest.raises(EngineBusyError):
            await events_of(engine, job("refused"))
        assert engine.info.max_images_in_flight == 2
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
    assert windows == [2, 2]


@pytest.mark.parametrize(("model", "headers"), [("", {}), ("sdxl", {"serve-multiplexed-model-id": "sdxl"}), ("ä", {})])
def test_a_balancer_is_given_the_models_name_where_a_header_can_hold_it(model: str, headers: dict[str, str]):
    assert BalancedEngines(EngineAddress("http://a:1"))._routing(job(model=model)) == headers


class TestHostileEngine:
    """
    Whatever an engine sends, the worst that follows is that the attempt counts as lost.
    """

    IMAGE = frame(ImageReady("a.1", 0, 1, b"x", "image/png"))

    @pytest.mark.parametrize(
        ("sent", "reason"),
        [
            (b"garbage that is no frame", "frame of"),
            (HEADER.pack(MAX_REMOTE_FRAME_BYTES + 1), "frame of"),
            (HEADER.pack(3) + b"abc", "cannot be read"),
            (frame(Progress("a.2", 0, 1, 4)), "another attempt"),
            (frame(Progress("b.1", 0, 1, 4)), "another attempt"),
            (frame(Progress("a.1", 1, 1, 4)), "impossible"),
            (frame(Progress("a.1", 0, 2, 4)) * 2, "impossible"),
            (frame(Progress("a.1", 0, 5, 4)), "impossible"),
            (IMAGE * 2, "impossible"),
            (frame(ImageReady("a.1", 0, 1, b"x", "text/html")), "impossible"),
            (frame(JobDone("a.1", 0, 0, 0, 0, 0)), "impossible"),
            (frame(WorkDone("step", 1.0, 2, 64, 64, {"b.1": 2})), "impossible"),
            (frame(Ready(fake_info("fake", 2))), "no place here"),
            (frame(Pong(0)) * 10_001, "more messages"),
        ],
    )
    def test_an_impossible_message_ends_the_attempt(self, sent: bytes, reason: str):
        stream = DrawStream(job(), 10.0)
        with pytest.raises(EngineLostError, match=reason):
            list(stream.feed(sent))

    @pytest.mark.parametrize(("chunk", "seconds"), [(b"\0", 11.0), (frame(Pong(0)), 601.0)])
    def test_slow_messages_and_signs_of_life_alone_end_the_attempt(self, chunk: bytes, seconds: float):
        now = 0.0
        stream = DrawStream(job(), 10.0, now=lambda: now)
        assert list(stream.feed(chunk)) == []
        now = seconds
        with pytest.raises(EngineLostError, match=r"too slowly|no progress"):
            list(stream.feed(chunk))

    def test_a_frame_may_come_in_any_pieces(self):
        sent = frame(Progress("a.1", 0, 1, 4)) + self.IMAGE + frame(JobDone("a.1", 0, 0, 0, 0, 0))
        stream = DrawStream(job(), 10.0)
        events = [event for byte in sent for event in stream.feed(bytes([byte]))]
        assert [type(event) for event in events] == [Progress, ImageReady, JobDone]
