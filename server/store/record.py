"""Job records: what is stored of a job: caller, parameters, attempts, outcome. No asyncio, no SQL.

A job's life: `queued -> running -> done | failed | cancelled | dead`. A lost attempt goes from `running` back to
`queued`. Terminal states never change, except that an operator may bring a `dead` job back.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import Final, Literal, NamedTuple

import msgspec

from engine.params import GenerationParams
from server.picture_info.file_info import ImageMetadata

__all__ = [
    "LOCAL_KEY",
    "MAX_ATTEMPTS",
    "TERMINAL",
    "Failure",
    "JobQuery",
    "JobRecord",
    "JobStatus",
    "NewJob",
    "Outcome",
    "StoredImage",
    "Timings",
]

JobStatus = Literal["queued", "running", "done", "failed", "cancelled", "dead"]

TERMINAL: Final[frozenset[JobStatus]] = frozenset({"done", "failed", "cancelled", "dead"})

LOCAL_KEY: Final = "local"
"""Key id of whoever asks a server that has no keys."""


MAX_ATTEMPTS: Final = 3
"""A job is given up when so many of its attempts have lost their engine, or so many have ended with the whole server:
it may be the reason. The last one is made alone.
"""


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
    image_metadata: ImageMetadata = "full"
    output_quality: int | None = None
    """Of a JPEG or WebP file, 0 to 100; None: the encoder's own."""
    engine_class: str | None = None
    """The class of engine that must draw it; None: any."""
    is_bound: bool
    """Whether it lives only as long as the connection that asked: a restart cancels it."""
    idempotency_key: str | None
    """Unique for each `key_id` as long as the job is kept."""
    request_digest: bytes
    """SHA-256 of the validated request, before a seed was drawn: what `idempotency_key` must be reused with."""
    created_at: float
    """Unix seconds."""


class Picture(NamedTuple):
    """A finished picture, as a file."""

    seed: int
    media_type: str
    data: bytes


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
    is_interrupted: bool = False
    """Whether its caller ended it, or some of its pictures, early: it is done with what there was, and charged for the
    steps that were taken."""
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
    engine_class: str = ""
    """Of the engine that drew it; empty unless `done`, and where it is not known."""


class JobQuery(_Record, frozen=True, kw_only=True):
    """Which jobs are asked for, newest first."""

    key_id: str | None
    """Whose; None: everybody's, for the operator."""
    user: str | None = None
    """Of that key; None: all of them."""
    statuses: Collection[JobStatus] = ()
    """Only these; none: all."""
    before_seq: int | None = None
    """Only jobs accepted before that one: the `seq` of the page before's last."""
    limit: int
    """How many at most."""


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
    """Attempts whose engine was lost. Those that ended with the server do not count."""
    crashes: int
    """Attempts during which the server itself ended without an orderly stop."""
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
    def is_last_attempt(self) -> bool:
        """Whether the attempt that runs, or comes next, is the last one; such a job runs alone."""
        return max(self.losses, self.crashes) + 1 >= MAX_ATTEMPTS

    @property
    def is_over(self) -> bool:
        """Whether its state is terminal."""
        return self.status in TERMINAL
