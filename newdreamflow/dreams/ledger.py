"""The ledger: credits are reserved when a dream is accepted, and settled or refunded when it ends.

Every booking is one row that never changes. The entries of a dream that is done add up to minus its cost, those of any
other finished dream to nothing. What a user has left is the sum of all of theirs.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import Sum

from newdreamflow.dreams.conf import dreams_settings
from newdreamflow.dreams.models import AnyUser, Budget, Dream, LedgerEntry

__all__ = [
    "BudgetExceededError",
    "balance",
    "exact",
    "grant",
    "locked_budget",
    "price_of",
    "release",
    "reserve",
    "settle",
]

_SMALLEST = Decimal("0.0001")


class BudgetExceededError(Exception):
    """The user has less left than the dream would cost."""

    def __init__(self, wanted: Decimal, left: Decimal) -> None:
        super().__init__(f"it would cost {wanted}, and {left} is left")
        self.wanted = wanted
        self.left = left


def price_of(work_units: Decimal) -> Decimal:
    """Credits for so many work units, to four places."""
    return (work_units * dreams_settings.DREAMS_PRICE_PER_WORK_UNIT).quantize(_SMALLEST, ROUND_HALF_UP)


def exact(total: Decimal | None) -> Decimal:
    """A sum of amounts as the database gives it, without the dust of SQLite, which adds floats; None is nothing."""
    return (total or Decimal(0)).quantize(_SMALLEST, ROUND_HALF_UP)


def balance(user: AnyUser) -> Decimal:
    """Credits that a user has left. Only the first time ever it writes: a budget, with what everybody begins with."""
    _opened(user)
    return _sum(user)


def grant(*, user: AnyUser, amount: Decimal, note: str = "", submission: UUID | None = None) -> LedgerEntry:
    """Give a user credits; with the same submission again, no more."""
    _opened(user)
    given = {"user": user, "kind": LedgerEntry.Kind.GRANT, "amount": amount, "note": note[:200]}
    if submission is None:
        return LedgerEntry.objects.create(**given)
    return LedgerEntry.objects.get_or_create(submission=submission, defaults=given)[0]


def locked_budget(user: AnyUser) -> None:
    """Lock this user's ledger until the transaction ends."""
    _opened(user)
    # SQLite has no row locks and needs none: its transactions begin as writers (`transaction_mode`).
    Budget.objects.select_for_update().get(user=user)


def reserve(dream: Dream, amount: Decimal) -> None:
    """Set credits aside for a dream. Within a transaction that holds `locked_budget`.

    Raises:
        BudgetExceededError: the user has not so much left.
    """
    left = _sum(dream.user)
    if amount > left:
        raise BudgetExceededError(amount, left)
    _book(dream, LedgerEntry.Kind.RESERVE, -amount)


def settle(dream: Dream, cost: Decimal) -> None:
    """Give back what was set aside beyond the cost; or take the rest, where more was drawn than expected."""
    _book(dream, LedgerEntry.Kind.SETTLE, _reserved(dream) - cost)


def release(dream: Dream) -> None:
    """Give everything back: nothing was drawn."""
    _book(dream, LedgerEntry.Kind.RELEASE, _reserved(dream))


def _opened(user: AnyUser) -> None:
    if Budget.objects.filter(user=user).exists():
        return  # before a transaction begins, which takes SQLite's write lock: pages that only read ask too
    with transaction.atomic():
        _, is_new = Budget.objects.get_or_create(user=user)
        starting = dreams_settings.DREAMS_STARTING_BUDGET
        if is_new and starting:
            LedgerEntry.objects.create(user=user, kind=LedgerEntry.Kind.GRANT, amount=starting, note="starting credits")


def _sum(user: AnyUser) -> Decimal:
    return exact(LedgerEntry.objects.filter(user=user).aggregate(total=Sum("amount"))["total"])


def _reserved(dream: Dream) -> Decimal:
    return -LedgerEntry.objects.get(dream=dream, kind=LedgerEntry.Kind.RESERVE).amount


def _book(dream: Dream, kind: LedgerEntry.Kind, amount: Decimal) -> None:
    LedgerEntry.objects.create(user=dream.user, dream=dream, kind=kind, amount=amount)
