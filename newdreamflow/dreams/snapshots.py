"""Snapshots for a page that watches a dream: status text, numbers and URLs."""

from __future__ import annotations

import base64
from typing import TypedDict

from django.urls import reverse

from newdreamflow.dreams.gpu_server import Progress
from newdreamflow.dreams.models import Dream
from newdreamflow.dreams.watching import Sight

__all__ = ["PictureAddress", "Snapshot", "snapshot_of"]


class PictureAddress(TypedDict):
    """Where a finished picture is."""

    url: str
    thumbnail: str


class Snapshot(TypedDict):
    """A dream at one moment; always the whole of it."""

    status: str
    """`waiting`, `drawing`, `done`, `failed`, `cancelled`, or `deleted`."""
    is_finished: bool
    words: str
    """For people."""
    step: int
    """Of all pictures together; 0 while it is not known, all of them when it is done."""
    steps: int
    queue_position: int | None
    """0 is next; None unless it queues at the GPU server."""
    eta_s: float | None
    """Seconds until it is done; None if unknown, or over."""
    trouble: str
    """What holds it up, in words; empty if nothing does."""
    preview: str | None
    """A small picture of what it looks like so far, as a data URL."""
    pictures: list[PictureAddress]
    """Empty until it is done."""


def snapshot_of(sight: Sight) -> Snapshot:
    """Put into words what was seen."""
    dream, progress = sight.dream, sight.progress
    steps = dream.steps_of_each * dream.num_images
    is_there = progress is not None and dream.status == Dream.Status.DRAWING
    return {
        "status": "deleted" if dream.deleted_at else dream.status,
        "is_finished": dream.is_finished or dream.deleted_at is not None,
        "words": _words(dream, progress),
        "step": progress.step if progress and is_there else steps if dream.status == Dream.Status.DONE else 0,
        "steps": progress.steps if progress and is_there else steps,
        "queue_position": progress.queue_position if progress and is_there else None,
        "eta_s": progress.eta_s if progress and is_there else None,
        "trouble": "" if dream.is_finished else dream.trouble,
        "preview": f"data:image/jpeg;base64,{base64.b64encode(sight.preview).decode()}"
        if sight.preview and is_there
        else None,
        "pictures": _pictures(dream) if dream.status == Dream.Status.DONE and not dream.deleted_at else [],
    }


def _pictures(dream: Dream) -> list[PictureAddress]:
    return [
        {
            "url": reverse("dreams:picture", args=[dream.uuid, index]),
            "thumbnail": reverse("dreams:thumbnail", args=[dream.uuid, index]),
        }
        for index in range(dream.num_images)
    ]


def _words(dream: Dream, progress: Progress | None) -> str:
    if dream.deleted_at is not None:
        return "Deleted."
    match dream.status:
        case Dream.Status.DONE:
            return "Done."
        case Dream.Status.FAILED:
            return dream.error or "The GPU server could not draw it."
        case Dream.Status.CANCELLED:
            return "Cancelled. Nothing was charged."
    if dream.cancel_requested_at is not None:
        return "Being cancelled…"
    if dream.trouble:
        return dream.trouble
    if dream.status == Dream.Status.WAITING:
        return "Waiting for the GPU server…"
    return _words_of(progress) if progress is not None else "Sent to the GPU server."


def _words_of(progress: Progress) -> str:
    if progress.is_over:
        return "Saving the picture…"
    if progress.queue_position is not None:
        place = "Next in line" if progress.queue_position == 0 else f"{_counted(progress.queue_position)} ahead of it"
        return f"{place}{_in_about(progress.eta_s)}"
    if not progress.step:
        return f"Starting{_in_about(progress.eta_s)}"
    return f"Step {progress.step} of {progress.steps}{_in_about(progress.eta_s)}"


def _counted(dreams: int) -> str:
    return "One dream" if dreams == 1 else f"{dreams} dreams"


def _in_about(eta_s: float | None) -> str:
    if eta_s is None:
        return ""
    if eta_s < 1:
        return ", done in a moment"
    return f", done in about {eta_s:.0f} s" if eta_s < 90 else f", done in about {eta_s / 60:.0f} min"
