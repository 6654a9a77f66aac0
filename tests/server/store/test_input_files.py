"""Pictures that jobs start from are kept for as long as a job names them, and no longer, whatever is interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
import time

import pytest

from engine.params import GenerationParams, InputImage, MaskWish
from server.errors import InputExpiredError, StoreTroubleError
from server.store.errors import StoreUnavailableError
from server.store.input_files import UNFINISHED, InputFiles, UploadedPicture, is_whole_png
from server.store.record import JobQuery
from server.store.storage import Retention, Storage
from tests.server.store.store_records import done, lost, new_job
from tests.server.uploads.picture_files import png

WEEK_S = 7 * 86400.0


def name_of(word: str) -> str:
    return hashlib.sha256(word.encode()).hexdigest()


def params_of(*words: str) -> GenerationParams:
    image, *masks = (InputImage(sha256=name_of(word), width=64, height=64) for word in words)
    return GenerationParams(prompt="a cat", seed=1, image=image, mask=MaskWish(image=masks[0]) if masks else None)


def uploaded(storage: Storage, word: str, num_bytes: int = 100) -> UploadedPicture:
    """A picture as an upload leaves it."""
    path = storage.inputs.folder / f"{UNFINISHED}{word}-{time.monotonic_ns()}"
    path.write_bytes(word.encode().ljust(num_bytes, b"."))
    return UploadedPicture(sha256=name_of(word), width=64, height=64, num_bytes=num_bytes, path=path)


async def accepted(storage: Storage, *words: str, num_bytes: int = 100, **wish):
    pictures = [uploaded(storage, word, num_bytes) for word in words]
    return await storage.add(new_job(params=params_of(*words), **wish), pictures)


async def ended(storage: Storage, record, outcome) -> None:
    await storage.store.begin(record.id, 1000.0)
    assert await storage.store.finish(record.id, 1, outcome)


async def tidied(storage: Storage, *, now_s: float = 3000.0, keep_bytes: int = 2**30, jobs_s: float = 90 * 86400.0):
    retention = Retention(results_s=WEEK_S, results_bytes=keep_bytes, jobs_s=jobs_s)
    await storage.tidy(retention, lambda: (), now_s=now_s)


def kept(storage: Storage) -> set[str]:
    """The words whose pictures are there; nothing else is."""
    words = {name_of(word): word for word in ("cat", "dog", "owl", "mask")}
    return {words.get(path.name.removesuffix(".png"), path.name) for path in storage.inputs.folder.iterdir()}


@pytest.fixture
async def storage(tmp_path):
    storage = await Storage.open(tmp_path)
    yield storage
    await storage.close()


async def test_what_a_job_starts_from_is_there_as_long_as_it_has_not_ended(storage, tmp_path):
    record = await accepted(storage, "cat", "mask")
    await tidied(storage, now_s=1e9)
    await storage.close()
    again = await Storage.open(tmp_path)
    assert kept(again) == {"cat", "mask"}
    found = await again.read_inputs(record)
    assert found.keys() == {name_of("cat"), name_of("mask")}
    assert found[name_of("cat")].startswith(b"cat.")
    await again.close()


@pytest.mark.parametrize("outcome", [done(at=2000.0), lost("failed", 2000.0), lost("cancelled", 2000.0), lost("dead")])
async def test_it_goes_when_the_results_would_go_and_the_job_stays(storage, outcome):
    record = await accepted(storage, "cat")
    await ended(storage, record, outcome)
    await tidied(storage, now_s=2000.0 + WEEK_S)
    assert kept(storage) == {"cat"}
    await tidied(storage, now_s=2001.0 + WEEK_S)
    assert kept(storage) == set()
    assert (await storage.store.get(record.id)).status == outcome.status


async def test_two_jobs_share_a_picture_and_the_last_one_takes_it_along(storage):
    first, second = await accepted(storage, "cat", "mask"), await accepted(storage, "cat")
    assert kept(storage) == {"cat", "mask"}
    await ended(storage, first, done(at=2000.0))
    await tidied(storage, now_s=2001.0 + WEEK_S)
    assert kept(storage) == {"cat"}
    await ended(storage, second, done(at=2100.0))
    await tidied(storage, now_s=2101.0 + WEEK_S)
    assert kept(storage) == set()


async def test_it_goes_with_its_job_where_that_is_kept_no_longer(storage):
    record = await accepted(storage, "cat")
    await ended(storage, record, done(at=2000.0))
    await tidied(storage, now_s=2011.0, jobs_s=10.0)
    assert kept(storage) == set()
    assert await storage.store.get(record.id) is None
    assert await storage.store.input_names() == set()


async def test_inputs_and_results_share_one_quota_and_the_oldest_go_first(storage):
    for number, word in enumerate(("cat", "dog", "owl")):
        record = await accepted(storage, word, num_bytes=1000)
        await ended(storage, record, done(at=2000.0 + number, num_bytes=500))
    await tidied(storage, keep_bytes=4500)
    assert kept(storage) == {"cat", "dog", "owl"}
    await tidied(storage, keep_bytes=4499)  # the oldest result goes, and that is enough
    assert kept(storage) == {"cat", "dog", "owl"}
    assert len(await storage.store.ids_with_files()) == 2
    await tidied(storage, keep_bytes=3999)
    assert kept(storage) == {"dog", "owl"}
    await tidied(storage, keep_bytes=0)
    assert kept(storage) == set()
    assert await storage.store.ids_with_files() == set()


async def test_the_quota_counts_a_shared_picture_once_and_never_takes_what_a_waiting_job_needs(storage):
    for _ in range(3):
        await ended(storage, await accepted(storage, "cat", num_bytes=1000), lost("failed", 2000.0))
    await accepted(storage, "dog", num_bytes=1000)
    await tidied(storage, keep_bytes=2000)
    assert kept(storage) == {"cat", "dog"}
    await tidied(storage, keep_bytes=1999)  # too little for both, of which one waits
    assert kept(storage) == {"dog"}
    await tidied(storage, keep_bytes=0)
    assert kept(storage) == {"dog"}


async def test_a_dead_job_is_requeued_as_long_as_its_pictures_are_there(storage):
    record = await accepted(storage, "cat", "mask")
    await ended(storage, record, lost("dead"))
    assert (await storage.store.revive(record.id)).status == "queued"
    await storage.store.begin(record.id, 1000.0)
    await storage.store.finish(record.id, 1, lost("dead"))
    await tidied(storage, now_s=2001.0 + WEEK_S)
    with pytest.raises(InputExpiredError, match="submit it again"):
        await storage.store.revive(record.id)
    assert (await storage.store.get(record.id)).status == "dead"


async def test_a_repeat_keeps_nothing_of_its_own(storage):
    first = await accepted(storage, "cat", idempotency_key="once")
    repeat = await accepted(storage, "cat", idempotency_key="once")
    assert repeat.id == first.id
    assert kept(storage) == {"cat"}
    await ended(storage, first, lost("failed", 2000.0))
    await tidied(storage, now_s=2001.0 + WEEK_S)
    await accepted(storage, "cat", idempotency_key="once")
    assert kept(storage) == set(), "the repeat of a job whose pictures are gone brings none back"


async def test_a_job_that_cannot_be_written_leaves_nothing(storage, monkeypatch):
    async def fail(*arguments):
        raise StoreUnavailableError("the disk is full")

    await accepted(storage, "dog")
    with monkeypatch.context() as broken:
        broken.setattr(storage.store, "add", fail)
        with pytest.raises(StoreTroubleError):
            await accepted(storage, "cat", "dog")
    assert kept(storage) == {"dog"}, "another job has that one"


async def test_a_picture_that_cannot_be_kept_refuses_the_job(storage, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    pictures = [uploaded(storage, "cat")]
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(StoreTroubleError):
            await storage.add(new_job(params=params_of("cat")), pictures)
    assert await storage.store.page(JobQuery(key_id=None, limit=10)) == []
    assert set(storage.inputs.folder.iterdir()) == {pictures[0].path}, "the request removes its own"


async def test_a_file_that_somebody_has_removed_is_told_of(storage):
    record = await accepted(storage, "cat")
    (storage.inputs.folder / f"{name_of('cat')}.png").unlink()
    with pytest.raises(InputExpiredError):
        await storage.read_inputs(record)


async def test_the_next_start_removes_what_a_killed_server_has_left(storage, tmp_path):
    record = await accepted(storage, "cat")
    picture = uploaded(storage, "dog")
    storage.inputs.keep(uploaded(storage, "owl"))  # and then the power goes, before its job is written
    foreign = storage.inputs.folder / "notes.txt"
    foreign.write_text("of the operator")
    await storage.close()
    again = await Storage.open(tmp_path)
    assert kept(again) == {"cat", "notes.txt"}
    assert not picture.path.exists()
    assert await again.read_inputs(record)
    await again.close()


async def test_housekeeping_leaves_an_upload_that_goes_on_and_removes_one_that_was_left(storage):
    young, old = uploaded(storage, "cat"), uploaded(storage, "dog")
    os.utime(old.path, (time.time() - 4000,) * 2)
    await tidied(storage)
    assert [path for path in (young.path, old.path) if path.exists()] == [young.path]


async def test_a_picture_that_a_job_takes_hold_of_while_it_is_looked_for_is_not_removed(storage):
    """Whenever the database is asked, the job may be accepted just after."""
    look = storage.store.input_names
    meanwhile = []

    async def look_and_accept() -> set[str]:
        named = await look()
        if not meanwhile:
            meanwhile.append(await accepted(storage, "cat"))
        return named

    storage.inputs.keep(uploaded(storage, "cat"))
    storage.inputs.release(name_of("cat"))
    storage.store.input_names = look_and_accept
    await storage.remove_unnamed_inputs()
    assert kept(storage) == {"cat"}
    assert await storage.read_inputs(meanwhile[0])
    await ended(storage, meanwhile[0], lost("failed", 2000.0))
    await tidied(storage, now_s=2001.0 + WEEK_S)
    assert kept(storage) == set()


async def test_jobs_that_come_and_go_with_the_same_picture_never_lose_it(storage):
    """Half of them are refused, and housekeeping goes on all the while."""
    add, numbers = storage.store.add, iter(range(1000))

    async def sometimes_fail(new, inputs):
        if next(numbers) % 2:
            raise StoreUnavailableError("the disk is full")
        return await add(new, inputs)

    storage.store.add = sometimes_fail
    tidying = asyncio.create_task(_again_and_again(storage))

    async def come_and_go() -> None:
        for _ in range(20):
            with contextlib.suppress(StoreTroubleError):
                record = await accepted(storage, "cat")
                assert await storage.read_inputs(record)
                await ended(storage, record, lost("failed", 0.0))

    await asyncio.gather(*(come_and_go() for _ in range(4)))
    tidying.cancel()
    await asyncio.gather(tidying, return_exceptions=True)
    await tidied(storage, now_s=1e9)
    assert {word for word in kept(storage) if not word.startswith(UNFINISHED)} == set()


async def _again_and_again(storage: Storage) -> None:
    while True:
        await tidied(storage, now_s=1e9)
        await asyncio.sleep(0)


def test_a_disk_that_hangs_while_it_removes_a_picture_holds_up_that_picture_alone(tmp_path, monkeypatch):
    files = InputFiles(tmp_path)
    gate, begun, order = threading.Event(), threading.Event(), []
    unlink = type(tmp_path).unlink

    def slow(path, **options):
        begun.set()
        gate.wait(10)
        unlink(path, **options)
        order.append("removed")

    (tmp_path / f"{name_of('cat')}.png").write_bytes(b"old")
    monkeypatch.setattr(type(tmp_path), "unlink", slow)

    def remove() -> None:
        with files.removal() as held:
            files.remove(name_of("cat"), held)

    def keep() -> None:
        files.keep(picture)
        order.append("kept")

    path = tmp_path / f"{UNFINISHED}1"
    path.write_bytes(b"new")
    picture = UploadedPicture(sha256=name_of("cat"), width=1, height=1, num_bytes=3, path=path)
    threads = [threading.Thread(target=remove)]
    threads[0].start()
    assert begun.wait(10)
    threads.append(threading.Thread(target=keep))
    threads[1].start()
    files.release(name_of("dog"))  # returns
    with files.removal():
        pass
    gate.set()
    for thread in threads:
        thread.join(10)
    assert order == ["removed", "kept"]
    assert files.read(name_of("cat")) == b"new"


def test_a_name_from_elsewhere_becomes_no_path(tmp_path):
    for name in ("../../etc/passwd", "A" * 64, "0" * 63, ""):
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            InputFiles(tmp_path).read(name)


def test_damage_of_a_png_file_is_seen_by_its_sums():
    whole = png(64, 64)
    assert is_whole_png(whole)
    for at in (20, 40, len(whole) // 2, len(whole) - 5):
        assert not is_whole_png(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    for damaged in (whole[:-1], whole + b"x", b"", whole[:8], b"GIF89a" + whole):
        assert not is_whole_png(damaged)
