"""The store of jobs: a job's life, repeats, pages, restarts."""

from __future__ import annotations

import asyncio

import pytest

from server.errors import IdempotencyMismatchError
from server.store.job_store import JobStore
from server.store.record import TERMINAL, JobQuery, Outcome
from tests.server.store.store_records import FAILURE, done, lost, new_job
from tests.server.store.stored_jobs import added, ended, ids, running

# --- a job's life -----------------------------------------------------------------------------------------------------


async def test_a_job_is_kept_exactly_as_it_was_given(store):
    new = new_job(user="Åsa 🐈", idempotency_key="k", is_bound=True, request_digest=bytes(range(32)))
    record = await store.add(new)
    assert (record.new, record.status, record.attempt, record.outcome) == (new, "queued", 0, None)
    assert await store.get(new.id) == record


async def test_a_job_runs_and_ends_with_everything_that_is_known_of_its_end(store):
    job_id = await running(store)
    outcome = done(num_images=2)
    assert await store.finish(job_id, 1, outcome)
    record = await store.get(job_id)
    assert (record.status, record.attempt, record.started_at, record.outcome) == ("done", 1, 1500.0, outcome)
    assert record.has_files


async def test_a_job_that_is_not_kept_is_none(store):
    assert await store.get("0" * 16) is None
    assert await store.begin("0" * 16, 1500.0) is None
    assert await store.cancel("0" * 16, 1500.0, FAILURE) is None
    assert await store.revive("0" * 16) is None


async def test_a_job_begins_only_when_it_waits(store):
    job_id = await running(store)
    assert await store.begin(job_id, 1600.0) is None
    assert (await store.get(job_id)).started_at == 1500.0


async def test_a_lost_attempt_goes_back_and_the_next_one_has_the_next_number(store):
    job_id = await running(store)
    assert await store.put_back(job_id, 1)
    assert (await store.get(job_id)).status == "queued"
    assert await store.begin(job_id, 1600.0) == 2


async def test_a_zombie_changes_nothing(store):
    job_id = await running(store)
    await store.put_back(job_id, 1)
    assert not await store.finish(job_id, 1, done()), "it does not run"
    await store.begin(job_id, 1600.0)
    before = await store.get(job_id)
    assert not await store.finish(job_id, 1, done()), "another attempt runs"
    assert not await store.put_back(job_id, 1)
    assert await store.get(job_id) == before


@pytest.mark.parametrize("status", sorted(TERMINAL))
async def test_the_end_of_a_job_never_changes(store, status):
    outcome = done() if status == "done" else lost(status)
    job_id = await ended(store, outcome)
    before = await store.get(job_id)
    assert not await store.finish(job_id, 1, lost("failed", at=3000.0))
    assert not await store.put_back(job_id, 1)
    assert not await store.fail_queued(job_id, lost("failed", at=3000.0))
    assert await store.begin(job_id, 3000.0) is None
    assert await store.cancel(job_id, 3000.0, FAILURE) == before
    await store.recover(3000.0)
    assert await store.get(job_id) == before


async def test_waiting_and_running_jobs_can_be_cancelled(store):
    waiting, runs = await added(store), await running(store)
    for job_id in (waiting, runs):
        record = await store.cancel(job_id, 1700.0, FAILURE)
        assert record.outcome == Outcome(status="cancelled", finished_at=1700.0, failure=FAILURE)
        assert record == await store.get(job_id)
    assert not await store.finish(runs, 1, done())


async def test_only_a_waiting_job_is_failed_without_having_run(store):
    waiting, runs = await added(store), await running(store)
    assert await store.fail_queued(waiting, lost("failed"))
    assert not await store.fail_queued(runs, lost("failed"))
    assert [(await store.get(job_id)).status for job_id in (waiting, runs)] == ["failed", "running"]


async def test_a_dead_job_can_be_brought_back_as_if_it_had_never_run(store):
    job_id = await ended(store, lost("dead"))
    record = await store.revive(job_id)
    assert (record.status, record.attempt, record.started_at, record.outcome) == ("queued", 0, None, None)
    assert await store.revive(job_id) is None, "it is not dead any more"
    assert await store.begin(job_id, 3000.0) == 1


@pytest.mark.parametrize("status", sorted(TERMINAL - {"dead"}))
async def test_no_other_job_can_be_brought_back(store, status):
    job_id = await ended(store, done() if status == "done" else lost(status))
    assert await store.revive(job_id) is None
    assert (await store.get(job_id)).status == status


# --- repeats ----------------------------------------------------------------------------------------------------------


async def test_fifty_parallel_adds_with_one_key_are_one_job(store):
    records = await asyncio.gather(*(store.add(new_job(idempotency_key="k")) for _ in range(50)))
    assert len({record.id for record in records}) == 1
    assert len(await store.page(JobQuery(key_id=None, limit=100))) == 1


async def test_a_key_with_another_digest_is_refused_and_spoils_nothing(store):
    """Both share a transaction: only the refused one's part of it is undone."""
    await added(store, idempotency_key="k", id="a" * 16)
    refused, accepted = await asyncio.gather(
        store.add(new_job(idempotency_key="k", request_digest=b"other")), store.add(new_job()), return_exceptions=True
    )
    assert isinstance(refused, IdempotencyMismatchError)
    assert "a" * 16 in str(refused)
    assert await store.get(accepted.id) == accepted


async def test_a_repeat_can_be_looked_for_without_adding(store):
    first = await store.add(new_job(idempotency_key="k"))
    assert await store.find_repeat(new_job(idempotency_key="k")) == first
    assert await store.find_repeat(new_job(idempotency_key="other")) is None
    assert await store.find_repeat(new_job()) is None
    with pytest.raises(IdempotencyMismatchError):
        await store.find_repeat(new_job(idempotency_key="k", request_digest=b"other"))


async def test_a_key_belongs_to_its_owner(store):
    mine = await added(store, idempotency_key="k", key_id="mine")
    assert await added(store, idempotency_key="k", key_id="yours") != mine


async def test_a_key_lives_as_long_as_its_job(store):
    first = await ended(store, done(at=2000.0), idempotency_key="k")
    assert await added(store, idempotency_key="k") == first
    await store.expire(files_before=0, keep_bytes=10**9, jobs_before=2001.0)
    assert await added(store, idempotency_key="k") != first


async def test_a_page_has_the_newest_jobs_first_and_the_next_one_goes_on(store):
    newest_first = [await added(store) for _ in range(7)][::-1]
    page = await store.page(JobQuery(key_id="local", limit=3))
    assert [record.id for record in page] == newest_first[:3]
    assert await ids(store, key_id="local", before_seq=page[-1].seq) == newest_first[3:]


async def test_a_page_mixes_statuses_in_the_order_of_acceptance(store):
    made = [await added(store), await running(store), await ended(store, done()), await ended(store, lost())]
    made += [await added(store), await ended(store, done())]
    assert await ids(store) == made[::-1]
    assert await ids(store, limit=2) == made[:-3:-1]
    assert await ids(store, statuses={"done", "queued"}) == [made[5], made[4], made[2], made[0]]
    assert await ids(store, statuses=["done", "done"]) == [made[5], made[2]]


async def test_a_page_shows_one_owner_and_if_asked_one_of_its_users(store):
    first = await added(store, key_id="a", user="x")
    second = await added(store, key_id="a")
    third = await added(store, key_id="b", user="x")
    assert await ids(store) == [third, second, first]
    assert await ids(store, key_id="a") == [second, first]
    assert await ids(store, key_id="a", user="x") == [first]
    assert await ids(store, user="x") == [third, first]


async def test_a_sequence_number_is_never_given_again(store):
    job_id = await ended(store, done(at=1.0))
    seq = (await store.get(job_id)).seq
    await store.expire(files_before=0, keep_bytes=0, jobs_before=2.0)
    assert (await store.add(new_job())).seq > seq


# --- restart ----------------------------------------------------------------------------------------------------------


async def test_a_restart_queues_what_ran_and_cancels_what_was_bound(tmp_path):
    first = await JobStore.open(tmp_path)
    runs, waits = await running(first), await added(first)
    bound = [await running(first, is_bound=True), await added(first, is_bound=True)]
    finished = await ended(first, done(), is_bound=True)
    await first.close()

    second = await JobStore.open(tmp_path)
    recovered = await second.recover(5000.0)
    assert [(record.id, record.status, record.attempt) for record in recovered] == [
        (runs, "queued", 1),
        (waits, "queued", 0),
    ]
    for job_id in bound:
        record = await second.get(job_id)
        assert (record.status, record.outcome.failure.code) == ("cancelled", "server_restarted")
        assert record.outcome.finished_at == 5000.0
    assert (await second.get(finished)).status == "done"
    assert await second.begin(runs, 5001.0) == 2
    await second.close()
