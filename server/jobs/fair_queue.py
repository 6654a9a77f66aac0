"""Fair queue: start-time fair queueing by work units between keys, then between a key's users. No clock, no asyncio.

After Goyal, Vin and Cheng, "Start-time Fair Queuing: A Scheduling Algorithm for Integrated Services Packet Switching
Networks" (SIGCOMM 1996), with its hierarchy of two levels. Every owner has a *start tag*: the work it was given so far,
on the scale of a *virtual time*. The smallest tag is served, and grows by the job's work units.

One thing is added. In the paper virtual time is the tag in service, and newcomers get it as their tag: an endless
stream of new owners would hold it still, and the second job of everybody else would wait for ever. Here it also moves
by the share that one more owner would have had, yet never so far that a newcomer would wait for two jobs of one other.
"""

from __future__ import annotations

import heapq
import itertools
import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import Final, Generic, TypeVar

__all__ = ["FairQueue"]

_FEW: Final = 16
"""Below this many nothing is tidied up."""


class FairQueue:
    """Ids of the jobs that wait, in fair order. Belongs to one thread.

    An owner that comes back after a pause gets no credit for it; one that had more than its part comes later, until the
    others have caught up or `forgive` is called. Within a user it is first come, first served.
    """

    def __init__(self) -> None:
        self._keys: _Level[_Key] = _Level()
        self._owners: dict[str, tuple[_Key, _User]] = {}
        """Job -> whose it is."""
        self._order: list[str] | None = None
        """What `order` found, until something is put or removed."""
        self._positions: dict[str, int] = {}
        """Job -> its place in `_order`."""
        self._num_popped = 0
        """Jobs at the beginning of `_order` that have been served since."""

    def __len__(self) -> int:
        return len(self._owners)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._owners

    @property
    def num_known_owners(self) -> int:
        """Keys and users that are remembered: those that wait, and those with a debt. For those who watch memory."""
        return len(self._keys.owners) + sum(len(key.users.owners) for key in self._keys.owners.values())

    def put(self, job_id: str, *, key_id: str, user: str | None, work_units: float, first: bool = False) -> None:
        """Let a job wait.

        Args:
            job_id: must not wait already.
            key_id: keys share equally.
            user: a key's users share its part equally; None is one of them.
            work_units: what the job costs, more than 0.
            first: ahead of all of its user's jobs that were not put so themselves, and free: a job that is tried again
                has been paid for.
        """
        if job_id in self._owners or work_units <= 0:
            raise AssertionError(f"the job {job_id} waits already, or costs nothing ({work_units} work units)")
        key = self._keys.owner(key_id, _Key)
        its_user = key.users.owner(user, _User)
        if first:
            its_user.again[job_id] = 0.0
        else:
            its_user.fresh[job_id] = work_units
        self._owners[job_id] = key, its_user
        self._has_changed(key, its_user)

    def remove(self, job_id: str) -> bool:
        """Take a job out, wherever it stands. False if it does not wait."""
        if job_id not in self._owners:
            return False
        key, user = self._owners.pop(job_id)
        (user.again if job_id in user.again else user.fresh).pop(job_id)
        self._has_changed(key, user)
        return True

    def peek(self) -> str | None:
        """The next job; None if the queue is empty."""
        head = self._keys.head()
        return None if head is None else head[0]

    def pop(self) -> str:
        """Serve the next job.

        Raises:
            IndexError: nobody waits.
        """
        key = self._keys.next_owner()
        user = key.users.next_owner()
        job_id, work_units = (user.again or user.fresh).popitem(last=False)
        key.users.charge(user, work_units)
        self._keys.charge(key, work_units)
        del self._owners[job_id]
        self._num_popped += 1
        return job_id

    def upcoming(self) -> Iterator[str]:
        """The jobs in order, found one by one. The queue must not change meanwhile."""
        head = self.peek()
        if head is not None:
            yield head  # the caller rarely asks for more
            yield from (job_id for job_id, _ in itertools.islice(self._keys.jobs(), 1, None))

    def take(self, job_id: str) -> None:
        """Serve a job, also one whose turn it is not: its owners pay for it, and wait the longer for their next.

        Raises:
            KeyError: it does not wait.
        """
        if job_id == self.peek():
            self.pop()
            return
        key, user = self._owners.pop(job_id)
        work_units = (user.again if job_id in user.again else user.fresh).pop(job_id)
        key.users.charge_early(user, work_units)
        self._keys.charge_early(key, work_units)
        self._order = None

    def forgive(self) -> None:
        """Reset all shares. For when nothing waits and nothing runs: then no owner had to wait for another."""
        if self._owners:
            raise AssertionError("debts are settled while jobs wait")
        self._keys = _Level()

    def order(self) -> list[str]:
        """All jobs in the order in which they would be served if no other came. O(n log n) after a change."""
        return self._known_order()[self._num_popped :]

    def position(self, job_id: str) -> int | None:
        """How many jobs come before this one; None if it does not wait."""
        if job_id not in self._owners:
            return None
        self._known_order()
        return self._positions[job_id] - self._num_popped

    def _known_order(self) -> list[str]:
        if self._order is None:
            self._order = [job_id for job_id, _ in self._keys.jobs()]
            self._positions = {job_id: position for position, job_id in enumerate(self._order)}
            self._num_popped = 0
        return self._order

    def _has_changed(self, key: _Key, user: _User) -> None:
        key.users.update(user)
        self._keys.update(key)
        self._order = None


class _Owner(ABC):
    """A key, or one of its users: a share of the queue."""

    start = 0.0
    """Start tag of its next job; while it has none, the finish tag of its last."""
    arrival: int | None = None
    """Settles ties: when it began to wait. None while it has no jobs."""
    limit: float | None = None
    """Where virtual time must stop for the sake of newcomers: in the middle between the tags of its next job and of the
    one after that. None while it has no jobs."""

    @abstractmethod
    def head(self) -> tuple[str, float] | None:
        """Its next job and the work units; None if it has none."""

    @abstractmethod
    def jobs(self) -> Iterator[tuple[str, float]]:
        """Its jobs in the order in which they would be served if no other came, with their work units."""


_OwnerT = TypeVar("_OwnerT", bound=_Owner)


class _Level(Generic[_OwnerT]):
    """Owners of one kind that share equally."""

    def __init__(self) -> None:
        self.owners: dict[str | None, _OwnerT] = {}
        """By name: all that wait, and the others as long as they are in debt."""
        self._waiting: list[tuple[float, int, _OwnerT]] = []
        """Heap of start tag, arrival, owner."""
        self._virtual_time = 0.0
        self._arrivals = count()
        self._limits: list[tuple[float, int, _OwnerT]] = []
        """Heap of limits, owners' earlier ones among them; the number only settles ties."""
        self._num_limits = count()
        self._tidy_owners_at = _FEW

    def owner(self, name: str | None, make: Callable[[], _OwnerT]) -> _OwnerT:
        """The owner with this name; a new one if there is none, or only one without jobs and debts."""
        known = self.owners.get(name)
        if known is None or self._is_forgettable(known):
            known = self.owners[name] = make()
        return known

    def next_owner(self) -> _OwnerT:
        """Whose turn it is."""
        return self._waiting[0][2]

    def head(self) -> tuple[str, float] | None:
        """The next job and its work units; None if none waits."""
        return self.next_owner().head() if self._waiting else None

    def jobs(self) -> Iterator[tuple[str, float]]:
        """The jobs of all owners, in order, with their work units."""
        return _merged((start, arrival, owner.jobs()) for start, arrival, owner in self._waiting)

    def update(self, owner: _OwnerT) -> None:
        """A job was put or removed: the owner begins to wait, goes on, or stops."""
        head = owner.head()
        if head is None and owner.arrival is not None:
            self._waiting.remove((owner.start, owner.arrival, owner))
            heapq.heapify(self._waiting)
            owner.arrival = owner.limit = None
        elif head is not None:
            if owner.arrival is None:
                owner.start = max(owner.start, self._virtual_time)
                owner.arrival = next(self._arrivals)
                heapq.heappush(self._waiting, (owner.start, owner.arrival, owner))
            self._limit(owner, head[1])
        self._forget()

    def charge(self, owner: _OwnerT, work_units: float) -> None:
        """The owner whose turn it is has been given its next job."""
        num_waiting = len(self._waiting)
        start, arrival, _ = heapq.heappop(self._waiting)
        owner.start = start + work_units
        head = owner.head()
        if head is None:
            owner.arrival = owner.limit = None
        else:
            heapq.heappush(self._waiting, (owner.start, arrival, owner))
            self._limit(owner, head[1])
        one_more = self._virtual_time + work_units / (num_waiting + 1)
        self._virtual_time = max(self._virtual_time, start, min(one_more, self._lowest_limit()))
        self._forget()

    def charge_early(self, owner: _OwnerT, work_units: float) -> None:
        """An owner has been given a job before its turn. Virtual time stands: whose turn it was still waits."""
        self._waiting.remove((owner.start, owner.arrival or 0, owner))
        heapq.heapify(self._waiting)
        owner.start += work_units
        head = owner.head()
        if head is None:
            owner.arrival = owner.limit = None
        else:
            heapq.heappush(self._waiting, (owner.start, owner.arrival or 0, owner))
            self._limit(owner, head[1])
        self._forget()

    def _limit(self, owner: _OwnerT, work_units: float) -> None:
        """The owner's next job costs so much."""
        owner.limit = owner.start + work_units / 2
        heapq.heappush(self._limits, (owner.limit, next(self._num_limits), owner))

    def _lowest_limit(self) -> float:
        while self._limits and self._limits[0][0] != self._limits[0][2].limit:
            heapq.heappop(self._limits)
        return self._limits[0][0] if self._limits else math.inf

    def _forget(self) -> None:
        """Forget who would come back as a newcomer (users are many, and clients choose their names), and old limits."""
        if len(self.owners) > self._tidy_owners_at:
            self.owners = {name: owner for name, owner in self.owners.items() if not self._is_forgettable(owner)}
            self._tidy_owners_at = 2 * len(self.owners) + _FEW
        if len(self._limits) > 2 * len(self._waiting) + _FEW:
            newest = {owner: (limit, number) for limit, number, owner in self._limits if limit == owner.limit}
            self._limits = [(limit, number, owner) for owner, (limit, number) in newest.items()]
            heapq.heapify(self._limits)

    def _is_forgettable(self, owner: _OwnerT) -> bool:
        return owner.arrival is None and owner.start <= self._virtual_time


class _User(_Owner):
    """One of a key's users."""

    def __init__(self) -> None:
        # Ordered dictionaries: taking the first entry out of a plain one takes longer and longer.
        self.again: OrderedDict[str, float] = OrderedDict()
        """Job -> 0.0; those that are tried again."""
        self.fresh: OrderedDict[str, float] = OrderedDict()
        """Job -> work units."""

    def head(self) -> tuple[str, float] | None:
        return next(iter((self.again or self.fresh).items()), None)

    def jobs(self) -> Iterator[tuple[str, float]]:
        yield from self.again.items()
        yield from self.fresh.items()


class _Key(_Owner):
    """One key, whose users share its part."""

    def __init__(self) -> None:
        self.users: _Level[_User] = _Level()

    def head(self) -> tuple[str, float] | None:
        return self.users.head()

    def jobs(self) -> Iterator[tuple[str, float]]:
        return self.users.jobs()


def _merged(queues: Iterable[tuple[float, int, Iterator[tuple[str, float]]]]) -> Iterator[tuple[str, float]]:
    """Serve whole queues (start tag, arrival, jobs with work units) as one, the way `_Level.charge` does."""
    heap = list(queues)
    heapq.heapify(heap)
    while heap:
        start, arrival, jobs = heap[0]
        job = next(jobs, None)
        if job is None:
            heapq.heappop(heap)
        else:
            yield job
            heapq.heapreplace(heap, (start + job[1], arrival, jobs))
