"""Asks the process that reads uploads (`worker/upload_process.py`), and starts another when one is of no more use."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Final

import structlog

from server.executors.engine_environment import engine_environment
from server.worker.upload_messages import (
    HEADER,
    Answer,
    Layout,
    PictureKind,
    ReadInfo,
    ReadUpload,
    Refused,
    Upload,
    decode_answer,
    frame,
)

__all__ = ["UploadReader"]

_log = structlog.get_logger("server.uploads")

_ANSWER_S: Final = 30.0
"""The largest picture takes 2 s on one slow core; what takes longer is made to."""
_START_S: Final = 60.0
"""More for the first answer of a process: its imports, on a machine that is busy."""
_MODULE: Final = "server.worker.upload_process"


class UploadReader:
    """Reads one upload at a time, in the order in which they come. Its methods belong to the event loop's thread.

    The process is started for the first upload.
    """

    def __init__(self, folder: Path, *, answer_s: float = _ANSWER_S, module: str = _MODULE) -> None:
        """Start nothing yet.

        Args:
            folder: where the pictures are written, under names that nobody else has.
            answer_s: an upload that takes longer is refused.
            module: what reads; run with the number of a socket's file descriptor.
        """
        self._folder = folder
        self._answer_s = answer_s
        self._module = module
        # Not asyncio's threads, which read and write files for jobs.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="uploads")
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._is_closed = False
        self.num_lost = 0
        """Processes that ended or hung while they read."""

    @property
    def process_id(self) -> int | None:
        """Of the process; None while there is none."""
        return self._process.pid if self._process is not None else None

    async def read(
        self, body: BinaryIO, content_type: str, fields: Mapping[str, PictureKind], layout: Layout = "request"
    ) -> Answer:
        """Read a request. If the caller is cancelled meanwhile, what was written is removed.

        Args:
            body: a file with the whole body; it has a descriptor, which is not closed.
            content_type: of the body.
            fields: places that hold pictures (see `ReadUpload`).
            layout: of a body that is not JSON.
        """
        return await self._answered(ReadUpload(content_type, dict(fields), str(self._folder), layout), body)

    async def read_info(self, body: BinaryIO, content_type: str) -> Answer:
        """Read how the picture in a request was drawn.

        Args:
            body: as for `read`.
            content_type: of the body.
        """
        return await self._answered(ReadInfo(content_type), body)

    async def _answered(self, question: ReadUpload | ReadInfo, body: BinaryIO) -> Answer:
        descriptor = os.dup(body.fileno())
        reading = asyncio.get_running_loop().run_in_executor(self._thread, self._ask, question, descriptor)
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            reading.add_done_callback(self._discard)
            raise

    def close(self) -> None:
        """Read no more, and end the process. Blocks for a moment."""
        self._is_closed = True
        if self._process is not None:
            self._process.kill()  # whatever it reads: who waits for that hears of its end
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._end()

    def _discard(self, reading: asyncio.Future[Answer]) -> None:
        if not reading.cancelled() and reading.exception() is None:
            answer = reading.result()
            if isinstance(answer, Upload):
                for picture in answer.pictures.values():
                    (self._folder / picture.name).unlink(missing_ok=True)

    # --- on the thread ------------------------------------------------------------------------------------------------

    def _ask(self, question: ReadUpload | ReadInfo, descriptor: int) -> Answer:
        try:
            is_new = self._connection is None
            connection = self._connection or self._start()
            connection.settimeout(self._answer_s + (_START_S if is_new else 0.0))
            deadline = time.monotonic() + self._answer_s + (_START_S if is_new else 0.0)
            framed = frame(question)
            socket.send_fds(connection, [framed[: HEADER.size]], [descriptor])
            connection.sendall(framed[HEADER.size :])
            (length,) = HEADER.unpack(_received(connection, HEADER.size, deadline))
            return decode_answer(_received(connection, length, deadline))
        except (OSError, EOFError) as error:
            self._lose(error)
            return Refused("unsupported", "a picture of the request could not be read")
        finally:
            os.close(descriptor)

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs, contextlib.ExitStack() as unless_started:
            unless_started.callback(ours.close)
            environment = {**engine_environment(os.environ), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self._process = subprocess.Popen(  # noqa: S603 -- our own module
                [sys.executable, "-m", self._module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl+C is the gateway's
            )
            unless_started.pop_all()
        self._connection = ours
        return ours

    def _lose(self, error: Exception) -> None:
        """End a process that has ended, or that hangs."""
        exit_code = self._end()
        if not self._is_closed:
            self.num_lost += 1
            why = "timeout" if isinstance(error, TimeoutError) else "ended"
            _log.error("an upload could not be read, starting another process", why=why, exit_code=exit_code)

    def _end(self) -> int | None:
        """Let no process be left; the exit code of the one there was."""
        exit_code = None
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            exit_code = self._process.wait()
        self._process = self._connection = None
        return exit_code


def _received(connection: socket.socket, num_bytes: int, deadline: float) -> bytes:
    """So many bytes.

    Raises:
        EOFError: the other end has closed.
        TimeoutError: they have not come.
    """
    parts: list[bytes] = []
    while num_bytes:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        part = connection.recv(min(num_bytes, 2**20))
        if not part:
            raise EOFError
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)
