"""What is known of a job for as long as it is kept: who asked, for what, how it ended. No asyncio, no SQL.

A job's life: `queued -> running -> done | failed | cancelled | dead`. A lost attempt goes from `running` back to
`queued`. Terminal states never change, except that an operator may bring a `dead` job back.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal

import msgspec

from engine.params import GenerationParams

__all__ = ["LOCAL_KEY", "TERMINAL", "Failure", "JobRecord", "JobStatus", "NewJob", "Outcome", "StoredImage", "Timings"]

JobStatus = Literal["queued", "running", "done", "failed", "cancelled", "dead"]

TERMINAL: Final[frozenset[JobStatus]] = frozenset({"done", "failed", "cancelled", "dead"})

LOCAL_KEY: Final = "local"
"""Key id of whoever asks a server that has no keys."""


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    pass


class NewJob(_Record, frozen=True, kw_only=True):
    """A job before it is accepted."""

    id: str
    """16 hexadecimal digits."""
    key_id: str
    """Of the API key that asks; `LOCAL_KEY` without keys. Who may see the job."""
    user: str | None
    """On whose behalf, for fairness between a key's users."""
    params: GenerationParams
    """What to draw; the seed is fixed."""
    output_format: str
    """`png`, `webp` or `jpeg`."""
    is_bound: bool
    """Whether it lives only as long as the connection that asked: a restart cancels it."""
    idempotency_key: str | None
    """Unique for each `key_id` as long as the job is kept."""
    request_digest: bytes
    """SHA-256 of the validated request, before a seed was drawn: what `idempotency_key` must be reused with."""
    created_at: float
    """Unix seconds."""


class StoredImage(_Record, frozen=True, kw_only=True):
    """A finished picture, whose file lies in the results folder."""

    seed: int
    media_type: str
    num_bytes: int
    sha256: str
    """Of the file, hexadecimal; its ETag."""


class Timings(_Record, frozen=True, kw_only=True):
    """Where a finished job's time went, in seconds."""

    queue_s: float
    """From acceptance to the start of the attempt that drew it."""
    encode_s: float
    denoise_s: float
    decode_s: float
    file_s: float


class Failure(_Record, frozen=True, kw_only=True):
    """Why a job ended without pictures: the words of a problem document."""

    code: str
    detail: str


class Outcome(_Record, frozen=True, kw_only=True):
    """How an attempt ended a job."""

    status: Literal["done", "failed", "cancelled", "dead"]
    finished_at: float
    """Unix seconds."""
    images: tuple[StoredImage, ...] = ()
    """In the order of their seeds; empty unless `done`."""
    truncated_tokens: int = 0
    """Tokens of prompt and negative prompt that the text encoder could not read."""
    timings: Timings | None = None
    """None unless `done`."""
    failure: Failure | None = None
    """None if `done`."""
    engine_s: float = 0.0
    """Seconds that the engine spent on the job, all attempts that this process saw together."""
    work_units: float = 0.0
    """What is charged: the job's work units if `done`, else nothing."""
    price: Decimal = Decimal(0)
    """Of those work units, when it ended."""


class JobRecord(_Record, frozen=True, kw_only=True):
    """A job as the store knows it."""

    seq: int
    """Order of acceptance; grows from job to job and is never used again."""
    new: NewJob
    """What was asked."""
    status: JobStatus
    attempt: int
    """Times that it was begun: 0 while it has never run."""
    losses: int
    """Attempts whose engine was lost. Those that a restart of the server cut off do not count."""
    started_at: float | None
    """Unix seconds; of the latest attempt."""
    outcome: Outcome | None
    """None until a terminal state."""
    has_files: bool
    """Whether the pictures' files are still kept; false before the end, and when they have expired."""

    @property
    def id(self) -> str:
        """The job's id."""
        return self.new.id

    @property
    def is_over(self) -> bool:
        """Whether its state is terminal."""
        return self.status in TERMINAL
