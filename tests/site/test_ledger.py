"""Money: budgets hold when many ask at once, and the past does not change."""

from __future__ import annotations

import threading
import uuid
from decimal import Decimal

import pytest
from django.db import IntegrityError, connection, transaction

from newdreamflow.dreams import ledger, services
from newdreamflow.dreams.models import AppendOnlyError, Dream, LedgerEntry

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_user_begins_with_credits_that_are_booked_once(user, settings):
    settings.DREAMS_STARTING_BUDGET = Decimal("12.50")
    assert [ledger.balance(user) for _ in range(3)] == [Decimal("12.50")] * 3
    assert LedgerEntry.objects.count() == 1


def test_credits_can_be_given(user):
    before = ledger.balance(user)
    ledger.grant(user=user, amount=Decimal("5.25"), note="a present")
    assert ledger.balance(user) == before + Decimal("5.25")


def at_once(number, act):
    """Do it in so many threads at the same time: what each came to, an exception too."""
    outcomes = []
    barrier = threading.Barrier(number)

    def run():
        try:
            barrier.wait()
            outcomes.append(act())
        except Exception as error:  # noqa: BLE001 -- it is what is looked at
            outcomes.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return outcomes


def test_a_budget_holds_when_many_ask_at_once(user, settings):
    settings.DREAMS_STARTING_BUDGET = Decimal(10)  # five dreams at 2 credits each
    wish = services.Wish(prompt="a cat")
    outcomes = at_once(12, lambda: services.submit(user=user, wish=wish))
    accepted = [outcome for outcome in outcomes if isinstance(outcome, Dream)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, ledger.BudgetExceededError)]
    assert (len(accepted), len(refused)) == (5, 7), outcomes
    assert ledger.balance(user) == 0


def test_the_first_dreams_of_a_new_user_at_once_begin_with_one_grant(user, settings):
    settings.DREAMS_STARTING_BUDGET = Decimal(100)
    outcomes = at_once(6, lambda: services.submit(user=user, wish=services.Wish(prompt="a cat")))
    assert all(isinstance(outcome, Dream) for outcome in outcomes), outcomes
    assert LedgerEntry.objects.filter(kind="grant").count() == 1
    assert ledger.balance(user) == 88


def test_one_form_sent_many_times_at_once_is_one_dream(user):
    submission = uuid.uuid4()
    wish = services.Wish(prompt="a cat")
    outcomes = at_once(8, lambda: services.submit(user=user, wish=wish, submission=submission))
    assert {getattr(outcome, "pk", outcome) for outcome in outcomes} == {Dream.objects.get().pk}
    assert LedgerEntry.objects.filter(kind="reserve").count() == 1


def test_a_dream_is_booked_once_for_each_kind(user):
    dream = services.submit(user=user, wish=services.Wish(prompt="a cat"))
    ledger.settle(dream, Decimal(1))
    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.settle(dream, Decimal(1))


def test_entries_never_change_and_never_go(user):
    services.submit(user=user, wish=services.Wish(prompt="a cat"))
    entry = LedgerEntry.objects.filter(kind="reserve").get()
    entry.amount = Decimal(0)
    for change in (
        entry.save,
        entry.delete,
        LedgerEntry.objects.all().delete,
        lambda: LedgerEntry.objects.update(amount=0),
        lambda: LedgerEntry.objects.bulk_update([entry], ["amount"]),
    ):
        with pytest.raises(AppendOnlyError):
            change()
    assert LedgerEntry.objects.get(pk=entry.pk).amount == -2


def test_a_dream_that_cost_more_than_was_set_aside_is_paid_in_full(user):
    dream = services.submit(user=user, wish=services.Wish(prompt="a cat"))
    before = ledger.balance(user)
    ledger.settle(dream, Decimal("2.5"))
    assert ledger.balance(user) == before - Decimal("0.5")
