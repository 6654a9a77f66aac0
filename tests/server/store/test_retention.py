"""What is deleted, when, and how much at a time."""

from __future__ import annotations

import sqlite3

import pytest

from server.store import job_table
from server.store.errors import StoreUnavailableError
from tests.server.store.store_records import done, lost
from tests.server.store.stored_jobs import added, ended, ids, running

FOR_EVER = {"files_before": 0.0, "keep_bytes": 2**60, "jobs_before": 0.0}


async def given_up(store, **rules):
    """The jobs whose files belong to no job any more, after old ones have expired."""
    before = await store.ids_with_files()
    await store.expire(**FOR_EVER | rules)
    return before - await store.ids_with_files()


async def test_files_expire_with_age_and_the_job_stays(store):
    old, young = await ended(store, done(at=10.0)), await ended(store, done(at=20.0))
    assert await given_up(store, files_before=15.0) == {old}
    assert not (await store.get(old)).has_files
    assert (await store.get(old)).outcome == done(at=10.0)
    assert (await store.get(young)).has_files
    assert await given_up(store, files_before=15.0) == set()


async def test_the_oldest_files_expire_until_the_rest_fits(store):
    """The order is that of the endings, also of two at the same instant, not that of acceptance."""
    ends = [30.0, 10.0, 10.0, 20.0]
    late, early, as_early, middle = [await ended(store, done(at=at, num_bytes=100)) for at in ends]
    assert await given_up(store, keep_bytes=400) == set()
    assert await given_up(store, keep_bytes=399) == {early}
    assert await given_up(store, keep_bytes=150) == {as_early, middle}
    assert await store.ids_with_files() == {late}


async def test_old_jobs_are_removed_wholly_and_those_without_an_end_never(store):
    with_file, without = await ended(store, done(at=10.0)), await ended(store, lost(at=10.0))
    waits, runs, young = await added(store), await running(store), await ended(store, lost(at=30.0))
    assert await given_up(store, jobs_before=20.0) == {with_file}
    assert await store.get(with_file) is None
    assert await store.get(without) is None
    assert await ids(store) == [young, runs, waits]


async def test_a_large_clearance_is_done_in_portions(store, monkeypatch):
    monkeypatch.setattr(job_table, "MAX_EXPIRED", 2)
    third, first, second, fourth = [await ended(store, done(at=float(at))) for at in (3, 1, 2, 4)]
    commits = []
    store.watch_commits(commits.append)
    assert await given_up(store, files_before=3.5) == {first, second, third}
    assert await given_up(store, jobs_before=9.0) == {fourth}
    assert await ids(store) == []
    assert len(commits) == 2 + 3


async def test_when_the_disk_fails_in_the_middle_of_a_clearance_it_goes_on_the_next_time(store, monkeypatch):
    monkeypatch.setattr(job_table, "MAX_EXPIRED", 1)
    _, second = [await ended(store, done(at=at)) for at in (1.0, 2.0)]
    real, calls = job_table.expire, []

    def fails_at_second_call(connection, **rules):
        calls.append(rules)
        if len(calls) % 2 == 0:
            raise sqlite3.OperationalError("disk I/O error")
        return real(connection, **rules)

    monkeypatch.setattr(job_table, "expire", fails_at_second_call)
    for left in ({second}, set()):
        with pytest.raises(StoreUnavailableError):
            await store.expire(**FOR_EVER | {"files_before": 9.0})
        assert await store.ids_with_files() == left
