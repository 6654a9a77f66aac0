"""A bare HTTP/1.1 client over one TCP connection: light enough for hundreds at once, and can hang up at any instant."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

TERMINAL = {"done", "failed", "cancelled", "dead"}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """Asks and waits, one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator[Connection]:
        address = urlsplit(url)
        connection = cls(*await asyncio.open_connection(address.hostname, address.port))
        try:
            yield connection
        finally:
            connection.hang_up()

    def hang_up(self) -> None:
        """Without a farewell, whatever is under way."""
        self._writer.transport.abort()

    async def get(self, path: str) -> Answer:
        return await self.ask("GET", path)

    async def post(self, path: str, body: object = None, **headers: str) -> Answer:
        return await self.ask("POST", path, body, **headers)

    async def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        await self._send(method, path, body, headers)
        status, answered = await self._read_head()
        if answered.get("transfer-encoding") == "chunked":
            return Answer(status, answered, b"".join([chunk async for chunk in self._chunks()]))
        return Answer(status, answered, await self._reader.readexactly(int(answered.get("content-length", 0))))

    async def events(self, path: str) -> AsyncGenerator[dict[str, Any], None]:
        """The snapshots of an event stream, until it ends. Comments are left out."""
        await self._send("GET", path, None, {})
        status, headers = await self._read_head()
        assert status == 200, status
        assert headers["content-type"].startswith("text/event-stream")
        async for message in self._chunks():  # the server sends each message as a chunk of its own
            fields = dict(line.split(": ", 1) for line in message.decode().strip().split("\n"))
            if "data" in fields:
                yield json.loads(fields["data"])

    async def _send(self, method: str, path: str, body: object, headers: dict[str, str]) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        told = {"Host": "127.0.0.1", "Content-Length": str(len(data)), "Content-Type": "application/json"} | headers
        head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        self._writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data)
        await self._writer.drain()

    async def _read_head(self) -> tuple[int, dict[str, str]]:
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        fields = (line.split(": ", 1) for line in lines)
        return int(first.split()[1]), {name.lower(): value for name, value in fields}

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readline(), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()


async def ended(connection: Connection, job_id: str, timeout_s: float = 10) -> dict[str, Any]:
    """The job, as soon as it is over."""
    async with asyncio.timeout(timeout_s):
        while (job := (await connection.get(f"/v1/jobs/{job_id}")).json)["status"] not in TERMINAL:
            await asyncio.sleep(0.01)
    return job


async def idle_after_s(connection: Connection, timeout_s: float = 10) -> float:
    """Seconds until nothing waits and nothing is in flight."""
    clock = asyncio.get_running_loop()
    began = clock.time()
    async with asyncio.timeout(timeout_s):
        while True:
            queue = (await connection.get("/health")).json["queue"]
            if queue["requests_waiting"] == queue["images_in_flight"] == 0:
                return clock.time() - began
            await asyncio.sleep(0.01)


async def all_jobs(connection: Connection) -> list[dict[str, Any]]:
    """Every job that the server knows, newest first, page by page."""
    jobs: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = (await connection.get(f"/v1/jobs?limit=100{cursor}")).json
        jobs += page["jobs"]
        if page["next_cursor"] is None:
            return jobs
        cursor = f"&cursor={page['next_cursor']}"


def unix_s(timestamp: str) -> float:
    """Of one of the API's timestamps."""
    return datetime.fromisoformat(timestamp).timestamp()
