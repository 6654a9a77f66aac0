"""`/v1/jobs` and `/v1/queue`: submit, list, follow and cancel jobs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Body, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from server.access.caller import caller_of
from server.access.scopes import may, needs
from server.jobs.job_state import JobState
from server.routes.dependencies import Service, ServiceOf
from server.routes.idempotency import IDEMPOTENCY_HEADER
from server.routes.job_requests import EXAMPLES, job_of, note
from server.routes.responses import PICTURE_FILES, problems
from server.routes.upload_route import UploadRoute, upload_body
from server.schemas.generation import GenerateRequest
from server.schemas.jobs import JobList, JobView, QueueView, snapshot
from server.store.record import JobQuery, JobRecord, JobStatus

__all__ = ["SUBMIT_RESPONSES", "accepted", "router"]

_KEEP_ALIVE_S = 15.0
_MOST_JOBS = 100

_MESSAGE = {
    "description": "One event of the stream; keep-alive comments are not events",
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+\\.[0-9]+$", "description": "`attempt.step`"},
        "event": {"const": "snapshot"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "A snapshot of the whole job",
        },
    },
    "required": ["id", "event", "data"],
}
"""OpenAPI 3.1 has no word for a stream; readers take the schema for that of each message."""


SUBMIT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "A repeat: this job was accepted before", "model": JobView},
    202: {"description": "Accepted and stored", "headers": {"Location": {"schema": {"type": "string"}}}},
    **problems(503, 400, 413, 415, 422),
}
"""Of a route that accepts a job."""

router = APIRouter(route_class=UploadRoute, tags=["jobs"])

JobId = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="As returned by `POST /v1/jobs`")]


@router.post(
    "/v1/jobs",
    status_code=202,
    summary="Submit a job",
    response_model=JobView,
    responses=SUBMIT_RESPONSES,
    dependencies=[needs("generate")],
    openapi_extra={**IDEMPOTENCY_HEADER, **upload_body(GenerateRequest)},
)
async def submit(
    request: Request, body: Annotated[GenerateRequest, Body(openapi_examples=EXAMPLES)], service: ServiceOf
) -> Response:
    """Accept a job and return at once. An accepted job survives a restart or crash of the server."""
    params = body.to_params(service.catalogue.defaults_of(body.model))
    new = job_of(request, body, params, output_format=body.output_format or "png", is_bound=False)
    note(request, new, with_prompts=service.settings.log_prompts)
    state = await service.generator.submit(new, body.pictures)
    request.state.log["job_id"] = state.record.id
    return accepted(state, service, is_repeat=state.record.id != new.id)


def accepted(state: JobState, service: Service, *, is_repeat: bool) -> Response:
    """202 and the job, or 200 if it was accepted before."""
    view = JobView.of(state, service.settings.model_name)
    status, headers = 200 if is_repeat else 202, {"Location": view.links.self}
    return Response(view.model_dump_json(), status, headers, media_type=JSONResponse.media_type)


@router.get("/v1/jobs", summary="List jobs, newest first", responses=problems(503, 422), dependencies=[needs("read")])
async def list_jobs(
    request: Request,
    service: ServiceOf,
    status: Annotated[list[JobStatus] | None, Query(description="Only jobs with this status; may be repeated")] = None,
    user: Annotated[str | None, Query(max_length=64, description="Only jobs on behalf of this user")] = None,
    limit: Annotated[int, Query(ge=1, le=_MOST_JOBS)] = 20,
    cursor: Annotated[int | None, Query(ge=1, lt=2**63, description="`next_cursor` of the previous page")] = None,
) -> JobList:
    """A page of jobs. A page stays the same while new jobs come in before it."""
    storage = service.generator.storage
    query = JobQuery(key_id=_seen_by(request), user=user, statuses=status or (), before_seq=cursor, limit=limit + 1)
    records = await storage.ask(storage.store.page(query))
    views = [JobView.of(service.generator.states.of(record), service.settings.model_name) for record in records[:limit]]
    return JobList(jobs=views, next_cursor=str(records[limit - 1].seq) if len(records) > limit else None)


@router.get("/v1/jobs/{job_id}", summary="Show a job", responses=problems(503, 404, 422), dependencies=[needs("read")])
async def show(request: Request, job_id: JobId, service: ServiceOf) -> JobView:
    """The job's current state."""
    return JobView.of(service.generator.states.of(await _found(request, job_id, service)), service.settings.model_name)


@router.get(
    "/v1/jobs/{job_id}/images/{index}",
    summary="Fetch a picture or its thumbnail",
    response_class=Response,
    responses={
        200: {
            "description": "The file",
            "content": PICTURE_FILES,
        },
        304: {"description": "Unchanged since the ETag that was sent"},
        **problems(503, 404, 409, 410, 422),
    },
    dependencies=[needs("read")],
)
async def image(
    request: Request,
    job_id: JobId,
    index: Annotated[int, Path(ge=0, le=1000)],
    service: ServiceOf,
    size: Annotated[
        Literal["full", "thumbnail"], Query(description="A thumbnail is WebP, at most 256 pixels wide or high")
    ] = "full",
) -> Response:
    """The picture's file: the same bytes each time."""
    record = await _found(request, job_id, service)
    stored, data = await service.generator.storage.image(record, index)
    is_thumbnail = size == "thumbnail"
    etag = f'"{stored.sha256[:32]}{"-thumbnail" if is_thumbnail else ""}"'
    headers = {"ETag": etag, "Cache-Control": "private, max-age=31536000, immutable"}
    known = ",".join(request.headers.getlist("if-none-match")).split(",")
    if {"*", etag} & {tag.strip().removeprefix("W/") for tag in known}:
        return Response(status_code=304, headers=headers)
    if is_thumbnail:
        return Response(await service.thumbnails.make(data), media_type="image/webp", headers=headers)
    return Response(data, media_type=stored.media_type, headers=headers)


@router.get(
    "/v1/jobs/{job_id}/events",
    summary="Follow a job (server-sent events)",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Snapshots of the whole job, the current one first; the stream ends when the job does",
            "content": {"text/event-stream": {"schema": _MESSAGE}},
        },
        **problems(503, 404, 422),
    },
    dependencies=[needs("read")],
)
async def events(request: Request, job_id: JobId, service: ServiceOf) -> StreamingResponse:
    """Every event is a snapshot of the whole job, so nothing needs to be replayed after a reconnect."""
    record = await _found(request, job_id, service)
    return StreamingResponse(
        _event_stream(service, record),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@router.post(
    "/v1/jobs/{job_id}/cancel",
    summary="Cancel a job",
    responses=problems(503, 404, 422),
    dependencies=[needs("generate")],
)
async def cancel(request: Request, job_id: JobId, service: ServiceOf) -> JobView:
    """Cancel before the next step; a job that has ended is returned unchanged."""
    record = await service.generator.cancel(await _found(request, job_id, service))
    return JobView.of(service.generator.states.of(record), service.settings.model_name)


@router.post(
    "/v1/jobs/{job_id}/requeue",
    status_code=202,
    summary="Requeue a dead job",
    responses=problems(503, 404, 409, 422),
    dependencies=[needs("admin")],
)
async def requeue(request: Request, job_id: JobId, service: ServiceOf) -> JobView:
    """Only with the scope `admin`, or by `python -m server jobs requeue ID`."""
    record = await service.generator.requeue(await _found(request, job_id, service))
    return JobView.of(service.generator.states.of(record), service.settings.model_name)


@router.get(
    "/v1/queue",
    summary="Queue status and estimated waiting time",
    responses=problems(503, 422),
    dependencies=[needs("read")],
)
async def queue(
    service: ServiceOf,
    num_inference_steps: Annotated[
        int | None, Query(description="Steps of the job that `eta_s` is estimated for")
    ] = None,
    guidance_scale: float | None = None,
    height: int | None = None,
    width: int | None = None,
    num_images: int | None = None,
) -> QueueView:
    """Queue length, and when a job submitted now would be done."""
    query = {
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "height": height,
        "width": width,
        "num_images": num_images,
    }
    params = GenerateRequest.checked({"prompt": "?", **query}).to_params(service.defaults)
    generator = service.generator
    info = generator.executor.info
    return QueueView(
        waiting=generator.dispatcher.num_waiting,
        running=generator.dispatcher.num_running,
        max_waiting=generator.admission.max_waiting,
        images_in_flight=generator.dispatcher.num_images_in_flight,
        max_images_in_flight=info.max_images_in_flight if info else None,
        eta_s=None if (eta_s := generator.estimates.of_new_s(params)) is None else round(eta_s, 2),
        accepting=await generator.admission.is_open(),
    )


def _seen_by(request: Request) -> str | None:
    caller = caller_of(request)
    return None if may(caller, "admin") else caller.key_id


async def _found(request: Request, job_id: str, service: Service) -> JobRecord:
    request.state.log["job_id"] = job_id
    structlog.contextvars.bind_contextvars(job_id=job_id)
    return await service.generator.find(job_id, _seen_by(request))


async def _event_stream(service: Service, record: JobRecord) -> AsyncIterator[str]:
    async with contextlib.aclosing(service.generator.states.watch(record, _KEEP_ALIVE_S)) as states:
        async for state in states:
            if state is None:
                yield ": keep-alive\n\n"
            else:
                data = json.dumps(snapshot(state), separators=(",", ":"))
                yield f"id: {state.record.attempt}.{state.step}\nevent: snapshot\ndata: {data}\n\n"
