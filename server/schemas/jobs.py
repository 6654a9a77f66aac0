"""The JSON of jobs: responses of `/v1/jobs` and `/v1/queue`, and the snapshots of `/events`."""

from __future__ import annotations

import base64
import dataclasses
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from server.jobs.job_state import JobState
from server.store.price import written
from server.store.record import JobRecord, JobStatus

__all__ = ["JobList", "JobView", "QueueView", "snapshot"]


class _View(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class JobInput(_View):
    """A picture that came with the request."""

    sha256: str
    """Of its pixels: equal for equal pictures."""
    width: int
    height: int


class JobMask(_View):
    """Which part is changed."""

    image: JobInput
    invert: bool
    blur: int
    area: str
    padding: int
    content: str


class JobExpand(_View):
    """Pixels by which the picture grows."""

    left: int
    top: int
    right: int
    bottom: int
    blur: int


class JobHires(_View):
    """The second leg, at a larger size."""

    width: int
    height: int
    steps: int
    strength: float
    upscaler: str
    prompt: str | None
    negative_prompt: str | None
    sampler: str | None
    noise_schedule: str | None
    guidance_scale: float | None


class JobTexts(_View):
    """What the dynamic prompts of one picture have become."""

    prompt: str
    negative_prompt: str
    hires_prompt: str | None
    hires_negative_prompt: str | None


class JobParams(_View):
    """Everything needed to draw the same pictures again."""

    prompt: str
    negative_prompt: str
    prompt_syntax: str
    emphasis: str
    clip_skip: int
    chosen_texts: list[JobTexts] | None
    """For each picture, what its dynamic prompts have become; null where there are none."""
    num_inference_steps: int
    guidance_scale: float
    guidance_rescale: float
    guidance_start: float
    guidance_end: float
    height: int
    width: int
    seed: int
    num_images: int
    sampler: str
    noise_schedule: str
    eta: float | None
    size_ids: list[int] | None
    """The sizes that Stable Diffusion XL was given for the picture; null: its own size."""
    output_format: str
    image: JobInput | None
    """What is drawn over; null for text alone."""
    strength: float
    resize: str
    mask: JobMask | None
    expand: JobExpand | None
    variation_seed: int | None
    variation_strength: float
    hires: JobHires | None
    upscaler: str | None
    """What enlarges `image` without drawing; null where something is drawn."""


class JobImage(_View):
    """A finished picture."""

    seed: int
    url: str
    thumbnail_url: str
    media_type: str
    bytes: int


class JobError(_View):
    """Why there are no pictures."""

    code: str
    detail: str


class JobTimings(_View):
    """Time spent, in seconds."""

    queue_s: float
    encode_s: float
    denoise_s: float
    decode_s: float
    file_s: float


class JobCost(_View):
    """What a job has cost."""

    engine_s: float
    """Seconds that the engine spent on it."""
    work_units: float
    """Work units charged; 0 unless the job is done."""
    price: str
    """Price of the work units when the job ended: an exact decimal number."""


class JobLinks(_View):
    """Related URLs."""

    self: str
    events: str
    cancel: str


class JobView(_View):
    """A job as callers see it."""

    id: str
    status: JobStatus
    """`queued` and `running` may change; `done`, `failed`, `cancelled` and `dead` are final."""
    attempt: int
    """Number of attempts so far."""
    step: int
    """Model calls taken so far, all pictures together."""
    steps: int
    queue_position: int | None
    """0 is next; null unless queued."""
    eta_s: float | None
    """Seconds until it is done; null if unknown or ended."""
    work_units: float
    """Cost of the job; 28 guided steps at 512x512 are 1.0."""
    created_at: str
    """RFC 3339, UTC."""
    started_at: str | None
    finished_at: str | None
    user: str | None
    model: str
    params: JobParams
    images: list[JobImage]
    """In the order of their seeds; empty until `done`."""
    expired: bool
    """Whether its pictures were deleted after it was done."""
    error: JobError | None
    timings: JobTimings | None
    cost: JobCost | None
    """null until the job has ended."""
    engine_class: str | None
    """Of the engine that drew it: the same request gives the same bytes on every engine of the class. null where it is
    not known, and until `done`."""
    prompt_truncated: bool | None
    """Whether the text encoder could not read all of the prompt; null until that is known."""
    links: JobLinks

    @classmethod
    def of(cls, state: JobState, model_id: str) -> JobView:
        """The JSON view of a job's state."""
        record = state.record
        new, params, outcome = record.new, record.new.params, record.outcome
        path = f"/v1/jobs/{record.id}"
        return cls(
            id=record.id,
            status=record.status,
            attempt=record.attempt,
            step=state.step,
            steps=state.steps,
            queue_position=state.queue_position,
            eta_s=_rounded(state.eta_s),
            work_units=round(params.work_units, 6),
            created_at=_timestamp(new.created_at),
            started_at=None if record.started_at is None else _timestamp(record.started_at),
            finished_at=None if outcome is None else _timestamp(outcome.finished_at),
            user=new.user,
            model=params.model or model_id,
            params=JobParams(**dataclasses.asdict(params), output_format=new.output_format),
            images=_images(record),
            expired=record.status == "done" and not record.has_files,
            error=_error(record),
            timings=None
            if outcome is None or outcome.timings is None
            else JobTimings(
                **{name: round(getattr(outcome.timings, name), 4) for name in JobTimings.model_fields},
            ),
            cost=None
            if outcome is None
            else JobCost(
                engine_s=round(outcome.engine_s, 4),
                work_units=round(outcome.work_units, 6),
                price=written(outcome.price),
            ),
            engine_class=None if outcome is None else outcome.engine_class or None,
            prompt_truncated=outcome.truncated_tokens > 0 if outcome is not None and record.status == "done" else None,
            links=JobLinks(self=path, events=f"{path}/events", cancel=f"{path}/cancel"),
        )


class JobList(_View):
    """A page of jobs, newest first."""

    jobs: list[JobView]
    next_cursor: str | None
    """For the page after this one; null on the last."""


class QueueView(_View):
    """Queue status."""

    waiting: int
    running: int
    max_waiting: int
    images_in_flight: int
    max_images_in_flight: int | None
    eta_s: float | None
    """Seconds until a job submitted now would be done; null while unknown."""
    accepting: bool
    """Whether a job submitted now would be accepted."""


def snapshot(state: JobState) -> dict[str, Any]:
    """What an event stream says of a job: always the whole of it, but for what was asked."""
    record = state.record
    fields: dict[str, Any] = {
        "job_id": record.id,
        "status": record.status,
        "attempt": record.attempt,
        "step": state.step,
        "steps": state.steps,
        "queue_position": state.queue_position,
        "eta_s": _rounded(state.eta_s),
    }
    if state.preview is not None and not record.is_over:
        data = base64.b64encode(state.preview.data).decode()
        fields["preview"] = f"data:{state.preview.media_type};base64,{data}"
    if record.status == "done":
        fields["images"] = [image.model_dump() for image in _images(record)]
    error = _error(record)
    if error is not None:
        fields["error"] = error.model_dump()
    return fields


def _images(record: JobRecord) -> list[JobImage]:
    if record.outcome is None or not record.has_files:
        return []
    return [
        JobImage(
            seed=image.seed,
            url=f"/v1/jobs/{record.id}/images/{index}",
            thumbnail_url=f"/v1/jobs/{record.id}/images/{index}?size=thumbnail",
            media_type=image.media_type,
            bytes=image.num_bytes,
        )
        for index, image in enumerate(record.outcome.images)
    ]


def _error(record: JobRecord) -> JobError | None:
    failure = record.outcome.failure if record.outcome else None
    return None if failure is None else JobError(code=failure.code, detail=failure.detail)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)


def _timestamp(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
