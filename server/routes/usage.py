"""`GET /v1/usage`: what a key has drawn, day by day and user by user, and what it cost."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from engine.errors import InvalidParamsError
from server.access.caller import caller_of
from server.access.scopes import may, needs
from server.jobs.usage import Grouping, UsageQuestion, thirty_days_before
from server.problems import PROBLEM_MEDIA_TYPE
from server.routes.dependencies import ServiceOf
from server.usage_schemas import UsageView, usage_json

__all__ = ["router"]

_MOST_ROWS: Final = 10_000

_PROBLEM = {"content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
_PROBLEMS = {
    422: "A value breaks a rule; `errors` names field, rule and value",
    503: "Nothing can be read",
}

router = APIRouter(tags=["usage"])


@router.get(
    "/v1/usage",
    summary="What was drawn, and what it cost",
    response_model=UsageView,
    responses={status: {"description": description, **_PROBLEM} for status, description in _PROBLEMS.items()},
    dependencies=[needs("read")],
)
async def usage(
    request: Request,
    service: ServiceOf,
    first_day: Annotated[date | None, Query(alias="from", description="UTC; the first of 30 days if left out")] = None,
    last_day: Annotated[date | None, Query(alias="to", description="UTC, included; today if left out")] = None,
    user: Annotated[str | None, Query(max_length=64, description="Only on behalf of this user")] = None,
    key_id: Annotated[str | None, Query(max_length=64, description="With the scope `admin`: only this key")] = None,
    group_by: Annotated[
        list[Grouping] | None, Query(description="What gets a row of its own; may be repeated (`day` if left out)")
    ] = None,
) -> StreamingResponse:
    """One's own key's jobs, by the day on which they ended; with the scope `admin`, every key's."""
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
    rows = await service.generator.usage(question)
    if question.max_rows is not None and len(rows) == question.max_rows:
        raise InvalidParamsError(
            "group_by", f"must not give more than {_MOST_ROWS} rows: ask for fewer days or one user", group_by
        )
    # Each portion is made in a thread, so that the event loop goes on to answer others.
    return StreamingResponse(usage_json(question, rows), media_type="application/json")
