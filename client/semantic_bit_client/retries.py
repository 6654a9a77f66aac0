"""Retries and backoff: when to retry, and after what delay. No HTTP library; never waits itself."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeGuard

from semantic_bit_client.deadline import Deadline
from semantic_bit_client.errors import BadAnswer, NoConnection, RateLimited, SemanticBitError

__all__ = ["Retries", "RetryBudget", "is_passing"]

_PASSING_STATUSES: Final = frozenset({429, 502, 503, 504})

_LASTING_CODES: Final = frozenset({"engine_failed"})
"""A 503 that lasts until the server's operator has acted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often, and for how long, a request is tried again.

    Raises:
        ValueError: fewer tries than one.
    """

    attempts: int = 8
    """Tries in all, the first one included; 1 never tries again."""
    time_s: float = 60.0
    """Seconds from the first try, waiting included, after which none begins."""
    first_s: float = 0.25
    """Longest wait before the second try; each later one may be twice as long."""
    most_s: float = 8.0
    """Longest wait before any try, unless the server asks for more."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be 1 or more, not {self.attempts}")

    def backoff_s(self, failures: int, chance: Callable[[], float] = random.random) -> float:
        """Seconds to wait after so many failures: anything up to the limit, so that callers spread ("full jitter")."""
        return chance() * min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 30))


class RetryBudget:
    """The retries that one request has left, in number and in time. Belongs to the caller that makes the request."""

    def __init__(
        self,
        retries: Retries,
        deadline: Deadline,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._retries = retries
        self._deadline = deadline
        self._clock = clock
        self._chance = chance
        self._failures = 0
        self._began = clock()

    def pause_s(self, error: Exception) -> bool | float:
        """Seconds to wait before the next try, never less than the server asks for; False: do not try again.

        In the form that `stamina.retry_context` takes, which also counts the tries.
        """
        if not is_passing(error):
            return False
        self._failures += 1
        pause_s = self._retries.backoff_s(self._failures, self._chance) + (error.retry_after_s or 0.0)
        left_s = min(self._began + self._retries.time_s - self._clock(), self._deadline.rest_s)
        return pause_s if pause_s <= left_s else False


def is_passing(error: Exception) -> TypeGuard[SemanticBitError]:
    """Whether the same request may succeed a little later."""
    match error:
        case NoConnection():
            return True
        case BadAnswer():
            return error.status is None or error.status < 300
        case RateLimited(code="rate_limited", retry_after_s=None):
            return False  # more than the limit ever allows; a limit of a proxy in between has no such code
        case SemanticBitError():
            return error.status in _PASSING_STATUSES and error.code not in _LASTING_CODES
        case _:
            return False
