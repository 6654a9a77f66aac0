"""A gateway with a hostile engine and a good one: what the first sends is bounded and logged, and the other draws."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from server.executors.engine_protocol import DRAW, FRAMES, MAX_REMOTE_FRAME_BYTES, EngineStatus
from server.executors.messages import HEADER, ImageReady, JobDone, Pong, Progress, decode_to_engine, frame
from server.executors.pool import EnginePool
from server.executors.remote import EngineAddress, RemoteEngine
from server.worker.fake_executor import FakeExecutor
from server.worker.fake_pictures import fake_info
from tests.server.executors.test_remote import until
from tests.server.test_generator import running, wish

GOOD_STATUS = msgspec.json.encode(EngineStatus(state="ready", info=fake_info("fake", 2)))
SILENCE_S = 0.3

Writer = asyncio.StreamWriter
Draw = Callable[[Writer, str], Awaitable[None]]


def head(status: int = 200, media_type: str = FRAMES, length: int | None = None) -> bytes:
    sized = "Connection: close" if length is None else f"Content-Length: {length}"
    return f"HTTP/1.1 {status} X\r\nContent-Type: {media_type}\r\n{sized}\r\n\r\n".encode()


@contextlib.asynccontextmanager
async def hostile(draw: Draw, status: bytes = GOOD_STATUS) -> AsyncIterator[RemoteEngine]:
    """An engine that answers as it likes: `draw` gets the connection and the attempt's id."""

    async def answer(reader: asyncio.StreamReader, writer: Writer) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while request := await reader.readuntil(b"\r\n\r\n"):
                if DRAW.encode() not in request:
                    writer.write(head(media_type="application/json", length=len(status)) + status)
                    continue
                (length,) = HEADER.unpack(await reader.readexactly(HEADER.size))
                submit = decode_to_engine(await reader.readexactly(length))
                await draw(writer, submit.job_id)
                return

    tasks: set[asyncio.Task[None] | None] = set()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield RemoteEngine(EngineAddress(f"http://127.0.0.1:{port}"), allowed_silence_s=SILENCE_S)
    finally:
        server.close()
        for task in tasks:
            assert task is not None
            task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)


def sends(*messages: bytes | Callable[[str], bytes], before: bytes = head()) -> Draw:
    async def draw(writer: Writer, attempt_id: str) -> None:
        writer.write(before)
        for message in messages:
            writer.write(message if isinstance(message, bytes) else message(attempt_id))
            await writer.drain()

    return draw


async def says_nothing(_writer: Writer, _attempt_id: str) -> None:
    await asyncio.sleep(60)


async def answers_and_says_nothing(writer: Writer, _attempt_id: str) -> None:
    writer.write(head())
    await asyncio.sleep(60)


async def sends_byte_by_byte(writer: Writer, _attempt_id: str) -> None:
    writer.write(head())
    for byte in HEADER.pack(1000) + bytes(1000):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)


async def never_ends(writer: Writer, _attempt_id: str) -> None:
    writer.write(head())
    while True:
        writer.write(frame(Pong(0)) * 1000)
        await writer.drain()


def picture_twice(attempt_id: str) -> bytes:
    return 2 * frame(ImageReady(attempt_id, 0, 1, b"x", "image/png"))


def end_without_a_picture(attempt_id: str) -> bytes:
    return frame(JobDone(attempt_id, 0, 0, 0, 0, 0))


HOSTILE = {
    "garbage": (sends(b"garbage that is no frame"), 1),
    "a huge frame": (sends(HEADER.pack(MAX_REMOTE_FRAME_BYTES + 1)), 1),
    "another attempt's": (sends(lambda attempt_id: frame(Progress(f"{attempt_id}1", 0, 1, 28))), 1),
    "a picture twice": (sends(picture_twice), 1),
    "an end without a picture": (sends(end_without_a_picture), 1),
    "an early end": (sends(), 1),
    "a page": (sends(b"<html>", before=head(media_type="text/html")), 1),
    "an error": (sends(b"", before=head(500)), 1),
    "no messages": (answers_and_says_nothing, 1),
    "byte by byte": (sends_byte_by_byte, 1),
    "an endless stream": (never_ends, 1),
    "no answer": (says_nothing, 0),  # so it was not begun
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_the_job_is_drawn_elsewhere_and_the_fault_is_known(case: str, tmp_path):
    draw, num_losses = HOSTILE[case]
    good = FakeExecutor()
    async with hostile(draw) as bad, running(EnginePool({"bad": bad, "good": good}), tmp_path) as generator:
        await until(lambda: bad.state == good.state == "ready")
        drawn = await generator.draw(wish(is_bound=False))
        fault = generator.executor.seats[0].last_fault
    assert (drawn.record.status, drawn.record.losses) == ("done", num_losses)
    assert len(good.started) == 1
    assert fault


@pytest.mark.parametrize("status", [b"x" * 2**20, b"[]", b"{", msgspec.json.encode({"protocol": 99, "state": "ready"})])
async def test_an_engine_whose_state_cannot_be_read_gets_no_job(status: bytes, tmp_path):
    good = FakeExecutor()
    async with (
        hostile(says_nothing, status) as bad,
        running(EnginePool({"bad": bad, "good": good}), tmp_path) as generator,
    ):
        await until(lambda: bad.load_trouble and good.state == "ready")
        drawn = await generator.draw(wish(is_bound=False))
        assert bad.state == "loading"
    assert (drawn.record.status, drawn.record.attempt) == ("done", 1)
