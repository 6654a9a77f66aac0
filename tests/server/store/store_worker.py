"""A process to be killed: adds jobs to a store as fast as it can, and prints the id of each once it is acknowledged.

python -m tests.server.store.store_worker FOLDER ROUND
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import sys
from pathlib import Path

from server.store.job_store import JobStore
from tests.server.store.store_records import done, new_job

NUM_CALLERS = 8


def say(status: str, job_id: str) -> None:
    sys.stdout.write(f"{status} {job_id}\n")
    sys.stdout.flush()


async def add_for_ever(store: JobStore, round_number: int, caller: int) -> None:
    for number in itertools.count():
        job_id = hashlib.sha256(f"{round_number} {caller} {number}".encode()).hexdigest()[:16]
        await store.add(new_job(id=job_id))
        say("queued", job_id)
        if number % 2:
            attempt = await store.begin(job_id, 1500.0)
            assert attempt is not None
            assert await store.finish(job_id, attempt, done())
            say("done", job_id)


async def main(folder: Path, round_number: int) -> None:
    store = await JobStore.open(folder)
    await asyncio.gather(*(add_for_ever(store, round_number, caller) for caller in range(NUM_CALLERS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
