"""What the site says when something does not work: words for the people who dream, never a stack trace."""

from __future__ import annotations

from typing import Final

__all__ = ["GIVEN_UP", "LOST", "PAINTER_BUSY", "PAINTER_RESTS", "in_a_moment", "of_failure"]

PAINTER_RESTS: Final = "The painter is resting."
PAINTER_BUSY: Final = "The painter has very much to do."
GIVEN_UP: Final = "The painter could not be reached for so long that we gave up. Nothing was charged."
LOST: Final = "The painter has lost it again and again. Nothing was charged."

_FAILURES: Final = {
    "does_not_fit": "The picture is too large for the painter's canvas. Try a smaller size.",
    "not_finite": "The painter lost the thread. Try another seed or other words.",
    "invalid_request": "The painter cannot draw it like this.",
    "job_dead": "The painter tried three times and gave up. Try another seed or a smaller size.",
    "cancelled": "It was cancelled at the painter's.",
}


def in_a_moment(trouble: str, pause_s: float) -> str:
    """What holds a dream up, and when it goes on."""
    seconds = max(1, round(pause_s))
    return f"{trouble} We try again in {seconds} s."


def of_failure(code: str, detail: str = "") -> str:
    """Why a dream failed."""
    words = _FAILURES.get(code, "The painter could not draw it.")
    return f"{words} ({detail})" if detail and code == "invalid_request" else words
