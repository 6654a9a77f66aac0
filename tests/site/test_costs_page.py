"""The costs page: what is left, by day and dream, and every entry for a spreadsheet."""

from __future__ import annotations

import csv
import datetime
import io
from decimal import Decimal

import pytest
from django.utils import timezone

from newdreamflow.dreams import account_statement, ledger, services
from newdreamflow.dreams.models import Dream, LedgerEntry
from newdreamflow.dreams.templatetags.dreams_words import amount, seconds
from tests.site.dreaming import done, failed, many_done, waiting
from tests.site.test_dream_pages import visible_text

pytestmark = pytest.mark.django_db

PRICE = Decimal("0.03125").quantize(Decimal("0.0001"), "ROUND_HALF_UP")
"""Of the dreams of these tests: 28 guided steps at 64x64, at 2 credits a work unit."""


@pytest.fixture
def signed_in(client, user):
    client.force_login(user)
    return client


def days(user, number=None):
    page = account_statement.lines_of(user, number)
    return account_statement.days_of(user, page)


def days_ago(dream, number):
    """As if everything about a dream had been written down so many days ago."""
    then = timezone.now() - datetime.timedelta(days=number)
    # The ledger itself refuses to change.
    super(type(LedgerEntry.objects.all()), LedgerEntry.objects.filter(dream=dream)).update(created_at=then)


def test_totals_say_where_the_credits_are(user):
    for _ in range(3):
        done(user)
    failed(user)
    waiting(user)
    totals = account_statement.totals_of(user)
    assert (totals.left, totals.set_aside, totals.spent, totals.num_drawn) == (100 - 4 * PRICE, PRICE, 3 * PRICE, 3)
    assert totals.left + totals.set_aside + totals.spent == 100


def test_a_user_without_dreams_has_what_they_were_given(signed_in, user):
    totals = account_statement.totals_of(user)
    assert (totals.left, totals.set_aside, totals.spent, totals.num_drawn) == (100, 0, 0, 0)
    assert "Credits given: starting credits +100.00" in visible_text(signed_in.get("/costs/"))


def test_each_day_tells_its_dreams_what_they_cost_and_what_was_left(user):
    old, new, lost = done(user, "old"), done(user, "new"), failed(user)
    days_ago(old, 2)
    today, before = days(user)
    assert [(line.dream, line.amount) for line in today.lines] == [(lost, 0), (new, -PRICE), (None, 100)]
    assert (today.spent, today.left) == (PRICE, 100 - 2 * PRICE)
    assert [(line.dream, line.amount) for line in before.lines] == [(old, -PRICE)]
    assert (before.spent, before.left) == (PRICE, -PRICE)


def test_a_dream_that_ends_on_another_day_is_told_on_both(user):
    dream = waiting(user)
    days_ago(dream, 1)
    Dream.objects.filter(pk=dream.pk).update(status="cancelled", finished_at=timezone.now())
    ledger.release(dream)
    today, yesterday = days(user)
    assert (today.lines[0].dream, today.lines[0].amount) == (dream, PRICE)
    assert [(line.dream, line.amount) for line in yesterday.lines] == [(dream, -PRICE)]


def test_the_sums_of_a_day_are_of_the_whole_day_on_every_page(user):
    for _ in range(account_statement.LINES_A_PAGE + 10):
        done(user)
    [first], [second] = days(user, "1"), days(user, "2")
    assert (len(first.lines), len(second.lines)) == (account_statement.LINES_A_PAGE, 11)
    assert (first.spent, first.left) == (second.spent, second.left) == (60 * PRICE, 100 - 60 * PRICE)


def test_the_page_shows_all_of_it_in_words(signed_in, user):
    done(user, "a cat on a mat")
    waiting(user, "a dog to come")
    services.delete(dream=done(user, "a deleted secret"))
    ledger.grant(user=user, amount=Decimal(5), note="for your patience")
    response = signed_in.get("/costs/")
    text = visible_text(response)
    for words in (
        "a cat on a mat done −0.0313",
        "a dog to come set aside −0.0313",
        "A dream that you deleted done −0.0313",
        "Credits given: for your patience +5.00",
        "Left 104.9061",
        "512 × 512 2.00 52",
    ):
        assert words in text, words
    assert "secret" not in text


def test_another_users_ledger_is_not_there(signed_in, other_user):
    done(other_user, "not mine")
    ledger.grant(user=other_user, amount=Decimal(7), note="theirs")
    for path in ("/costs/", "/costs/?format=csv", "/costs/?page=2"):
        text = signed_in.get(path).content.decode()
        assert "not mine" not in text
        assert "theirs" not in text


def test_costs_are_for_those_who_have_signed_in(client):
    for path in ("/costs/", "/costs/?format=csv"):
        assert client.get(path).status_code == 302


def test_the_spreadsheet_has_every_entry_and_what_was_left(signed_in, user):
    dream, gone = done(user, 'a "cat", on a mat'), done(user, "gone")
    services.delete(dream=gone)
    response = signed_in.get("/costs/?format=csv")
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"].startswith('attachment; filename="newdreamflow-')
    rows = list(csv.DictReader(io.StringIO(response.content.decode())))
    assert [row["kind"] for row in rows] == ["grant", "reserve", "settle", "reserve", "settle"]
    assert [row["prompt"] for row in rows] == ["", dream.prompt, dream.prompt, "(deleted)", "(deleted)"]
    assert rows[1]["dream"] == str(dream.uuid)
    assert Decimal(rows[-1]["left"]) == ledger.balance(user)
    assert sum(Decimal(row["credits"]) for row in rows) == ledger.balance(user)
    assert all(datetime.datetime.fromisoformat(row["time"]).tzinfo for row in rows)


@pytest.mark.parametrize("prompt", ["=cmd|'/c calc'!A1", "+1", "-1", "@SUM(A1)"])
def test_no_prompt_is_a_formula_in_a_spreadsheet(signed_in, user, prompt):
    done(user, prompt)
    rows = list(csv.reader(io.StringIO(signed_in.get("/costs/?format=csv").content.decode())))
    assert rows[-1][3] == f"'{prompt}"


def test_no_note_is_a_formula_either(signed_in, user):
    ledger.grant(user=user, amount=Decimal(1), note="=1+1")
    rows = list(csv.DictReader(io.StringIO(signed_in.get("/costs/?format=csv").content.decode())))
    assert rows[-1]["note"] == "'=1+1"


def test_500_dreams_are_bounded_in_queries_and_length(signed_in, user, django_assert_max_num_queries):
    ledger.balance(user)
    made = many_done(user, 500)
    LedgerEntry.objects.bulk_create(
        LedgerEntry(user=user, dream=dream, kind=kind, amount=amount)
        for dream in made
        for kind, amount in (("reserve", -PRICE), ("settle", 0))
    )
    for path in ("/costs/", "/costs/?page=7"):
        with django_assert_max_num_queries(16):
            response = signed_in.get(path)
        assert response.content.decode().count("<tr>") <= account_statement.LINES_A_PAGE + 20
    with django_assert_max_num_queries(4):
        assert len(signed_in.get("/costs/?format=csv").content.splitlines()) == 1002


def test_without_a_price_everything_can_be_afforded(signed_in, settings):
    settings.DREAMS_PRICE_PER_WORK_UNIT = Decimal(0)
    assert "512 × 512 0.00 –" in visible_text(signed_in.get("/costs/"))


@pytest.mark.parametrize(
    ("credits_", "written"),
    [
        ("0.25", "0.25"),
        ("12.5", "12.50"),
        ("0.0938", "0.0938"),
        ("-0.1", "−0.10"),
        ("0", "0.00"),
        ("1234", "1,234.00"),
    ],
)
def test_amounts_are_written_with_as_many_places_as_say_something(credits_, written):
    assert amount(Decimal(credits_)) == written


@pytest.mark.parametrize(("number", "written"), [(3.21, "3.2 s"), (48.4, "48 s"), (240, "4 min")])
def test_durations_are_written_as_people_say_them(number, written):
    assert seconds(number) == written
