"""How much a key may ask for, and how often an address may fail to authenticate. Knows nothing of HTTP's messages.

Moving windows: in no minute, wherever it begins, is more admitted than allowed. A fixed window would admit twice as
much around its border. What is refused takes nothing, so all that is allowed can be had.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.strategies import MovingWindowRateLimiter

from server.access.moving_window import MovingWindows
from server.errors import RateLimitedError
from server.jobs.record import LOCAL_KEY

__all__ = ["FailedAttempts", "KeyLimits", "Reservation"]

_PER_WORK_UNIT: Final = 1000
"""The library counts in whole numbers: thousandths of a work unit."""
_IPV6_SITE_BITS: Final = 64
"""One customer of an IPv6 provider has at least so large a network to choose addresses from."""


class _Limit:
    """So much in so long, for each name; 0 is no limit."""

    def __init__(self, policy: str, item: RateLimitItem, told: str, clock: Callable[[], float], scale: int = 1) -> None:
        """Begin with nothing taken.

        Args:
            policy: its name in the `RateLimit` headers.
            item: how much in how long, in scaled amounts.
            told: the limit in words, after "at most".
            clock: seconds.
            scale: amounts for each unit that is told.
        """
        self._policy = policy
        self._item = item
        self._told = told
        self._scale = scale
        self._windows = MovingWindows(clock)
        self._limiter = MovingWindowRateLimiter(self._windows)

    def __len__(self) -> int:
        return len(self._windows)

    def check(self, name: str, amount: int = 1) -> None:
        """Refuse, if there is not so much left.

        Raises:
            RateLimitedError: with the seconds until there is.
        """
        if self._item.amount and not self._limiter.test(self._item, name, cost=amount):
            raise self._refusal(name, amount)

    def take(self, name: str, amount: int = 1) -> None:
        """Take so much.

        Raises:
            RateLimitedError: there is not so much left; nothing was taken.
        """
        if self._item.amount and not self._limiter.hit(self._item, name, cost=amount):
            raise self._refusal(name, amount)

    def give_back(self, name: str, amount: int) -> None:
        """Undo what was just taken."""
        self._windows.give_back(self._item.key_for(name), amount)

    def headers(self, name: str) -> dict[str, str]:
        """What is left, as draft-ietf-httpapi-ratelimit-headers-11 writes it; empty where there is no limit."""
        if not self._item.amount:
            return {}
        left = self._limiter.get_window_stats(self._item, name).remaining
        key, size, window_s = self._address(name)
        # Nobody can have more within the time until the oldest that was taken counts no more.
        wait_s = self._windows.seconds_until(key, size, window_s, min(left + 1, size)) or window_s
        unit = "" if self._scale == 1 else f';qu="{self._policy}"'
        return {
            "RateLimit": f'"{self._policy}";r={left // self._scale};t={math.ceil(wait_s)}',
            "RateLimit-Policy": f'"{self._policy}";q={size // self._scale};w={window_s}{unit}',
        }

    def _refusal(self, name: str, amount: int) -> RateLimitedError:
        wait_s = self._windows.seconds_until(*self._address(name), amount)
        if math.isinf(wait_s):
            detail = f"at most {self._told}, and this alone takes {amount / self._scale:g}"
            return RateLimitedError(detail, limit=self._policy, headers=self.headers(name))
        detail = f"at most {self._told}; the next is possible in {max(1, math.ceil(wait_s))} s"
        return RateLimitedError(detail, limit=self._policy, headers=self.headers(name), retry_after_s=wait_s)

    def _address(self, name: str) -> tuple[str, int, int]:
        return self._item.key_for(name), self._item.amount, self._item.get_expiry()


class KeyLimits:
    """What each API key may ask for. Belongs to the event loop's thread.

    Whoever has no key is not limited: a program on this machine, the operator.
    """

    def __init__(
        self,
        *,
        requests_per_minute: int,
        work_units_per_hour: int,
        jobs: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing taken. For each limit, 0 is none.

        Args:
            requests_per_minute: of every kind.
            work_units_per_hour: of jobs, when they are accepted.
            jobs: that wait or run at the same time.
            clock: seconds.
        """
        told = f"{requests_per_minute} requests a minute for each key"
        self._requests = _Limit("requests", RateLimitItemPerMinute(requests_per_minute), told, clock)
        told = f"{work_units_per_hour} work units an hour for each key"
        item = RateLimitItemPerHour(work_units_per_hour * _PER_WORK_UNIT)
        self._work_units = _Limit("work-units", item, told, clock, _PER_WORK_UNIT)
        self._max_jobs = jobs
        self._num_reserved: Counter[str] = Counter()
        """Key id -> its jobs that are being written to the store right now."""

    def take_request(self, key_id: str) -> None:
        """Count a request.

        Raises:
            RateLimitedError: there were as many as may be.
        """
        if key_id != LOCAL_KEY:
            self._requests.take(key_id)

    def headers(self, key_id: str) -> Mapping[str, str]:
        """The `RateLimit` headers for an answer to a key: how many requests are left."""
        return {} if key_id == LOCAL_KEY else self._requests.headers(key_id)

    @contextlib.contextmanager
    def reserved(
        self, key_id: str, work_units: float, *, num_jobs: int, next_end_s: Callable[[], float]
    ) -> Iterator[Reservation]:
        """Hold a place for a job while it is being written down. What is not kept is given back.

        Args:
            key_id: whose job.
            work_units: what it costs.
            num_jobs: the key's jobs that wait or run.
            next_end_s: tells the seconds until one of them will have ended.

        Raises:
            RateLimitedError: the key has as many jobs as may be, or too little left.
        """
        if key_id == LOCAL_KEY:
            yield Reservation()
            return
        self._check_jobs(num_jobs + self._num_reserved[key_id], next_end_s)
        amount = math.ceil(work_units * _PER_WORK_UNIT)
        self._work_units.take(key_id, amount)
        one = Counter([key_id])
        self._num_reserved += one
        reservation = Reservation()
        try:
            yield reservation
        finally:
            self._num_reserved -= one
            if not reservation.is_kept:
                self._work_units.give_back(key_id, amount)

    def _check_jobs(self, num_jobs: int, next_end_s: Callable[[], float]) -> None:
        if not self._max_jobs or num_jobs < self._max_jobs:
            return
        wait_s = next_end_s()
        raise RateLimitedError(
            f"at most {self._max_jobs} jobs of a key wait or run at the same time; "
            f"one of them should end in {max(1, math.ceil(wait_s))} s",
            limit="jobs",
            retry_after_s=wait_s,
            headers={
                "RateLimit": '"jobs";r=0',
                "RateLimit-Policy": f'"jobs";q={self._max_jobs};qu="concurrent-requests"',
            },
        )


class Reservation:
    """A place that is held for a job; see `KeyLimits.reserved`."""

    def __init__(self) -> None:
        self.is_kept = False

    def keep(self) -> None:
        """The job was accepted: what it costs stays taken."""
        self.is_kept = True


class FailedAttempts:
    """How often each address has failed to authenticate of late. Belongs to the event loop's thread.

    Addresses are counted as networks that one customer has: an IPv4 address, or 64 bits of an IPv6 one.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with none.

        Args:
            per_minute: failures of each address in any minute; 0 is no limit.
            clock: seconds.
        """
        told = f"{per_minute} failed authentications a minute for each address"
        self._limit = _Limit("failed-authentications", RateLimitItemPerMinute(per_minute), told, clock)

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._limit)

    def check(self, address: str) -> None:
        """Refuse an address, before its key is looked at.

        Raises:
            RateLimitedError: it has failed as often as may be.
        """
        self._limit.check(_network(address))

    def count(self, address: str) -> None:
        """An attempt from this address has failed."""
        with contextlib.suppress(RateLimitedError):  # as many as count do already
            self._limit.take(_network(address))


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address  # the path of a socket
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> (128 - _IPV6_SITE_BITS):x}/{_IPV6_SITE_BITS}"
