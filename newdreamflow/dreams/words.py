"""Error messages for users: what is wrong with a dream, and what they can do. Never a traceback."""

from __future__ import annotations

from typing import Final

__all__ = ["GIVEN_UP", "INPUT_LOST", "LOST", "SERVER_BUSY", "SERVER_UNREACHABLE", "in_a_moment", "of_failure"]

SERVER_UNREACHABLE: Final = "The GPU server cannot be reached."
SERVER_BUSY: Final = "The GPU server is very busy."
GIVEN_UP: Final = "The GPU server could not be reached for too long, so this dream was given up. Nothing was charged."
LOST: Final = "The GPU server lost this dream several times, so it was given up. Nothing was charged."
INPUT_LOST: Final = "The picture that this dream was to be drawn over is gone. Nothing was charged."

_FAILURES: Final = {
    "does_not_fit": "The picture is too large for the GPU’s memory. Try a smaller size.",
    "not_finite": "The model produced no usable picture. Try another seed or other words.",
    "invalid_request": "The GPU server rejected these settings.",
    "job_dead": "The GPU server tried three times and gave up. Try another seed or a smaller size.",
    "cancelled": "It was cancelled on the GPU server.",
}


def in_a_moment(trouble: str, pause_s: float) -> str:
    """What holds a dream up, and when it goes on."""
    seconds = max(1, round(pause_s))
    return f"{trouble} We try again in {seconds} s."


def of_failure(code: str, detail: str = "") -> str:
    """Why a dream failed."""
    words = _FAILURES.get(code, "The GPU server could not draw it.")
    return f"{words} ({detail})" if detail and code == "invalid_request" else words
