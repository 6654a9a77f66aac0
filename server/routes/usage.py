"""`GET /v1/usage`: usage and cost of a key by day and user."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from engine.errors import InvalidParamsError
from server.access.caller import caller_of
from server.access.scopes import may, needs
from server.routes.dependencies import ServiceOf
from server.routes.responses import problem, problems
from server.schemas.usage import UsageView, usage_json
from server.store.usage_table import Grouping, UsageQuestion, thirty_days_before

__all__ = ["router"]

_MOST_ROWS: Final = 10_000

router = APIRouter(tags=["usage"])


@router.get(
    "/v1/usage",
    summary="Usage and cost",
    response_model=UsageView,
    responses={**problems(422), 503: problem("Storage unavailable")},
    dependencies=[needs("read")],
)
async def usage(
    request: Request,
    service: ServiceOf,
    first_day: Annotated[date | None, Query(alias="from", description="UTC; default: 30 days up to `to`")] = None,
    last_day: Annotated[date | None, Query(alias="to", description="UTC, included; default: today")] = None,
    user: Annotated[str | None, Query(max_length=64, description="Only jobs on behalf of this user")] = None,
    key_id: Annotated[str | None, Query(max_length=64, description="With the scope `admin`: only this key")] = None,
    group_by: Annotated[
        list[Grouping] | None, Query(description="Group by this; may be repeated; default: `day`")
    ] = None,
) -> StreamingResponse:
    """Jobs of the calling key by the day on which they ended; with the scope `admin`, of every key."""
    caller = caller_of(request)
    last_day = last_day or datetime.now(UTC).date()
    first_day = first_day or thirty_days_before(last_day)
    if first_day > last_day:
        raise InvalidParamsError("from", "must not be after `to`", first_day.isoformat())
    question = UsageQuestion(
        first_day=first_day,
        last_day=last_day,
        key_id=key_id if caller.is_operator or may(caller, "admin") else caller.key_id,
        user=user,
        group_by=tuple(dict.fromkeys(group_by or ["day"])),
        max_rows=None if caller.is_operator else _MOST_ROWS + 1,
    )
    storage = service.generator.storage
    rows = await storage.ask(storage.store.usage(question))
    if question.max_rows is not None and len(rows) == question.max_rows:
        raise InvalidParamsError(
            "group_by", f"must not give more than {_MOST_ROWS} rows: ask for fewer days or one user", group_by
        )
    # Each portion is made in a thread, so that the event loop goes on to answer others.
    return StreamingResponse(usage_json(question, rows), media_type="application/json")
