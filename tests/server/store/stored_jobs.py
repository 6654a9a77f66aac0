"""Jobs in a store, at any stage of their life."""

from __future__ import annotations

from server.store.record import JobQuery
from tests.server.store.store_records import new_job


async def added(store, **wish):
    """The id of a job that waits."""
    return (await store.add(new_job(**wish))).id


async def running(store, **wish):
    """The id of a job in its first attempt."""
    job_id = await added(store, **wish)
    assert await store.begin(job_id, 1500.0) == 1
    return job_id


async def ended(store, outcome, **wish):
    """The id of a job that came to this end."""
    job_id = await running(store, **wish)
    assert await store.finish(job_id, 1, outcome)
    return job_id


async def ids(store, **filters):
    """Of the jobs on a page, newest first."""
    return [record.id for record in await store.page(JobQuery(**{"key_id": None, "limit": 100} | filters))]
