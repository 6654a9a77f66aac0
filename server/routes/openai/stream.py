"""The Images API as server-sent events: previews while a job is drawn, then its pictures."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from engine.errors import EngineError
from server.dialects.openai import OPENAI
from server.errors import RequestTimeoutError, ServerError
from server.jobs.job_state import JobState
from server.problems import problem_of
from server.routes.dependencies import Service
from server.routes.openai.answers import size_of
from server.store.record import JobRecord

__all__ = ["events"]

_KEEP_ALIVE_S: Final = 15.0
_KEEP_ALIVE: Final = ": keep-alive\n\n"


async def events(
    service: Service, record: JobRecord, *, kind: str, num_previews: int, request_id: str
) -> AsyncIterator[str]:
    """Tell of a job until it ends. A bound job whose caller hangs up, or that takes too long, is cancelled.

    Args:
        service: what draws.
        record: an accepted job.
        kind: `image_generation` or `image_edit`: how the events' names begin.
        num_previews: previews to send, spread over the drawing; fewer if it is faster than they come.
        request_id: for the document of an error, which ends the stream.
    """
    try:
        try:
            async with asyncio.timeout(service.settings.compat_timeout):
                async for preview in _previews(service, record, num_previews):
                    yield _KEEP_ALIVE if preview is None else _event(kind, "partial_image", preview)
                drawn = await service.generator.result(record)
        except TimeoutError:
            timeout_s = service.settings.compat_timeout
            raise RequestTimeoutError(f"not finished within {timeout_s:g} s (queueing included)") from None
    except (ServerError, EngineError) as error:
        problem, _ = problem_of(error, instance="", request_id=request_id)
        yield f"data: {json.dumps(OPENAI.say(problem).content)}\n\n"
        return
    finally:
        if record.new.is_bound:
            service.generator.let_go(record)
    common = _common(drawn.record)
    usage = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    usage_details = {"input_tokens_details": {"text_tokens": 0, "image_tokens": 0}}
    for image in drawn.images or ():
        data = base64.b64encode(image.data).decode()
        yield _event(kind, "completed", {"b64_json": data, **common, "usage": {**usage, **usage_details}})


async def _previews(service: Service, record: JobRecord, num_previews: int) -> AsyncIterator[dict[str, Any] | None]:
    """Each preview, when its share of the steps is done; None while nothing happens."""
    num_sent = 0
    common = _common(record)
    async with contextlib.aclosing(service.generator.states.watch(record, _KEEP_ALIVE_S)) as states:
        async for state in states:
            if state is None:
                yield None
            elif state.preview is not None and num_sent < num_previews and _is_due(state, num_sent, num_previews):
                values = {
                    "b64_json": base64.b64encode(state.preview.data).decode(),
                    "partial_image_index": num_sent,
                    **common,
                    "output_format": state.preview.media_type.removeprefix("image/"),
                }
                num_sent += 1
                yield values


def _is_due(state: JobState, num_sent: int, num_previews: int) -> bool:
    return state.step * (num_previews + 1) >= state.steps * num_sent


def _common(record: JobRecord) -> dict[str, Any]:
    return {
        "created_at": int(time.time()),
        "size": size_of(record),
        "quality": "auto",
        "background": "opaque",
        "output_format": record.new.output_format,
    }


def _event(kind: str, what: str, values: Mapping[str, Any]) -> str:
    name = f"{kind}.{what}"
    return f"event: {name}\ndata: {json.dumps({'type': name, **values}, separators=(',', ':'))}\n\n"
