"""The price of a job in money. Exact decimals: a sum of prices is the same in every order."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

__all__ = ["NANO", "price_of", "written"]

NANO: Final = Decimal("1e-9")
"""Prices are whole multiples of this; the smallest picture of a cheap server still costs something."""


def price_of(work_units: float, price_per_work_unit: Decimal) -> Decimal:
    """The price of one job, rounded to the nearest `NANO`."""
    return (Decimal(work_units) * price_per_work_unit).quantize(NANO, ROUND_HALF_EVEN)


def written(price: Decimal) -> str:
    """As people and JSON write it: `0.0125`, `100`, `0`; never with an exponent."""
    return f"{price.normalize():f}"
