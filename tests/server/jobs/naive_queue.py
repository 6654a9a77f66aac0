"""What should the fair queue do? Its rules once more, in plain words and by linear search, to compare it with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from types import EllipsisType

Job = tuple[str, str, str | None, float]
"""Id, key, user, work units; 0 of those that are tried again."""


class NaiveLevel:
    """One level; nobody is ever forgotten."""

    def __init__(self) -> None:
        self.virtual_time = 0.0
        self.starts: dict[str | None, float] = defaultdict(float)
        self.since: dict[str | None, int] = {}
        self.num_arrivals = 0

    def update(self, name: str | None, *, has_jobs: bool) -> None:
        if has_jobs and name not in self.since:
            self.starts[name] = max(self.starts[name], self.virtual_time)
            self.since[name] = self.num_arrivals
            self.num_arrivals += 1
        elif not has_jobs:
            self.since.pop(name, None)

    def next(self) -> str | None:
        return min(self.since, key=lambda name: (self.starts[name], self.since[name]))

    def charge(self, name: str | None, units: float, head_of: Callable[[str | None], float | None]) -> None:
        start, waiting = self.starts[name], len(self.since)
        self.starts[name] += units
        self.update(name, has_jobs=head_of(name) is not None)
        limits = [self.starts[other] + (head_of(other) or 0.0) / 2 for other in self.since]
        fluid = self.virtual_time + units / (waiting + 1)
        self.virtual_time = max(self.virtual_time, start, min([fluid, *limits]))


class NaiveQueue:
    """What `FairQueue` should do."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.keys = NaiveLevel()
        self.users: dict[str, NaiveLevel] = {}

    def of(self, key: str, user: str | EllipsisType | None = ...) -> list[Job]:
        jobs = [job for job in self.jobs if job[1] == key and user in (..., job[2])]
        return sorted(jobs, key=lambda job: job[3] > 0)  # those that are tried again first

    def put(self, job_id: str, key: str, user: str | None, units: float) -> None:
        if key not in self.keys.since and self.keys.starts[key] <= self.keys.virtual_time:
            self.users[key] = NaiveLevel()  # a key without jobs and debts starts anew
        self.jobs.append((job_id, key, user, units))
        self.changed(key, user)

    def changed(self, key: str, user: str | None) -> None:
        self.users[key].update(user, has_jobs=bool(self.of(key, user)))
        self.keys.update(key, has_jobs=bool(self.of(key)))

    def remove(self, job_id: str) -> None:
        job = next(job for job in self.jobs if job[0] == job_id)
        self.jobs.remove(job)
        self.changed(job[1], job[2])

    def user_head(self, key: str, user: str | None) -> float | None:
        return next((job[3] for job in self.of(key, user)), None)

    def key_head(self, key: str) -> float | None:
        return self.user_head(key, self.users[key].next()) if self.of(key) else None

    def pop(self) -> str:
        key = self.keys.next()
        user = self.users[key].next()
        job = self.of(key, user)[0]
        self.jobs.remove(job)
        self.users[key].charge(user, job[3], lambda name: self.user_head(key, name))
        self.keys.charge(key, job[3], self.key_head)
        return job[0]

    def forgive(self) -> None:
        self.keys = NaiveLevel()

    def order(self) -> list[str]:
        copy = deepcopy(self)
        return [copy.pop() for _ in copy.jobs[:]]
