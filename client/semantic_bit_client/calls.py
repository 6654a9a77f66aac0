"""HTTP requests to the server and the decoding of its responses. Sends nothing itself; no HTTP library."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import re
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, Generic, NoReturn, TypeVar, cast

from semantic_bit_client.decoding import decoded, document_of
from semantic_bit_client.drawing import JobDrawing, Upscaling
from semantic_bit_client.errors import (
    BadAnswer,
    JobCancelled,
    JobDead,
    JobFailed,
    JobNotDone,
    NotSupported,
    ResultExpired,
    SemanticBitError,
    WrongValue,
    error_type,
    plain,
)
from semantic_bit_client.models import Health, ImageInfo, JobState, Model, Picture, Progress, Queue, Sampler, Usage
from semantic_bit_client.uploads import AnyPicture, form_of, picture_file

__all__ = [
    "Call",
    "Reply",
    "cancel",
    "error_of",
    "events",
    "fail_unless_done",
    "health",
    "image_info",
    "is_stream",
    "models",
    "new_key",
    "picture",
    "progress_of",
    "queue",
    "samplers",
    "show",
    "submit",
    "upscale",
    "usage",
]

_T = TypeVar("_T")

_PROBLEM: Final = "application/problem+json"
_STREAM: Final = "text/event-stream"
_JOB_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PICTURES: Final = frozenset({"image", "mask"})
_KEY: Final = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that has arrived whole."""

    status: int
    headers: Mapping[str, str]
    """By names in small letters."""
    content: bytes = field(repr=False)

    @property
    def media_type(self) -> str:
        """Of the content, without parameters."""
        return _media_type(self.headers.get("content-type", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[_T]):
    """One request, and how to read its answer."""

    method: str
    path: str
    read: Callable[[Reply], _T]
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    statuses: frozenset[int] = frozenset({200})
    """Of answers that `read` understands."""
    job_id: str | None = None
    """The job that it is about."""
    silence_s: float | None = None
    """Seconds that the next piece of the answer may take; None: as long as any answer may."""

    def understand(self, reply: Reply) -> _T:
        """What the answer says.

        Raises:
            SemanticBitError: it says no, or nothing that could be understood.
        """
        try:
            if reply.status not in self.statuses or reply.media_type == _PROBLEM:
                raise self._refusal(reply)
            try:
                return self.read(reply)
            except BadAnswer as error:
                # A page that a proxy shows with an error status is that error, not a bad success.
                raise (error if reply.status < 400 else self._refusal(reply)) from None
        except SemanticBitError as error:
            error.job_id = error.job_id or self.job_id
            error.status = error.status or reply.status
            raise

    def _refusal(self, reply: Reply) -> SemanticBitError:
        error = error_of(reply)
        if isinstance(error, NotSupported):
            return NotSupported(
                f"the server does not offer {self.method} {self.path}", code=error.code, request_id=error.request_id
            )
        return error


def new_key() -> str:
    """An idempotency key for one call and its repeats."""
    return str(uuid.uuid4())


def submit(
    prompt: str, drawing: Mapping[str, object], idempotency_key: str | None, kind: type = JobDrawing
) -> Call[JobState]:
    """Ask for a job. With the same key and request it is the same job, however often it is asked for.

    Args:
        prompt: what to draw.
        drawing: see `JobDrawing`.
        idempotency_key: None makes one for this call.
        kind: the arguments that there are.

    Raises:
        TypeError: `drawing` has a name that `kind` does not know, or a picture that is none.
        ValueError: the key is not valid, or a picture is empty.
        OSError: a picture cannot be read.
    """
    return _job_call("/v1/jobs", {"prompt": prompt, **drawing}, idempotency_key, {"prompt", *kind.__annotations__})


def upscale(image: AnyPicture, upscaling: Mapping[str, object], idempotency_key: str | None) -> Call[JobState]:
    """Ask for a picture to be enlarged, as a job. Raises what `submit` raises."""
    known = {"image", *Upscaling.__annotations__}
    return _job_call("/v1/upscale", {"image": image, **upscaling}, idempotency_key, known)


def image_info(image: AnyPicture) -> Call[ImageInfo]:
    """Ask how a picture was drawn. Raises what `submit` raises of pictures."""
    headers = {"Content-Type": "image/png"}  # or another: the server looks at the file
    return Call(
        method="POST", path="/v1/image-info", headers=headers, body=picture_file(image), read=_record(ImageInfo)
    )


def _job_call(
    path: str, wish: Mapping[str, object], idempotency_key: str | None, known: Collection[str]
) -> Call[JobState]:
    for name in wish.keys() - known:
        raise TypeError(f"unknown argument {name!r}; known are {', '.join(sorted(known))}")
    key = new_key() if idempotency_key is None else idempotency_key
    if not _KEY.fullmatch(key):
        raise ValueError("idempotency_key must be 1 to 255 printable ASCII characters without spaces")
    said = {name: value for name, value in wish.items() if value is not None}
    files = {name: picture_file(cast(AnyPicture, said.pop(name))) for name in sorted(_PICTURES & said.keys())}
    media_type, body = form_of(said, files) if files else ("application/json", json.dumps(said).encode())
    return Call(
        method="POST",
        path=path,
        headers={"Content-Type": media_type, "Idempotency-Key": key},
        body=body,
        statuses=frozenset({200, 202}),
        read=_record(JobState),
    )


def show(job_id: str) -> Call[JobState]:
    """Ask how a job is.

    Raises:
        ValueError: that is not a job id.
    """
    return Call(method="GET", path=_job_path(job_id), read=_record(JobState), job_id=job_id)


def cancel(job_id: str) -> Call[JobState]:
    """Cancel a job. One that has ended stays as it is, so a repeat does no harm."""
    path = f"{_job_path(job_id)}/cancel"
    return Call(method="POST", path=path, headers={"Idempotency-Key": new_key()}, read=_record(JobState), job_id=job_id)


def picture(state: JobState, index: int) -> Call[Picture]:
    """Fetch a finished picture of a job that is done."""
    info = state.images[index]

    def read(reply: Reply) -> Picture:
        if reply.media_type != info.media_type or len(reply.content) != info.bytes:
            raise BadAnswer(
                f"the picture should be {info.bytes} bytes of {info.media_type}, "
                f"not {len(reply.content)} of {reply.media_type or 'no type'}"
            )
        return Picture(
            bytes=reply.content,
            media_type=info.media_type,
            seed=info.seed,
            model=state.model,
            timings=state.timings,
            work_units=state.work_units / len(state.images),
            prompt_truncated=bool(state.prompt_truncated),
            job_id=state.id,
        )

    path = f"{_job_path(state.id)}/images/{index}"
    return Call(method="GET", path=path, headers={"Accept": info.media_type}, read=read, job_id=state.id)


def health() -> Call[Health]:
    """Ask how the server is; an answer even where it is bad."""
    return Call(method="GET", path="/health", statuses=frozenset({200, 503}), read=_record(Health))


def queue(drawing: Mapping[str, int | float | None]) -> Call[Queue]:
    """Ask how busy the server is, and when such a drawing would be done."""
    query = {name: str(value) for name, value in drawing.items() if value is not None}
    return Call(method="GET", path="/v1/queue", query=query, read=_record(Queue))


def samplers(num_inference_steps: int | None) -> Call[tuple[Sampler, ...]]:
    """Ask for the samplers."""

    def read(reply: Reply) -> tuple[Sampler, ...]:
        return decoded(tuple[Sampler, ...], document_of(reply.content).get("samplers"), "samplers")

    query = {} if num_inference_steps is None else {"num_inference_steps": str(num_inference_steps)}
    return Call(method="GET", path="/v1/samplers", query=query, read=read)


def models() -> Call[tuple[Model, ...]]:
    """Ask for the models."""

    def read(reply: Reply) -> tuple[Model, ...]:
        found = decoded(tuple[Model, ...], document_of(reply.content).get("data"), "data")
        # After the default model itself, further entries with its values are names for OpenAI's clients alone.
        return tuple(model for index, model in enumerate(found) if index == 0 or not model.is_default)

    return Call(method="GET", path="/v1/models", read=read)


def usage() -> Call[Usage]:
    """Ask what has been drawn, day by day, and what it cost."""
    ours = {"from": "first_day", "to": "last_day", "rows": "days"}

    def read(reply: Reply) -> Usage:
        document = document_of(reply.content)
        return decoded(Usage, {ours.get(name, name): value for name, value in document.items()})

    return Call(method="GET", path="/v1/usage", query={"group_by": "day"}, read=read)


def events(job_id: str, silence_s: float) -> Call[NoReturn]:
    """Listen to a job's progress. What is to be read is a stream (`is_stream`); any answer that is whole is none.

    Args:
        job_id: of the job.
        silence_s: seconds without a word after which the stream counts as lost.
    """

    def read(reply: Reply) -> NoReturn:
        raise BadAnswer(f"the events should be {_STREAM}, not {reply.media_type or 'of no type'}")

    headers = {"Accept": _STREAM, "Cache-Control": "no-store"}
    path = f"{_job_path(job_id)}/events"
    return Call(method="GET", path=path, headers=headers, read=read, job_id=job_id, silence_s=silence_s)


def is_stream(status: int, content_type: str) -> bool:
    """Whether an answer that begins like this streams events."""
    return status == 200 and _media_type(content_type) == _STREAM


def progress_of(data: str) -> Progress:
    """What one message of that stream says.

    Raises:
        BadAnswer: nothing that could be understood.
    """
    document = document_of(data)
    preview = document.pop("preview", None)
    progress = decoded(Progress, document)
    if preview is None:
        return progress
    try:
        file = base64.b64decode(decoded(str, preview, "preview").partition(";base64,")[2], validate=True)
    except ValueError:
        file = b""
    if not file:
        raise BadAnswer("the preview is not a data URL")
    return replace(progress, preview=file)


def fail_unless_done(state: JobState) -> None:
    """Say why a job has no pictures.

    Raises:
        JobFailed: it ended without.
        JobNotDone: it has not ended.
        ResultExpired: they are not kept any more.
        BadAnswer: they are not as many as were asked for.
    """
    failure = {"failed": JobFailed, "cancelled": JobCancelled, "dead": JobDead}.get(state.status)
    if failure is not None:
        code, detail = (state.error.code, state.error.detail) if state.error else (state.status, state.status)
        raise failure(detail, code=code, job_id=state.id)
    if state.status != "done":
        raise JobNotDone(f"the job is {state.status}; only a finished one has pictures", job_id=state.id)
    if state.expired:
        raise ResultExpired("the job's pictures have expired", job_id=state.id)
    if len(state.images) != state.params.num_images:
        raise BadAnswer(f"{len(state.images)} pictures, not {state.params.num_images}", job_id=state.id)


def error_of(reply: Reply) -> SemanticBitError:
    """The error that an answer reports: by its problem document if it is one, else by its status."""
    problem = _problem(reply)
    code = _text(problem.get("code"))
    retry_after_s = _retry_after_s(problem.get("retry_after"), reply.headers.get("retry-after"))
    detail = _text(problem.get("detail")) or f"the answer was {reply.status} without a reason"
    return error_type(reply.status, code)(
        detail,
        code=code,
        status=reply.status,
        request_id=_text(problem.get("request_id")) or reply.headers.get("x-request-id"),
        retry_after_s=retry_after_s,
        wrong_values=_wrong_values(problem.get("errors")),
    )


def _problem(reply: Reply) -> dict[str, Any]:
    try:
        return document_of(reply.content) if reply.media_type == _PROBLEM else {}
    except BadAnswer:
        return {}


def _retry_after_s(of_document: object, of_header: str | None) -> float | None:
    """Seconds, the longer one where both say; a header may name a date instead."""
    said: list[float] = []
    with contextlib.suppress(BadAnswer):
        said.append(decoded(float, of_document))
    if of_header is not None:
        try:
            said.append(float(of_header))
        except ValueError:
            said += _until(of_header)
    return max((seconds for seconds in said if math.isfinite(seconds) and seconds >= 0), default=None)


def _until(date: str) -> list[float]:
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return []
    # Only `-0000` leaves a date without a zone, and it means UTC.
    aware = then if then.tzinfo else then.replace(tzinfo=UTC)
    return [max(0.0, (aware - datetime.now(UTC)).total_seconds())]


def _wrong_values(entries: object) -> tuple[WrongValue, ...]:
    try:
        wrong_values = decoded(tuple[WrongValue, ...], entries)
    except BadAnswer:
        return ()
    return tuple(replace(wrong, field=plain(wrong.field), rule=plain(wrong.rule)) for wrong in wrong_values)


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _record(kind: type[_T]) -> Callable[[Reply], _T]:
    return lambda reply: decoded(kind, document_of(reply.content))


def _job_path(job_id: str) -> str:
    if not _JOB_ID.fullmatch(job_id):
        raise ValueError(f"{job_id!r} is not a job id")
    return f"/v1/jobs/{job_id}"
