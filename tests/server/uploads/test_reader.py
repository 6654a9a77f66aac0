"""The process that reads uploads is started when it is needed, and replaced when it ends or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from pathlib import Path

from server.uploads.reader import UploadReader
from server.worker.upload_messages import Refused, Upload
from tests.chaos.gateway import needs_proc
from tests.server.uploads.picture_files import form_of, png

FIELDS = {"image": "picture"}
FORM = "multipart/form-data; boundary=b0undary"
BODY = form_of({"prompt": "a cat"}, {"image": png()})


@contextlib.contextmanager
def reader_of(folder: Path, **options):
    reader = UploadReader(folder, **options)
    try:
        yield reader
    finally:
        reader.close()


async def read(reader: UploadReader, body: bytes = BODY):
    with tempfile.TemporaryFile() as file:
        file.write(body)
        file.flush()
        return await reader.read(file, FORM, FIELDS)


async def test_one_process_reads_one_upload_after_the_other_for_many_callers(tmp_path):
    with reader_of(tmp_path) as reader:
        assert reader.process_id is None
        answers = await asyncio.gather(*(read(reader) for _ in range(5)))
        process_id = reader.process_id
        assert isinstance(await read(reader), Upload)
        assert reader.process_id == process_id
    assert all(isinstance(answer, Upload) for answer in answers)
    names = {answer.pictures["image"].name for answer in answers}
    assert len(names) == 5, "each caller has files of its own"


async def test_a_process_that_is_killed_is_replaced(tmp_path):
    with reader_of(tmp_path) as reader:
        await read(reader)
        os.kill(reader.process_id, signal.SIGKILL)
        first, second = await read(reader), await read(reader)
        assert isinstance(second, Upload)
        assert reader.num_lost == 1
        assert first == Refused("unsupported", "a picture of the request could not be read")


async def test_a_process_that_hangs_is_killed_and_the_next_upload_is_read(tmp_path):
    with reader_of(tmp_path, answer_s=2.0) as reader:
        await read(reader)
        os.kill(reader.process_id, signal.SIGSTOP)
        assert isinstance(await read(reader), Refused)
        assert reader.process_id is None
    with reader_of(tmp_path) as reader:
        assert isinstance(await read(reader), Upload)


def read_proc(process_id: int, name: str) -> str:
    return Path(f"/proc/{process_id}/{name}").read_text()


@needs_proc
async def test_it_has_no_secret_of_the_gateways_and_little_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("API_KEY", "x" * 40)
    with reader_of(tmp_path) as reader:
        await read(reader)
        environment, limits = (read_proc(reader.process_id, name) for name in ("environ", "limits"))
        assert "API_KEY" not in environment
        [line] = [line for line in limits.splitlines() if line.startswith("Max data size")]
        assert line.split()[3] == str(768 * 2**20)


async def test_what_a_caller_that_was_cancelled_has_asked_for_is_removed(tmp_path):
    with reader_of(tmp_path) as reader:
        await read(reader)
        before = set(tmp_path.iterdir())
        os.kill(reader.process_id, signal.SIGSTOP)
        asking = asyncio.create_task(read(reader))
        await asyncio.sleep(0)  # it asks, and waits
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        os.kill(reader.process_id, signal.SIGCONT)
        answer = await read(reader)  # comes after it
        assert set(tmp_path.iterdir()) - before == {tmp_path / answer.pictures["image"].name}


async def test_a_request_that_makes_much_of_little_is_refused_and_ends_nothing(tmp_path):
    """32 MiB of JSON that would be some gigabytes of objects."""
    body = b'{"prompt": "a cat", "x": [' + b"{}," * (10 * 2**20) + b"{}]}"
    with reader_of(tmp_path) as reader, tempfile.TemporaryFile() as file:
        file.write(body)
        file.flush()
        answer = await reader.read(file, "application/json", FIELDS)
        assert (answer.why, answer.field) == ("too_large", None)
        assert isinstance(await read(reader), Upload)
        assert reader.num_lost == 0
