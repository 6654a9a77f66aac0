"""When to try again and how long to wait: the rules by themselves, without a wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from semantic_bit_client import BadAnswer, InvalidRequest, NoConnection, RateLimited, Retries, ServerFault, TookTooLong
from semantic_bit_client.calls import Reply, error_of
from semantic_bit_client.deadline import Deadline
from semantic_bit_client.retries import RetryBudget


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def always(share: float):
    return lambda: share


def test_waits_grow_to_a_limit_and_are_drawn_from_all_of_the_time_before_it():
    retries = Retries(first_s=0.5, most_s=4)
    assert [retries.backoff_s(failures, always(1.0)) for failures in range(1, 7)] == [0.5, 1, 2, 4, 4, 4]
    assert [retries.backoff_s(failures, always(0.0)) for failures in range(1, 7)] == [0] * 6
    assert retries.backoff_s(10_000, always(0.5)) == 2


def test_a_wait_is_never_shorter_than_the_server_asks():
    for share in (0.0, 0.3, 1.0):
        budget = RetryBudget(Retries(first_s=1), Deadline(), chance=always(share))
        assert budget.pause_s(RateLimited("slowly", status=429, retry_after_s=7)) == 7 + share


def test_there_is_no_try_after_the_time_is_over():
    clock = Clock()
    budget = RetryBudget(Retries(time_s=10, first_s=4, most_s=4), Deadline(), clock=clock, chance=always(1.0))
    assert budget.pause_s(NoConnection("away")) == 4
    clock.now += 5
    assert budget.pause_s(NoConnection("away")) == 4
    clock.now += 5
    assert budget.pause_s(NoConnection("away")) is False


def test_nobody_waits_for_longer_than_there_is_time():
    budget = RetryBudget(Retries(time_s=10), Deadline())
    assert budget.pause_s(RateLimited("come tomorrow", status=429, retry_after_s=86400)) is False


def test_nor_for_longer_than_the_caller_has():
    clock = Clock()
    budget = RetryBudget(Retries(first_s=2), Deadline(5, clock), clock=clock, chance=always(1.0))
    assert budget.pause_s(NoConnection("away")) == 2
    clock.now += 4
    assert budget.pause_s(NoConnection("away")) is False


def test_there_is_at_least_one_try():
    with pytest.raises(ValueError, match="attempts must be 1 or more"):
        Retries(attempts=0)


@pytest.mark.parametrize(
    ("error", "is_tried_again"),
    [
        (NoConnection("away"), True),
        (BadAnswer("no JSON", status=200), True),
        (BadAnswer("moved", status=301), False),
        (RateLimited("slowly", status=429), True),
        (RateLimited("slowly", status=429, code="rate_limited", retry_after_s=1), True),
        (RateLimited("more than an hour allows", status=429, code="rate_limited"), False),
        (error_of(Reply(502, {}, b"")), True),
        (error_of(Reply(503, {}, b"")), True),
        (error_of(Reply(504, {}, b"")), True),
        (error_of(Reply(408, {}, b"")), True),
        (ServerFault("oops", status=500), False),
        (InvalidRequest("no", status=422), False),
        (error_of(Reply(503, {"content-type": "application/problem+json"}, b'{"code": "engine_failed"}')), False),
        (TookTooLong("over"), False),
        (KeyError("ours"), False),
    ],
    ids=str,
)
def test_what_passes_is_tried_again_and_nothing_else(error, is_tried_again):
    assert (RetryBudget(Retries(), Deadline()).pause_s(error) is not False) == is_tried_again


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0", 0.0), ("-3", None), ("soon", None), ("nan", None), ("inf", None), ("", None), (None, None)],
)
def test_retry_after_is_read_with_caution(header, seconds):
    headers = {} if header is None else {"retry-after": header}
    assert error_of(Reply(503, headers, b"")).retry_after_s == seconds


@pytest.mark.parametrize("said", ["1" + "0" * 400, "1e999", '"3"', "true", "-1", "null", "[]"])
def test_a_problem_documents_retry_after_too(said):
    reply = Reply(503, {"content-type": "application/problem+json"}, f'{{"retry_after": {said}}}'.encode())
    assert error_of(reply).retry_after_s is None


def test_retry_after_may_be_a_date():
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < error_of(Reply(503, {"retry-after": then}, b"")).retry_after_s <= 30
    past = format_datetime(datetime.now(UTC) - timedelta(hours=1))
    assert error_of(Reply(503, {"retry-after": past}, b"")).retry_after_s == 0
