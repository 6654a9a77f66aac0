"""How templates write credits, durations and sizes."""

from __future__ import annotations

from decimal import Decimal

from django import template

from newdreamflow.dreams.models import Dream
from newdreamflow.dreams.pictures import THUMBNAIL_PIXELS
from newdreamflow.dreams.styles import STYLES, picture_of

__all__ = [
    "amount",
    "model_name",
    "price",
    "register",
    "seconds",
    "style_label",
    "style_picture",
    "thumbnail_height",
    "thumbnail_width",
]

register = template.Library()


@register.filter
def amount(credits_: Decimal) -> str:
    """Two places, or up to four where they say something: 0.25, 12.50, 0.0938; the minus sign is a real one."""
    whole, _, places = f"{abs(credits_):.4f}".partition(".")
    places = places.rstrip("0").ljust(2, "0")
    sign = "−" if credits_ < 0 else ""
    return f"{sign}{int(whole):,}.{places}"


@register.filter
def price(credits_: Decimal) -> str:
    """Two places, so that a column is aligned; more only where two would be nearly nothing."""
    return f"{credits_:,.2f}" if not credits_ or credits_ >= Decimal("0.1") else amount(credits_)


@register.filter
def seconds(number: float) -> str:
    """As people say it: 3.2 s, 48 s, 4 min."""
    if number < 10:
        return f"{number:.1f} s"
    return f"{number:.0f} s" if number < 90 else f"{number / 60:.0f} min"


@register.filter
def style_label(key: str) -> str:
    """Of a style preset; of one that is not known any more, its key."""
    return STYLES[key].label if key in STYLES else key


@register.filter
def style_picture(key: str) -> str:
    """Static file that shows a style preset."""
    return picture_of(key)


@register.filter
def model_name(model: str) -> str:
    """Without the folders or the owner in front of it."""
    return model.rstrip("/").rpartition("/")[2]


@register.filter
def thumbnail_width(dream: Dream) -> int:
    """Pixels."""
    return round(dream.picture_width * _scale(dream))


@register.filter
def thumbnail_height(dream: Dream) -> int:
    """Pixels."""
    return round(dream.picture_height * _scale(dream))


def _scale(dream: Dream) -> float:
    return min(1.0, THUMBNAIL_PIXELS / max(dream.picture_width, dream.picture_height))
