"""The engine's HTTP interface, as both ends know it: paths, what `info` says, names, limits.

`POST /engine/v1/draw` takes one frame (`Submit`) and answers with frames as they come (see `messages.py`): the job's
events, `JobDone` or `JobFailed` as the last, and `Pong` whenever there was nothing else to say. Closing the connection
cancels the job before its next step. 503: no room, nothing was begun.

`POST /engine/v1/finish` takes one frame (`FinishEarly`) for a job whose stream is open: its pictures come over that.
200: the engine was asked; 404: it draws no such job.
"""

from __future__ import annotations

from typing import Final

import msgspec

from server.executors.base import ExecutorState
from server.executors.messages import EngineInfo, ModelsChanged

__all__ = [
    "ALONE",
    "DRAW",
    "FINISH",
    "FRAMES",
    "HEARTBEAT_S",
    "INFO",
    "MAX_REMOTE_FRAME_BYTES",
    "PROTOCOL",
    "EngineStatus",
]

DRAW: Final = "/engine/v1/draw"
FINISH: Final = "/engine/v1/finish"
INFO: Final = "/engine/v1/info"
ALONE: Final = "alone=1"
"""The query of a job that no other may be drawn with: its last attempt."""
FRAMES: Final = "application/x-semantic-bit-frames"
"""Media type of both bodies of `DRAW`."""
PROTOCOL: Final = 1
"""Grows when an older gateway or engine would misread a newer one. Fields may be added without that."""
HEARTBEAT_S: Final = 1.0
"""After so long without anything to say, the engine says that."""
MAX_REMOTE_FRAME_BYTES: Final = 64 * 2**20
"""A picture of 4096 x 4096 pixels, uncompressed, fits."""


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /engine/v1/info` says."""

    protocol: int = PROTOCOL
    state: ExecutorState
    failure: str | None = None
    """Why it cannot draw; None unless `failed`."""
    load_trouble: str | None = None
    info: EngineInfo | None = None
    """None until it was ready once. Its `max_images_in_flight` are the places of all devices together."""
    images_in_flight: int = 0
    is_draining: bool = False
    finishes_early: bool = False
    """Whether it knows `FINISH`."""
    models: ModelsChanged | None = None
    """Which of several are in memory; None with one model, or several devices."""
