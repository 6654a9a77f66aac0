"""Rate limits of the site: how often a caller may sign in, sign up and have mail sent.

A row an attempt, in the site's own database: several processes share it, it needs no other service, and it outlives a
restart. (Django's database cache would need a table of its own too, and cannot count without losing some.)
"""

from __future__ import annotations

import datetime
import ipaddress
import math
from dataclasses import dataclass
from typing import Final

from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import salted_hmac

from newdreamflow.accounts.models import Attempt

__all__ = ["MAIL_BY_CALLER", "MAIL_TO_ADDRESS", "SIGN_IN", "SIGN_UP", "Limit", "TooOftenError", "caller", "spend"]


@dataclass(frozen=True, slots=True)
class Limit:
    """So many attempts in so long a time."""

    name: str
    most: int
    within: datetime.timedelta


_HOUR: Final = datetime.timedelta(hours=1)

SIGN_IN: Final = Limit("sign-in", 100, _HOUR)
"""Beside the lock on a name (axes): against one password tried on many names."""
SIGN_UP: Final = Limit("sign-up", 10, _HOUR)
MAIL_BY_CALLER: Final = Limit("mail-by-caller", 10, _HOUR)
MAIL_TO_ADDRESS: Final = Limit("mail-to-address", 3, _HOUR)
"""Whoever asks: nobody's mailbox is filled by us."""

_LONGEST: Final = max(limit.within for limit in (SIGN_IN, SIGN_UP, MAIL_BY_CALLER, MAIL_TO_ADDRESS))


class TooOftenError(Exception):
    """The limit is reached."""

    def __init__(self, limit: Limit, wait: datetime.timedelta) -> None:
        super().__init__(f"{limit.name}: {limit.most} within {limit.within} are reached")
        self.wait_s = max(1, math.ceil(wait.total_seconds()))
        """Seconds until there is room again."""


def spend(limit: Limit, of: str) -> Attempt:
    """Count one attempt; deleting the row uncounts it. Outside of a transaction: others count what is committed only.

    Raises:
        TooOftenError: there were as many as there may be. This one is not counted.
    """
    now = timezone.now()
    Attempt.objects.filter(at__lt=now - _LONGEST).delete()
    hashed = salted_hmac("newdreamflow.accounts.limits", of, algorithm="sha256").hexdigest()
    # First written, then counted: of two at the same moment, each sees the other.
    mine = Attempt.objects.create(limit=limit.name, of=hashed, at=now)
    counted = Attempt.objects.filter(limit=limit.name, of=hashed, at__gt=now - limit.within)
    if counted.count() <= limit.most:
        return mine
    mine.delete()
    oldest = counted.order_by("at").values_list("at", flat=True).first() or now
    raise TooOftenError(limit, oldest + limit.within - now)


def caller(request: HttpRequest) -> str:
    """Whom attempts are counted for: an address, and of IPv6 the network that one customer gets.

    Behind a trusted proxy `REMOTE_ADDR` is the caller's by now (`config/proxy.py`); no header is read here.
    """
    text = str(request.META.get("REMOTE_ADDR", ""))
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped or ipaddress.IPv6Network((address, 64), strict=False))
