"""`/v1/jobs` and `/v1/queue`: pictures that are drawn while nobody holds a connection."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Body, Depends, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from engine.errors import InvalidParamsError
from server.access.caller import caller_of
from server.access.scopes import may, needs
from server.generator import JobState
from server.job_schemas import JobList, JobView, QueueView, snapshot
from server.jobs.record import JobRecord, JobStatus
from server.problems import PROBLEM_MEDIA_TYPE
from server.routes.dependencies import Service, ServiceOf
from server.routes.wishes import EXAMPLES, IDEMPOTENCY_HEADER, job_of, note, refuse_when_full, require_json
from server.schemas import GenerateRequest
from server.thumbnails import thumbnail

__all__ = ["router"]

_KEEP_ALIVE_S = 15.0
_MOST_JOBS = 100

_PROBLEM = {"content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}

_DESCRIPTIONS = {
    400: "The body is not JSON, or cannot be read",
    404: "There is no such job, or it is another key's",
    409: "The job's state does not allow it",
    410: "The pictures are not kept any more",
    413: "The body is too large",
    415: "The body is not declared as JSON",
    422: "A value breaks a rule; `errors` names field, rule and value",
    503: "The queue is full, the model cannot be served, nothing can be written, or the server is shutting down",
}


_MESSAGE = {
    "description": "One message of the stream; comments, which keep it alive, are none",
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+\\.[0-9]+$", "description": "`attempt.step`"},
        "event": {"const": "snapshot"},
        "data": {"type": "string", "contentMediaType": "application/json", "description": "The whole snapshot"},
    },
    "required": ["id", "event", "data"],
}
"""OpenAPI 3.1 has no word for a stream; readers take the schema for that of each message."""


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": _DESCRIPTIONS[status], **_PROBLEM} for status in (503, *statuses)}


router = APIRouter(tags=["jobs"])

JobId = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="As `POST /v1/jobs` gave it")]


@router.post(
    "/v1/jobs",
    status_code=202,
    summary="Ask for pictures, and go on",
    response_model=JobView,
    responses={
        200: {"description": "A repeat: this job was accepted before", "model": JobView},
        202: {"description": "Accepted, and written down", "headers": {"Location": {"schema": {"type": "string"}}}},
        **_problems(400, 413, 415, 422),
    },
    dependencies=[needs("generate"), Depends(require_json), Depends(refuse_when_full)],
    openapi_extra=IDEMPOTENCY_HEADER,
)
async def submit(
    request: Request, wish: Annotated[GenerateRequest, Body(openapi_examples=EXAMPLES)], service: ServiceOf
) -> Response:
    """Accept a job. What was answered with 202 survives the server's end, and is drawn when it is back."""
    params = wish.to_params(service.defaults)
    new = job_of(request, wish, params, output_format=wish.output_format or "png", is_bound=False)
    note(request, new, with_prompts=service.settings.log_prompts)
    state = await service.generator.submit(new)
    request.state.log["job_id"] = state.record.id
    return accepted(state, service, is_repeat=state.record.id != new.id)


def accepted(state: JobState, service: Service, *, is_repeat: bool) -> Response:
    """202 and the job, or 200 if it was accepted before."""
    view = JobView.of(state, service.settings.model_id)
    status, headers = 200 if is_repeat else 202, {"Location": view.links.self}
    return Response(view.model_dump_json(), status, headers, media_type=JSONResponse.media_type)


@router.get("/v1/jobs", summary="Your jobs, newest first", responses=_problems(422), dependencies=[needs("read")])
async def list_jobs(
    request: Request,
    service: ServiceOf,
    status: Annotated[list[JobStatus] | None, Query(description="Only these; may be repeated")] = None,
    user: Annotated[str | None, Query(max_length=64, description="Only on behalf of this user")] = None,
    limit: Annotated[int, Query(ge=1, le=_MOST_JOBS)] = 20,
    cursor: Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before")] = None,
) -> JobList:
    """A page of jobs. A page stays the same while new jobs come in before it."""
    records = await service.generator.page(
        key_id=_seen_by(request),
        user=user,
        statuses=tuple(status or ()),
        before_seq=None if cursor is None else _seq_of(cursor),
        limit=limit + 1,
    )
    views = [JobView.of(service.generator.state_of(record), service.settings.model_id) for record in records[:limit]]
    return JobList(jobs=views, next_cursor=_cursor_of(records[limit - 1].seq) if len(records) > limit else None)


@router.get("/v1/jobs/{job_id}", summary="One job", responses=_problems(404, 422), dependencies=[needs("read")])
async def show(request: Request, job_id: JobId, service: ServiceOf) -> JobView:
    """The job as it is now."""
    return JobView.of(service.generator.state_of(await _found(request, job_id, service)), service.settings.model_id)


@router.get(
    "/v1/jobs/{job_id}/images/{index}",
    summary="A finished picture",
    response_class=Response,
    responses={
        200: {
            "description": "The file",
            "content": {
                f"image/{name}": {"schema": {"type": "string", "format": "binary"}} for name in ("png", "webp", "jpeg")
            },
        },
        304: {"description": "Unchanged since the ETag that was sent"},
        **_problems(404, 409, 410, 422),
    },
    dependencies=[needs("read")],
)
async def image(
    request: Request,
    job_id: JobId,
    index: Annotated[int, Path(ge=0, le=1000)],
    service: ServiceOf,
    size: Annotated[
        Literal["full", "thumbnail"], Query(description="A thumbnail is WebP, 256 pixels at most")
    ] = "full",
) -> Response:
    """The picture's file: the same bytes each time."""
    record = await _found(request, job_id, service)
    stored, data = await service.generator.image(record, index)
    is_thumbnail = size == "thumbnail"
    etag = f'"{stored.sha256[:32]}{"-thumbnail" if is_thumbnail else ""}"'
    headers = {"ETag": etag, "Cache-Control": "private, max-age=31536000, immutable"}
    known = ",".join(request.headers.getlist("if-none-match")).split(",")
    if {"*", etag} & {tag.strip().removeprefix("W/") for tag in known}:
        return Response(status_code=304, headers=headers)
    if is_thumbnail:
        return Response(await asyncio.to_thread(thumbnail, data), media_type="image/webp", headers=headers)
    return Response(data, media_type=stored.media_type, headers=headers)


@router.get(
    "/v1/jobs/{job_id}/events",
    summary="Live progress, as server-sent events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Whole snapshots, the newest first of all; ends after the terminal one",
            "content": {"text/event-stream": {"schema": _MESSAGE}},
        },
        **_problems(404, 422),
    },
    dependencies=[needs("read")],
)
async def events(request: Request, job_id: JobId, service: ServiceOf) -> StreamingResponse:
    """Every message is a whole snapshot, so a reconnect misses nothing that still matters."""
    record = await _found(request, job_id, service)
    return StreamingResponse(
        _told(service, record),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.post(
    "/v1/jobs/{job_id}/cancel",
    summary="Cancel a job before its next step",
    responses=_problems(404, 422),
    dependencies=[needs("generate")],
)
async def cancel(request: Request, job_id: JobId, service: ServiceOf) -> JobView:
    """The job, cancelled; or unchanged if it had ended."""
    record = await service.generator.cancel(await _found(request, job_id, service))
    return JobView.of(service.generator.state_of(record), service.settings.model_id)


@router.post(
    "/v1/jobs/{job_id}/requeue",
    status_code=202,
    summary="Let a dead job be tried again",
    responses=_problems(404, 409, 422),
    dependencies=[needs("admin")],
)
async def requeue(request: Request, job_id: JobId, service: ServiceOf) -> JobView:
    """Only with the scope `admin`, or by `python -m server jobs requeue ID`."""
    record = await service.generator.requeue(await _found(request, job_id, service))
    return JobView.of(service.generator.state_of(record), service.settings.model_id)


@router.get("/v1/queue", summary="How busy is it?", responses=_problems(422), dependencies=[needs("read")])
async def queue(
    service: ServiceOf,
    num_inference_steps: Annotated[int | None, Query(description="Of the job that `eta_s` is for")] = None,
    guidance_scale: float | None = None,
    height: int | None = None,
    width: int | None = None,
    num_images: int | None = None,
) -> QueueView:
    """Depth, and when a job asked for now would be done."""
    wish = {
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "height": height,
        "width": width,
        "num_images": num_images,
    }
    params = GenerateRequest.checked({"prompt": "?", **wish}).to_params(service.defaults)
    generator = service.generator
    info = generator.executor.info
    return QueueView(
        waiting=generator.num_waiting,
        running=generator.num_running,
        max_waiting=generator.max_waiting,
        images_in_flight=generator.num_images_in_flight,
        max_images_in_flight=info.max_images_in_flight if info else None,
        eta_s=None if (eta_s := generator.eta_of_new_s(params)) is None else round(eta_s, 2),
        accepting=await generator.is_accepting(),
    )


def _seen_by(request: Request) -> str | None:
    caller = caller_of(request)
    return None if may(caller, "admin") else caller.key_id


async def _found(request: Request, job_id: str, service: Service) -> JobRecord:
    request.state.log["job_id"] = job_id
    structlog.contextvars.bind_contextvars(job_id=job_id)
    return await service.generator.find(job_id, _seen_by(request))


async def _told(service: Service, record: JobRecord) -> AsyncIterator[str]:
    async with contextlib.aclosing(service.generator.watch(record, _KEEP_ALIVE_S)) as states:
        async for state in states:
            if state is None:
                yield ": keep-alive\n\n"
            else:
                data = json.dumps(snapshot(state), separators=(",", ":"))
                yield f"id: {state.record.attempt}.{state.step}\nevent: snapshot\ndata: {data}\n\n"


def _cursor_of(seq: int) -> str:
    return base64.urlsafe_b64encode(str(seq).encode()).decode().rstrip("=")


def _seq_of(cursor: str) -> int:
    try:
        seq = int(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        seq = 0
    if not 0 < seq < 2**63:
        raise InvalidParamsError("cursor", "must be the next_cursor of a page", cursor)
    return seq
