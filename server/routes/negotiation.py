"""Content negotiation: the headers `Accept` (RFC 9110, section 12.5.1) and `Prefer: wait=N` (RFC 7240)."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["preferred", "preferred_wait_s"]


def preferred(accept: str | None, offers: Sequence[str]) -> str | None:
    """The offer with the highest quality, the earlier one where two are equal; None if none is acceptable.

    Args:
        accept: the header, several of them joined by commas; None or empty accepts everything.
        offers: media types without parameters, the server's favourite first.
    """
    if accept is None or not accept.strip():
        return offers[0]
    ranges = [_parsed(part) for part in accept.split(",") if part.strip()]
    qualities = [_quality(offer, ranges) for offer in offers]
    best = max(qualities)
    return offers[qualities.index(best)] if best > 0 else None


def preferred_wait_s(prefer: Sequence[str]) -> float | None:
    """Seconds that a client is willing to wait, the first that is named; None if it does not say.

    Args:
        prefer: the headers. What cannot be read is left unread, as the RFC wants it.
    """
    for preference in ",".join(prefer).split(","):
        found = re.fullmatch(r'\s*wait\s*=\s*"?(\d{1,6})"?\s*(;.*)?', preference, re.IGNORECASE)
        if found:
            return float(found[1])
    return None


def _parsed(part: str) -> tuple[str, float]:
    """Media range and quality; a quality that cannot be read counts as 0."""
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                return media_range, 0.0
            return media_range, quality if 0.0 <= quality <= 1.0 else 0.0
    return media_range, 1.0


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """What the most specific range that matches says."""
    for wanted in (offer, offer.partition("/")[0] + "/*", "*/*"):
        matching = [quality for media_range, quality in ranges if media_range == wanted]
        if matching:
            return max(matching)
    return 0.0
