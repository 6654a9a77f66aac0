"""How often a caller may try: counts, networks, hours."""

from __future__ import annotations

import datetime

import pytest
from django.utils import timezone

from newdreamflow.accounts import limits
from newdreamflow.accounts.models import Attempt, User
from tests.site.account_helpers import SIGN_UP

pytestmark = pytest.mark.django_db


LIMIT = limits.Limit("test", 2, datetime.timedelta(minutes=5))


def test_a_limit_holds_for_each_caller_and_says_when_it_is_over():
    limits.spend(LIMIT, "a")
    limits.spend(LIMIT, "a")
    limits.spend(LIMIT, "b")
    with pytest.raises(limits.TooOftenError) as caught:
        limits.spend(LIMIT, "a")
    assert 290 < caught.value.wait_s <= 300


def test_a_limit_forgets():
    for _ in range(2):
        limits.spend(LIMIT, "a")
    Attempt.objects.update(at=timezone.now() - datetime.timedelta(minutes=6))
    limits.spend(LIMIT, "a")
    Attempt.objects.update(at=timezone.now() - datetime.timedelta(hours=2))
    limits.spend(LIMIT, "b")
    assert Attempt.objects.count() == 1, "what no limit counts is deleted"


def test_what_is_refused_does_not_count():
    for _ in range(2):
        limits.spend(LIMIT, "a")
    for _ in range(5):
        with pytest.raises(limits.TooOftenError):
            limits.spend(LIMIT, "a")
    assert Attempt.objects.count() == 2


def test_no_network_address_is_kept(client):
    client.post("/accounts/sign-up/", SIGN_UP, REMOTE_ADDR="198.51.100.7")
    assert "198.51" not in str(list(Attempt.objects.values()))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("198.51.100.7", "198.51.100.8", False),
        ("198.51.100.7", "::ffff:198.51.100.7", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
    ],
)
def test_a_caller_is_an_address_or_the_network_that_one_customer_gets(rf, one, other, same):
    callers = [limits.caller(rf.get("/", REMOTE_ADDR=address)) for address in (one, other)]
    assert (callers[0] == callers[1]) is same


def test_ten_accounts_an_hour_are_enough_for_one_address(client):
    for number in range(10):
        client.post("/accounts/sign-up/", SIGN_UP | {"username": f"u{number}", "email": f"{number}@example.org"})
        client.logout()
    response = client.post("/accounts/sign-up/", SIGN_UP)
    assert response.status_code == 429
    assert int(response["Retry-After"]) > 3000
    assert User.objects.count() == 10
