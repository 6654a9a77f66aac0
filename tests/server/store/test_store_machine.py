"""Whatever is asked in whatever order, do the job store and the fair queue before it what plain models of them do?"""

from __future__ import annotations

import asyncio
import operator
import shutil
import tempfile
from collections import Counter
from datetime import date
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule

from engine.params import GenerationParams
from server.errors import IdempotencyMismatchError
from server.jobs.fair_queue import FairQueue
from server.store import job_table
from server.store.job_store import JobStore
from server.store.record import MAX_ATTEMPTS, TERMINAL, Failure, JobQuery, Outcome
from server.store.usage_table import UsageQuestion
from tests.server.jobs.naive_queue import NaiveQueue
from tests.server.store.store_records import FAILURE, done, lost, new_job

outcomes = st.one_of(
    st.builds(
        done,
        st.floats(1, 9),
        num_bytes=st.integers(1, 9),
        engine_s=st.floats(0, 9),
        work_units=st.floats(0, 9),
        price=st.decimals(0, 9, places=9).map(str),
    ),
    st.builds(lost, st.sampled_from(["failed", "dead"]), st.floats(1, 9), engine_s=st.floats(0, 9)),
)
attempts = st.integers(1, 3)
key_ids = st.sampled_from("ab")
users = st.sampled_from([None, "", "ada", "0"])
steps = st.sampled_from([4, 28, 100])
RESTARTED = Failure(code="server_restarted", detail="the server was restarted before the pictures were finished")


def params(steps):
    return GenerationParams(prompt="a cat", seed=7, num_inference_steps=steps)


async def all_of(*operations):
    return await asyncio.gather(*operations)


class Model:
    """Every job as (new, status, attempt, outcome, has_files), in the order of acceptance; and every end there was."""

    def __init__(self):
        self.jobs = {}
        self.ends = []
        self.crashes = Counter()

    def add(self, new):
        for job_id, (other, *_) in self.jobs.items():
            if new.idempotency_key and (other.key_id, other.idempotency_key) == (new.key_id, new.idempotency_key):
                return job_id if other.request_digest == new.request_digest else None
        self.jobs[new.id] = (new, "queued", 0, None, False)
        return new.id

    def change(self, job_id, statuses, status, *, attempt=None, count=None, outcome=None):
        new, old, number, *_ = self.jobs.get(job_id, (None, None, 0))
        if old not in statuses or attempt not in {None, number}:
            return False
        self.jobs[job_id] = (new, status, number if count is None else count, outcome, bool(outcome and outcome.images))
        if outcome:
            self.ends.append((new, outcome))
        return True

    def usage(self):
        """(key, user) -> jobs by how they ended, pictures, work units, engine seconds, price."""
        sums = {}
        for new, outcome in self.ends:
            counts, *others = sums.get((new.key_id, new.user), (Counter(), 0, 0.0, 0.0, Decimal(0)))
            amounts = len(outcome.images), outcome.work_units, outcome.engine_s, outcome.price
            sums[new.key_id, new.user] = (counts + Counter([outcome.status]), *map(operator.add, others, amounts))
        return sums

    def in_state(self, status):
        return [job_id for job_id, job in self.jobs.items() if job[1] == status]

    def attempt(self, job_id):
        return self.jobs[job_id][2] if job_id in self.jobs else 0

    def recover(self, outcome):
        for job_id, (new, *_) in self.jobs.items():
            if not (new.is_bound and self.change(job_id, {"queued", "running"}, "cancelled", outcome=outcome)):
                self.crashes[job_id] += self.change(job_id, {"running"}, "queued")
                if self.crashes[job_id] == MAX_ATTEMPTS:
                    dead = msgspec.structs.replace(outcome, status="dead", failure=job_table.CRASHED)
                    self.change(job_id, {"queued"}, "dead", outcome=dead)

    def expire(self, files_before, keep_bytes, jobs_before):
        ends = sorted((job[3].finished_at, n, job_id) for n, (job_id, job) in enumerate(self.jobs.items()) if job[3])
        removed = [job_id for at, _, job_id in ends if at < jobs_before]
        gone = {job_id for job_id in removed if self.jobs.pop(job_id)[4]}
        kept = [(at, job_id) for at, _, job_id in ends if job_id in self.jobs and self.jobs[job_id][4]]
        num_bytes = sum(self.jobs[job_id][3].images[0].num_bytes for _, job_id in kept)
        for at, job_id in kept:
            if at >= files_before and num_bytes <= keep_bytes:
                break
            num_bytes -= self.jobs[job_id][3].images[0].num_bytes
            self.jobs[job_id] = (*self.jobs[job_id][:4], False)
            gone.add(job_id)
        return gone


class StoreMachine(RuleBasedStateMachine):
    """The store, and the queue of what it says waits, kept by the rules of `Dispatcher`."""

    job_ids = Bundle("job_ids")

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model = Model()
        self.runner = asyncio.Runner()
        self.store = self.run(JobStore.open(self.folder))
        self.queue = FairQueue()
        self.fair = NaiveQueue()

    def run(self, operation):
        return self.runner.run(operation)

    @rule(
        target=job_ids,
        key_id=key_ids,
        user=users,
        key=st.sampled_from([None, "k", "l"]),
        digest=st.sampled_from([b"x", b"y"]),
        is_bound=st.booleans(),
        steps=steps,
    )
    def add(self, key_id, user, key, digest, is_bound, steps):
        new = new_job(
            key_id=key_id,
            user=user,
            params=params(steps),
            idempotency_key=key,
            request_digest=digest,
            is_bound=is_bound,
        )
        expected = self.model.add(new)
        if expected is None:
            with pytest.raises(IdempotencyMismatchError):
                self.run(self.store.add(new))
            return multiple()
        record = self.run(self.store.add(new))
        assert record.id == expected
        if expected == new.id:
            self.wait(record)
        return expected

    @rule(target=job_ids, jobs=st.lists(st.tuples(key_ids, users, steps), min_size=3, max_size=9))
    def add_several(self, jobs):
        """Backlogs, so that there is somebody to be fair to."""
        added = [new_job(key_id=key_id, user=user, params=params(steps)) for key_id, user, steps in jobs]
        records = self.run(all_of(*(self.store.add(new) for new in added)))
        for new, record in zip(added, records, strict=True):
            assert self.model.add(new) == new.id == record.id
            self.wait(record)
        return multiple(*(new.id for new in added))

    @rule(number=st.integers(1, 4))
    def begin_next(self, number):
        for _ in range(min(number, len(self.queue))):
            job_id = self.queue.pop()
            assert job_id == self.fair.pop()
            attempt = self.model.attempt(job_id) + 1
            assert self.model.change(job_id, {"queued"}, "running", count=attempt)
            assert self.run(self.store.begin(job_id, 1.0)) == attempt

    @rule(job_id=job_ids)
    def begin_what_does_not_wait(self, job_id):
        if job_id not in self.queue:
            assert self.run(self.store.begin(job_id, 1.0)) is None

    @rule(job_id=job_ids, attempt=attempts)
    def put_back(self, job_id, attempt):
        expected = self.model.change(job_id, {"running"}, "queued", attempt=attempt)
        assert self.run(self.store.put_back(job_id, attempt)) == expected
        if expected:
            self.wait(self.run(self.store.get(job_id)), first=True)

    @rule()
    def lose_engine(self):
        for job_id in self.model.in_state("running"):
            self.put_back(job_id, self.model.attempt(job_id))

    @rule(job_id=job_ids, attempt=attempts, outcome=outcomes)
    def finish(self, job_id, attempt, outcome):
        expected = self.model.change(job_id, {"running"}, outcome.status, attempt=attempt, outcome=outcome)
        assert self.run(self.store.finish(job_id, attempt, outcome)) == expected
        self.leave(job_id)

    @rule(outcome=outcomes)
    def fall_idle(self, outcome):
        self.begin_next(len(self.queue))
        for job_id in self.model.in_state("running"):
            self.finish(job_id, self.model.attempt(job_id), outcome)

    @rule(job_id=job_ids, outcome=outcomes)
    def fail_queued(self, job_id, outcome):
        expected = self.model.change(job_id, {"queued"}, outcome.status, outcome=outcome)
        assert self.run(self.store.fail_queued(job_id, outcome)) == expected
        self.leave(job_id)

    @rule(job_id=job_ids, engine_s=st.floats(0, 9))
    def cancel(self, job_id, engine_s):
        outcome = lost("cancelled", at=5.0, engine_s=engine_s)
        self.model.change(job_id, {"queued", "running"}, "cancelled", outcome=outcome)
        record = self.run(self.store.cancel(job_id, 5.0, FAILURE, engine_s))
        assert (record is not None) == (job_id in self.model.jobs)
        assert record is None or (record.status, record.outcome) == (
            self.model.jobs[job_id][1],
            self.model.jobs[job_id][3],
        )
        self.leave(job_id)

    @rule(job_id=job_ids)
    def revive(self, job_id):
        expected = self.model.change(job_id, {"dead"}, "queued", count=0)
        if expected:
            self.model.crashes[job_id] = 0
        revived = self.run(self.store.revive(job_id))
        assert (revived is not None) == expected
        if revived is not None:
            self.wait(revived)

    @rule(files=st.floats(1, 9), num_bytes=st.integers(0, 30), jobs=st.floats(1, 5))
    def expire(self, files, num_bytes, jobs):
        with_files = self.run(self.store.ids_with_files())
        self.run(self.store.expire(files_before=files, keep_bytes=num_bytes, jobs_before=jobs))
        given_up = with_files - self.run(self.store.ids_with_files())
        assert given_up == self.model.expire(files, num_bytes, jobs)

    @rule()
    def restart(self):
        self.run(self.store.close())
        self.store = self.run(JobStore.open(self.folder))
        dead_before = self.model.in_state("dead")
        self.model.recover(Outcome(status="cancelled", finished_at=6.0, failure=RESTARTED))
        found = self.run(self.store.recover(6.0))
        recovered = [record for record in found if not record.is_over]
        assert [record.id for record in recovered] == self.model.in_state("queued")
        assert {record.id for record in found[len(recovered) :]} == set(self.model.in_state("dead")) - set(dead_before)
        self.queue, self.fair = FairQueue(), NaiveQueue()
        for record in recovered:
            self.wait(record)

    @rule()
    def stop_in_order(self):
        self.run(self.store.put_back_all())
        for job_id in self.model.in_state("running"):
            self.model.change(job_id, {"running"}, "queued")
        self.restart()

    @rule(job_id=job_ids)
    def crash_while_it_runs(self, job_id):
        """Often enough to see one given up."""
        while job_id in self.model.in_state("queued"):
            attempt = self.model.attempt(job_id) + 1
            self.model.change(job_id, {"queued"}, "running", count=attempt)
            assert self.run(self.store.begin(job_id, 1.0)) == attempt
            self.restart()

    def wait(self, record, *, first=False):
        """What the store told of a job goes into the queue, what the model knows of it into the other."""
        told, known = record.new, self.model.jobs[record.id][0]
        self.queue.put(told.id, key_id=told.key_id, user=told.user, work_units=told.params.work_units, first=first)
        self.fair.put(known.id, known.key_id, known.user, 0.0 if first else known.params.work_units)

    def leave(self, job_id):
        """Of a job that has ended, if it has."""
        if job_id in self.queue and job_id not in self.model.in_state("queued"):
            assert self.queue.remove(job_id)
            self.fair.remove(job_id)
        if not self.queue and not self.model.in_state("running"):
            self.queue.forgive()
            self.fair.forgive()

    @invariant()
    def the_order_is_the_fair_one_of_what_waits(self):
        order = self.queue.order()
        assert order == self.fair.order()
        assert sorted(order) == sorted(self.model.in_state("queued"))
        assert [self.queue.position(job_id) for job_id in order] == list(range(len(order)))
        assert self.queue.peek() == next(iter(order), None)

    @invariant()
    def the_store_says_what_the_model_says(self):
        records = self.run(self.store.page(JobQuery(key_id=None, limit=1000)))
        assert [
            (record.id, (record.new, record.status, record.attempt, record.outcome, record.has_files))
            for record in reversed(records)
        ] == list(self.model.jobs.items())
        assert all(record.is_over == (record.status in TERMINAL) for record in records)

    @invariant()
    def every_end_was_counted_once(self):
        day = date(1970, 1, 1)
        rows = self.run(self.store.usage(UsageQuestion(first_day=day, last_day=day, group_by=("user", "key"))))
        expected = self.model.usage()
        assert {(row.key_id, row.user) for row in rows} == expected.keys()
        assert len(rows) == len(expected)
        for row in rows:
            counts, images, work_units, engine_s, price = expected[row.key_id, row.user]
            assert Counter({status: getattr(row, status) for status in TERMINAL}) == counts
            assert (row.images, row.price) == (images, price)
            assert (row.work_units, row.engine_s) == pytest.approx((work_units, engine_s))

    def teardown(self):
        self.run(self.store.close())
        self.runner.close()
        shutil.rmtree(self.folder)


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
