"""The table of usage: days, sums, money without rounding, what counts once."""

from __future__ import annotations

import sqlite3
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from server.store.job_store import JobStore
from server.store.record import JobQuery
from server.store.usage_table import UsageQuestion
from tests.server.store.older_store import make_older
from tests.server.store.store_records import FAILURE, done, lost, new_job, noon
from tests.server.store.stored_jobs import ended

EVER = {"first_day": date(1970, 1, 1), "last_day": date(2100, 1, 1)}


async def rows_of(store, *group_by, **question):
    return await store.usage(UsageQuestion(**EVER | question, group_by=group_by))


async def test_a_job_counts_on_the_day_in_utc_on_which_it_ended(store):
    midnight = datetime(2026, 11, 23, tzinfo=UTC).timestamp()
    await ended(store, done(midnight - 0.001))
    await ended(store, done(midnight))
    await ended(store, lost("failed", midnight + 86399.9))
    rows = await rows_of(store, "day")
    assert [(str(row.day), row.done, row.failed) for row in rows] == [("2026-11-22", 1, 0), ("2026-11-23", 1, 1)]


async def test_sums_are_by_day_key_and_user_as_asked(store):
    await ended(store, done(noon("2026-11-01"), num_images=2), key_id="a", user="ada")
    await ended(store, done(noon("2026-11-02")), key_id="a")
    await ended(store, done(noon("2026-11-02")), key_id="b", user="ada")
    assert [(row.key_id, row.user, row.done) for row in await rows_of(store, "key")] == [("a", None, 2), ("b", None, 1)]
    assert [(row.user, row.images) for row in await rows_of(store, "user")] == [(None, 1), ("ada", 3)]
    assert [row.key_id for row in await rows_of(store, "key", user="ada")] == ["a", "b"]
    assert [str(row.day) for row in await rows_of(store, "day", key_id="a", user="ada")] == ["2026-11-01"]
    assert len(await rows_of(store, "day", "key", "user")) == 3
    assert len(await rows_of(store, "day", "key", "user", max_rows=2)) == 2
    [second] = await rows_of(store, first_day=date(2026, 11, 2), last_day=date(2026, 11, 2))
    assert (second.done, second.price) == (2, Decimal("0.01"))
    [nothing] = await rows_of(store, last_day=date(2000, 1, 1))
    assert (nothing.done, nothing.images, nothing.work_units, nothing.price) == (0, 0, 0.0, Decimal(0))


async def test_money_is_added_without_rounding_whatever_it_comes_to(store):
    """Ten times 0.1 is 1; and more than 64 bits hold in billionths can be added."""
    for _ in range(10):
        await ended(store, done(price="0.1"), key_id="cheap")
    for number in range(3):
        await ended(store, done(price="8000000000.000000001"), key_id=f"dear {number}")
    [row] = await rows_of(store, key_id="cheap")
    assert row.price == 1
    [total] = await rows_of(store)
    assert total.price == Decimal("24000000001.000000003")


async def test_a_late_end_of_a_lost_attempt_counts_nothing(store):
    new = new_job()
    await store.add(new)
    assert await store.begin(new.id, 1.0) == 1
    await store.put_back(new.id, 1)
    assert await store.begin(new.id, 2.0) == 2
    assert not await store.finish(new.id, 1, done())
    assert await store.finish(new.id, 2, done())
    assert not await store.finish(new.id, 2, done())
    await store.cancel(new.id, 3000.0, FAILURE)
    [row] = await rows_of(store)
    assert (row.done, row.cancelled, row.images) == (1, 0, 1)


async def test_a_dead_job_that_is_let_run_again_has_ended_twice(store):
    """
    What was told of a day does not change afterwards.
    """
    job_id = await ended(store, lost("dead", noon("2026-11-01"), engine_s=3.0))
    await store.revive(job_id)
    await store.begin(job_id, 1.0)
    await store.finish(job_id, 1, done(noon("2026-11-02"), engine_s=1.0))
    rows = await rows_of(store, "day")
    assert [(row.dead, row.done, row.engine_s) for row in rows] == [(1, 0, 3.0), (0, 1, 1.0)]


async def test_usage_outlives_the_jobs(store):
    await ended(store, done(2000.0))
    await store.expire(files_before=9e9, keep_bytes=0, jobs_before=9e9)
    assert await store.page(JobQuery(key_id=None, limit=1)) == []
    [row] = await rows_of(store)
    assert row.done == 1


async def test_an_end_whose_count_fails_is_no_end(store):
    """They are one transaction."""
    new = new_job()
    await store.add(new)
    await store.begin(new.id, 1.0)

    def forbid(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TRIGGER forbid BEFORE INSERT ON usage BEGIN SELECT RAISE(ABORT, 'no'); END")

    await store._thread.write(forbid)
    with pytest.raises(sqlite3.IntegrityError):
        await store.finish(new.id, 1, done())
    assert (await store.get(new.id)).status == "running"


async def test_a_store_from_before_there_was_usage_begins_to_count(tmp_path):
    store = await JobStore.open(tmp_path)
    await ended(store, done())
    await store.close()
    make_older(tmp_path, 2)
    store = await JobStore.open(tmp_path)
    await ended(store, done())
    assert [row.done for row in await rows_of(store)] == [1]
    await store.close()
