"""Limits of keys: never more than allowed, all that is allowed, and a true time to come back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.access.rate_limits import KeyLimits, MovingWindow
from server.errors import RateLimitedError


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def limits(clock, *, requests=0, work_units=0, jobs=0):
    return KeyLimits(requests_per_minute=requests, work_units_per_hour=work_units, jobs=jobs, clock=clock)


def accept(limits, work_units=1.0, *, key_id="k", num_jobs=0, is_kept=True):
    """Accept a job, or find that it was accepted before."""
    with limits.reserved(key_id, work_units, num_jobs=num_jobs, next_end_s=lambda: 7.25) as reservation:
        if is_kept:
            reservation.keep()


def seconds_refused(act):
    """How long a refused act asks its caller to wait."""
    with pytest.raises(RateLimitedError) as refused:
        act()
    return refused.value.retry_after_s


# --- the window -------------------------------------------------------------------------------------------------------

moments = st.tuples(st.sampled_from([0.0, 0.5, 1.0, 9.5, 10.0, 25.0]), st.integers(1, 4), st.booleans())


@given(st.lists(moments, max_size=60), st.integers(1, 8))
def test_a_window_admits_whatever_a_list_of_all_that_was_taken_would(acts, limit):
    clock = Clock()
    window = MovingWindow(limit, 10, clock)
    taken = []
    for pause, amount, is_given_back in acts:
        clock.now += pause
        in_window = sum(size for at, size in taken if at + 10 > clock.now)
        fits = in_window + amount <= limit
        wait_s = window.seconds_until("a", amount)
        assert window.take("a", amount) == fits
        assert (wait_s == 0) == fits
        assert window.left("a") == limit - in_window - amount * fits
        if fits and is_given_back:
            window.give_back("a", amount)
        elif fits:
            taken.append((clock.now, amount))
        elif amount <= limit:
            # As soon as it says, and not a moment sooner.
            still_counts = sum(size for at, size in taken if at + 10 > clock.now + wait_s)
            assert still_counts + amount <= limit
            just_before = sum(size for at, size in taken if at + 10 > clock.now + wait_s - 0.25)
            assert just_before + amount > limit
        else:
            assert math.isinf(wait_s)


def test_a_window_forgets_names_of_which_nothing_counts_any_more():
    """
    Keys come and go for years; what they took would stay in memory.
    """
    clock = Clock()
    window = MovingWindow(3, 10, clock)
    for index in range(100):
        clock.now += 1
        assert window.take(f"key {index}")
        assert window.take("always there")
        assert window.left("seen, but without anything taken") == 3
        if index % 5:
            window.give_back("always there", 1)
    assert len(window) <= 11
    clock.now += 10
    assert window.take("another")
    assert len(window) == 1


def test_in_no_minute_wherever_it_begins_is_more_admitted_than_allowed():
    """
    A fixed window would admit 20 around its border.
    """
    clock = Clock()
    allowed = limits(clock, requests=10)
    admitted = []
    for _ in range(2000):
        clock.now += 0.1
        try:
            allowed.requests.take("k")
        except RateLimitedError:
            continue
        admitted.append(clock.now)
    most = max(sum(begin <= at < begin + 60 for at in admitted) for begin in admitted)
    assert most == 10
    assert len(admitted) == 40  # in 200 s: all that is allowed


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_refused_request_is_told_a_true_time_to_come_back():
    clock = Clock()
    allowed = limits(clock, requests=3)
    for pause in (0, 10, 5):
        clock.now += pause
        allowed.requests.take("k")
    wait_s = seconds_refused(lambda: allowed.requests.take("k"))
    assert wait_s == 45
    clock.now += wait_s - 0.001
    assert seconds_refused(lambda: allowed.requests.take("k")) == pytest.approx(0.001)
    clock.now += 0.001
    allowed.requests.take("k")
    assert seconds_refused(lambda: allowed.requests.take("k")) == pytest.approx(10)  # the next one's minute


def test_one_keys_requests_are_not_anothers_and_whoever_has_no_key_is_not_limited():
    allowed = limits(Clock(), requests=1)
    allowed.requests.take("a")
    allowed.requests.take("b")
    with pytest.raises(RateLimitedError, match="at most 1 requests per minute per key; the next is possible in 60 s"):
        allowed.requests.take("a")


def test_zero_is_no_limit_and_tells_nothing():
    allowed = limits(Clock())
    for _ in range(100):
        allowed.requests.take("k")
        accept(allowed, 1e6, num_jobs=1000)
    assert not allowed.requests.headers("k")


def test_the_headers_tell_what_is_left_and_for_how_long():
    clock = Clock()
    allowed = limits(clock, requests=3)
    assert allowed.requests.headers("k") == {
        "RateLimit": '"requests";r=3;t=60',
        "RateLimit-Policy": '"requests";q=3;w=60',
    }
    allowed.requests.take("k")
    clock.now += 12.5
    allowed.requests.take("k")
    assert allowed.requests.headers("k")["RateLimit"] == '"requests";r=1;t=48'
    allowed.requests.take("k")
    assert allowed.requests.headers("k")["RateLimit"] == '"requests";r=0;t=48'


# --- work units -------------------------------------------------------------------------------------------------------


def test_work_units_are_counted_as_they_are_and_the_time_to_come_back_is_when_enough_of_them_are_free():
    clock = Clock()
    allowed = limits(clock, work_units=2)
    accept(allowed, 0.25)
    clock.now += 100
    accept(allowed, 1.5)
    with pytest.raises(RateLimitedError) as refused:
        accept(allowed, 0.5)
    assert refused.value.retry_after_s == pytest.approx(3500)  # the first alone is enough
    assert refused.value.headers["RateLimit"] == '"work-units";r=0;t=3500'
    assert refused.value.headers["RateLimit-Policy"] == '"work-units";q=2;w=3600;qu="work-units"'
    assert seconds_refused(lambda: accept(allowed, 1.0)) == pytest.approx(3600)  # the second must go too
    accept(allowed, 0.25)
    clock.now += 3499.99
    assert seconds_refused(lambda: accept(allowed, 0.25)) == pytest.approx(0.01)
    clock.now += 0.01
    accept(allowed, 0.25)


def test_a_job_that_costs_more_than_the_limit_is_not_told_to_come_back():
    allowed = limits(Clock(), work_units=2)
    with pytest.raises(
        RateLimitedError, match=r"at most 2 work units per hour per key, and this request alone costs 2\.5"
    ) as no:
        accept(allowed, 2.5)
    assert no.value.retry_after_s is None


def test_what_was_not_accepted_costs_nothing():
    allowed = limits(Clock(), work_units=1)
    for _ in range(5):
        accept(allowed, 1.0, is_kept=False)

    class FullDiskError(Exception):
        pass

    with pytest.raises(FullDiskError), allowed.reserved("k", 1.0, num_jobs=0, next_end_s=lambda: 1.0):
        raise FullDiskError
    accept(allowed, 1.0)
    with pytest.raises(RateLimitedError):
        accept(allowed, 0.001)


def test_a_key_with_too_many_jobs_is_told_when_one_of_them_should_end():
    allowed = limits(Clock(), jobs=3)
    accept(allowed, num_jobs=2)
    with pytest.raises(RateLimitedError, match="one of them should end in 8 s") as refused:
        accept(allowed, num_jobs=3)
    assert refused.value.retry_after_s == 7.25
    assert refused.value.headers["RateLimit-Policy"] == '"jobs";q=3;qu="concurrent-requests"'
