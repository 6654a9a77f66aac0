"""The package as its users import it: documentation, errors, pictures that save themselves."""

from __future__ import annotations

import errno
import io
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import semantic_bit_client
from semantic_bit_client import JobFailed, SemanticBitError

from tests.client.client_values import SMALL


def test_everything_that_is_exported_is_documented():
    for name in semantic_bit_client.__all__:
        assert name == "JobStatus" or getattr(semantic_bit_client, name).__doc__, name


def test_no_error_needs_more_than_a_sentence():
    error = SemanticBitError("no")
    assert (str(error), error.code, error.status, error.wrong_values, error.job_id) == ("no", "", None, (), None)
    assert issubclass(JobFailed, SemanticBitError)


@pytest.fixture
def picture(client):
    return client.generate("a cat", **SMALL)


def test_a_picture_saves_itself(picture, tmp_path):
    picture.save(tmp_path / "cat.png")
    picture.save(str(tmp_path / "dog.png"))
    assert (tmp_path / "cat.png").read_bytes() == (tmp_path / "dog.png").read_bytes() == picture.bytes
    (tmp_path / "plain").touch()
    assert (tmp_path / "cat.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_file_is_replaced_whole_or_not_at_all(picture, tmp_path, monkeypatch):
    file = tmp_path / "cat.png"
    file.write_bytes(b"an older cat")
    (tmp_path / "link.png").symlink_to(file)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            picture.save(file)
    assert file.read_bytes() == b"an older cat"
    picture.save(tmp_path / "link.png")
    assert file.read_bytes() == picture.bytes
    assert (tmp_path / "link.png").is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"cat.png", "link.png"}, "no leavings"


def test_a_pipe_is_written_to_and_not_replaced(picture, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        reading = threads.submit(pipe.read_bytes)
        picture.save(pipe)
        assert reading.result(5) == picture.bytes
    assert pipe.is_fifo()


def test_an_error_arrives_whole_in_another_process():
    error = semantic_bit_client.RateLimited("slowly", code="rate_limited", status=429, retry_after_s=3, request_id="a")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.__dict__) == (type(error), "slowly", error.__dict__)


def test_the_rules_know_no_http_library():
    folder = Path(semantic_bit_client.__file__).parent
    for name in ("calls", "deadline", "decoding", "errors", "event_stream", "job_follower", "models", "retries"):
        source = (folder / f"{name}.py").read_text()
        assert "import httpx2" not in source
        assert "import stamina" not in source
    assert "server" not in {line.split(" ")[1].split(".")[0] for line in imports(folder)}


def imports(folder: Path) -> list[str]:
    return [
        line
        for file in folder.glob("*.py")
        for line in io.StringIO(file.read_text())
        if line.startswith(("import ", "from "))
    ]
