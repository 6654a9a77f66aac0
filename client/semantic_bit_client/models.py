"""Records of the server's answers. Their fields are the ones that the client relies on; it ignores any others.

How they are read from JSON is in `decoding.py`.
"""

from __future__ import annotations

import builtins
import os
import secrets
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal

__all__ = [
    "Cost",
    "Engine",
    "Failure",
    "GeneratorInfo",
    "Health",
    "ImageInfo",
    "InputPicture",
    "JobCounts",
    "JobState",
    "JobStatus",
    "Model",
    "Params",
    "Picture",
    "PictureInfo",
    "Progress",
    "Queue",
    "Sampler",
    "Timings",
    "Usage",
    "UsageDay",
    "UsageSum",
]

JobStatus = Literal["queued", "running", "done", "failed", "cancelled", "dead"]
"""`queued` and `running` change; the others never do."""

_TERMINAL: Final = frozenset({"done", "failed", "cancelled", "dead"})


@dataclass(frozen=True, slots=True)
class Timings:
    """Time spent, in seconds."""

    queue_s: float
    encode_s: float
    denoise_s: float
    decode_s: float
    file_s: float

    @property
    def total_s(self) -> float:
        """Waiting and drawing together."""
        return self.queue_s + self.encode_s + self.denoise_s + self.decode_s + self.file_s


@dataclass(frozen=True, slots=True)
class Params:
    """Everything needed to draw the same pictures again."""

    prompt: str
    negative_prompt: str
    num_inference_steps: int
    guidance_scale: float
    height: int
    width: int
    seed: int
    num_images: int
    sampler: str
    noise_schedule: str
    eta: float | None
    output_format: str


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """A finished picture, without its file."""

    seed: int
    media_type: str
    bytes: int
    """Of the file."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there are no pictures."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What a job has cost."""

    engine_s: float
    """Seconds that the engine spent on it."""
    work_units: float
    """Work units charged; 0 unless the job is done."""
    price: Decimal
    """Of those, as it was when the job ended."""


@dataclass(frozen=True, slots=True)
class JobState:
    """A job at one moment."""

    id: str
    status: JobStatus
    attempt: int
    """Number of attempts so far."""
    step: int
    """Model calls taken so far, all pictures together."""
    steps: int
    queue_position: int | None
    """0 is next; None unless queued."""
    eta_s: float | None
    """Seconds until it is done; None if unknown, or over."""
    work_units: float
    """What it costs, all pictures together; 28 guided steps at 512x512 are 1.0."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    user: str | None
    model: str
    params: Params
    images: tuple[PictureInfo, ...]
    """In the order of their seeds; empty until `done`."""
    expired: bool
    """Whether its pictures were deleted after it was done."""
    error: Failure | None
    timings: Timings | None
    prompt_truncated: bool | None
    """Whether the text encoder could not read all of the prompt; None until that is known."""
    cost: Cost | None = None
    """None until it is over, and from servers that keep no account."""
    engine_class: str | None = None
    """Of the engine that drew it: the same request gives the same bytes on every engine of the class. None until it is
    known, and from servers that do not name it."""

    @property
    def is_over(self) -> bool:
        """Whether it has ended, with pictures or without."""
        return self.status in _TERMINAL


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is."""

    job_id: str
    status: JobStatus
    attempt: int
    step: int
    """Model calls taken so far, all pictures together."""
    steps: int
    queue_position: int | None
    """0 is next; None unless queued."""
    eta_s: float | None
    """Seconds until it is done; None if unknown, or over."""
    error: Failure | None = None
    preview: bytes | None = field(default=None, repr=False)
    """A small JPEG file of what it looks like so far, now and then."""

    @property
    def is_over(self) -> bool:
        """Whether this is the last one."""
        return self.status in _TERMINAL

    @classmethod
    def of(cls, state: JobState) -> Progress:
        """The same, as far as a job's state shows it."""
        return cls(
            job_id=state.id,
            status=state.status,
            attempt=state.attempt,
            step=state.step,
            steps=state.steps,
            queue_position=state.queue_position,
            eta_s=state.eta_s,
            error=state.error,
        )


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, and how it came about."""

    bytes: builtins.bytes = field(repr=False)
    """The file."""
    media_type: str
    """Of the file: `image/png`, `image/webp` or `image/jpeg`."""
    seed: int
    """Draws the same picture again."""
    model: str
    timings: Timings | None
    """Of the whole job; None if the server does not know them any more."""
    work_units: float
    """What this picture cost; 28 guided steps at 512x512 are 1.0."""
    prompt_truncated: bool
    """Whether the text encoder could not read all of the prompt."""
    job_id: str

    def save(self, path: str | PathLike[str]) -> None:
        """Write the file, whole or not at all: what was there before stays until the new one is complete.

        Raises:
            OSError: it cannot be written.
        """
        file = Path(path).resolve()  # a link stays one
        if file.exists() and not file.is_file():
            file.write_bytes(self.bytes)  # a pipe or a device cannot be replaced
            return
        part = file.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with part.open("xb") as writing:
                writing.write(self.bytes)
                writing.flush()
                os.fsync(writing.fileno())
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class InputPicture:
    """A picture that another was drawn over."""

    sha256: str
    """Of its pixels."""
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What a picture's file says of how it was drawn."""

    parameters: str | None
    """The text in the file; None if it has none."""
    request: dict[str, Any] | None
    """`prompt` and arguments of `generate`, which draw it again; None if the file does not say."""
    inputs: dict[str, InputPicture]
    """The pictures that it was drawn over: `image`, `mask`. They are not in the file, and are needed again."""
    unknown: dict[str, str]
    """What else the text says, under its own keys."""
    digital_source_type: str | None = None
    """Where the picture comes from in IPTC's terms: `trainedAlgorithmicMedia` if a model drew it."""


@dataclass(frozen=True, slots=True)
class GeneratorInfo:
    """What draws."""

    model_id: str
    device: str
    dtype: str
    scheduler: str
    """The sampler of a request that does not say."""


@dataclass(frozen=True, slots=True)
class Engine:
    """One of the server's engines."""

    state: str
    """`ready`, `loading` (also while it cannot be reached), `failed` or `stopped`."""
    device_name: str | None
    is_remote: bool
    is_paused: bool
    """Left out for a while, because it was lost with different jobs in a row."""
    images_in_flight: int
    max_images_in_flight: int | None
    engine_class: str | None = None
    """The same request gives the same bytes on every engine of a class; None while it is not known."""


@dataclass(frozen=True, slots=True)
class Health:
    """How the server is."""

    status: Literal["loading", "healthy", "degraded", "failed", "draining"]
    reason: str | None
    """Why it is not `healthy`."""
    model_loaded: bool
    generator_info: GeneratorInfo
    uptime_s: float
    engines: tuple[Engine, ...] = ()
    """Empty from servers that do not name them."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Queue status."""

    waiting: int
    running: int
    max_waiting: int
    images_in_flight: int
    max_images_in_flight: int | None
    eta_s: float | None
    """Seconds until a job submitted now would be done; None while unknown."""
    accepting: bool
    """Whether a job submitted now would be accepted."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """One sampler."""

    name: str
    aliases: tuple[str, ...]
    noise_schedules: tuple[str, ...]
    """What `noise_schedule` may be with it."""
    is_default: bool
    is_stochastic: bool
    default_eta: float | None
    """What `eta` is if it is left out; None where it must be left out."""
    model_calls: int
    """Model calls for one picture."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that requests may name, and what they then default to."""

    id: str
    """Its name."""
    family: str
    is_default: bool
    """Whether it draws where a request names none."""
    width: int
    """Pixels."""
    height: int
    size_multiple: int
    """Width and height must be multiples of it."""
    num_inference_steps: int
    guidance_scale: float
    sampler: str
    noise_schedule: str


@dataclass(frozen=True, slots=True)
class JobCounts:
    """Jobs by how they ended."""

    done: int
    failed: int
    cancelled: int
    dead: int


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Usage."""

    jobs: JobCounts
    images: int
    work_units: float
    """Work units charged: of jobs that are done."""
    engine_s: float
    """Seconds that the engine spent on all of them."""
    price: Decimal
    """As it was when each of them ended."""


@dataclass(frozen=True, slots=True)
class UsageDay(UsageSum):
    """What was drawn on one day."""

    day: date
    """On which the jobs ended, UTC."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was drawn on the last 30 days, by this key; by all of them, where it may see all."""

    first_day: date
    last_day: date
    """Today, UTC."""
    days: tuple[UsageDay, ...]
    """Those on which a job ended, the oldest first."""
    total: UsageSum
