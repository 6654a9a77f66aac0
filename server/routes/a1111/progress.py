"""How far the caller's calls are, and ending them: `progress`, `interrupt`, `skip`, and the page's own `/internal`."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from pydantic import BaseModel, ConfigDict

from server.access.caller import caller_of
from server.access.scopes import needs
from server.jobs.job_state import JobState
from server.routes.a1111.sessions import Call
from server.routes.compat.door import DOOR, CompatRoute
from server.routes.dependencies import Service, ServiceOf
from server.routes.responses import problems

__all__ = ["router"]

router = APIRouter(route_class=CompatRoute, tags=["AUTOMATIC1111"], dependencies=DOOR)

_MOST = 0.99
"""Some programs take 1.0 for the end."""


@router.get(
    "/sdapi/v1/progress",
    summary="Progress of this key's newest call",
    responses=problems(503),
    dependencies=[needs("read")],
)
async def progress(
    request: Request, service: ServiceOf, *, skip_current_image: Annotated[bool, Query()] = False
) -> dict[str, Any]:
    """Of the newest call of this key that waits for pictures; idle is exactly 0."""
    calls = _calls_of(request, service)
    found = _state_of(calls[-1], service) if calls else None
    if found is None:
        return {"progress": 0.0, "eta_relative": 0.0, "state": _state(), "current_image": None, "textinfo": None}
    call, state = calls[-1], found
    return {
        "progress": _share(state),
        "eta_relative": state.eta_s or 0.0,
        "state": _state(call, state, is_skipping=_is_skipping(call, service)),
        "current_image": None if skip_current_image else _preview(state),
        "textinfo": _textinfo(state, service),
    }


class TaskRequest(BaseModel):
    """Which task is asked for."""

    model_config = ConfigDict(extra="ignore")

    id_task: str = ""
    id_live_preview: int = -1
    live_preview: bool = True


@router.post(
    "/internal/progress",
    summary="Progress of a task",
    responses=problems(503, 400, 413, 415, 422),
    dependencies=[needs("generate")],
)
async def internal_progress(
    request: Request, body: Annotated[TaskRequest, Body()], service: ServiceOf
) -> dict[str, Any]:
    """Of the call that was sent with this `force_task_id`."""
    calls = [call for call in _calls_of(request, service) if call.task_id == body.id_task]
    state = _state_of(calls[-1], service) if calls else None
    is_queued = state is not None and state.queue_position is not None
    preview = _preview(state) if state is not None and body.live_preview else None
    is_new = preview is not None and state is not None and state.step != body.id_live_preview
    return {
        "active": state is not None and not is_queued,
        "queued": is_queued,
        "completed": state is None,
        "progress": None if state is None else _share(state),
        "eta": None if state is None else state.eta_s,
        "live_preview": f"data:image/png;base64,{preview}" if is_new else None,
        "id_live_preview": state.step if is_new and state is not None else body.id_live_preview,
        "textinfo": "In queue..." if is_queued else None,
    }


@router.get(
    "/internal/pending-tasks", summary="Tasks of this key", responses=problems(503), dependencies=[needs("read")]
)
async def pending_tasks(request: Request, service: ServiceOf) -> dict[str, Any]:
    """The names of this key's calls that wait for pictures."""
    tasks = [call.task_id or call.job_id for call in _calls_of(request, service)]
    return {"size": len(tasks), "tasks": tasks}


@router.post(
    "/sdapi/v1/interrupt",
    summary="End this key's calls with what there is",
    responses=problems(503),
    dependencies=[needs("generate")],
)
async def interrupt(request: Request, service: ServiceOf) -> dict[str, Any]:
    """Each waiting call is answered with its pictures as far as they are, one at least. Other keys' calls go on."""
    for call in _calls_of(request, service):
        call.is_interrupted = True
        service.generator.interrupt(call.job_id)
    return {}


@router.post(
    "/sdapi/v1/skip",
    summary="End this key's present batch with what there is",
    responses=problems(503),
    dependencies=[needs("generate")],
)
async def skip(request: Request, service: ServiceOf) -> None:
    """The pictures of the batch that is drawn now are answered as far as they are; those of `n_iter` after it go on."""
    for call in _calls_of(request, service):
        service.generator.skip(call.job_id, call.batch_size)


def _calls_of(request: Request, service: Service) -> list[Call]:
    return service.a1111.of(caller_of(request).key_id).calls


def _state_of(call: Call, service: Service) -> JobState | None:
    live = service.generator.dispatcher.live.get(call.job_id)
    return None if live is None else service.generator.states.of(live.record)


def _is_skipping(call: Call, service: Service) -> bool:
    live = service.generator.dispatcher.live.get(call.job_id)
    return live is not None and live.is_skipping


def _share(state: JobState) -> float:
    return min(_MOST, state.step / state.steps)


def _preview(state: JobState) -> str | None:
    return None if state.preview is None else base64.b64encode(state.preview.data).decode()


def _textinfo(state: JobState, service: Service) -> str | None:
    if state.queue_position is None:
        return None
    return f"In queue: {state.queue_position + 1}/{service.generator.dispatcher.num_waiting}"


def _state(call: Call | None = None, state: JobState | None = None, *, is_skipping: bool = False) -> dict[str, Any]:
    """A1111's `shared.state`; without a call, of one that idles."""
    if call is None or state is None:
        job, steps, step, batches, at = "", 0, 0, 0, 0
    else:
        params = state.record.new.params
        job, steps, batches = "txt2img" if params.image is None else "img2img", params.progress_steps, call.num_batches
        step, at = state.step % max(1, steps), min(batches - 1, state.step * batches // max(1, state.steps))
    return {
        "skipped": is_skipping,
        "interrupted": call is not None and call.is_interrupted,
        "stopping_generation": False,
        "job": job,
        "job_count": batches,
        "job_timestamp": "0" if call is None else call.timestamp,
        "job_no": at,
        "sampling_step": step,
        "sampling_steps": steps,
    }
