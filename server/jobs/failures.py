"""Conversion of errors to the failure stored in a job's record, and back to errors for callers."""

from __future__ import annotations

import time

from engine.errors import EngineError
from server.errors import JobCancelledError, JobDeadError, JobFailedError, ServerError, kind_of
from server.store.record import Failure, JobRecord, Outcome

__all__ = ["failed", "raise_if_failed"]


def failed(error: Exception, engine_s: float) -> Outcome:
    """The end of a job that could not be drawn."""
    if isinstance(error, EngineError | ServerError):
        failure = Failure(code=kind_of(error).code, detail=str(error))
    else:
        failure = Failure(
            code="internal_error", detail="something went wrong that should not; the server's log has more"
        )
    return Outcome(status="failed", finished_at=time.time(), failure=failure, engine_s=engine_s)


def raise_if_failed(record: JobRecord) -> None:
    """Say over again why a job that has ended has no pictures.

    Raises:
        ServerError: with the code that its failure had.
    """
    failure = record.outcome.failure if record.outcome else None
    detail = failure.detail if failure else f"the job is {record.status}"
    if record.status == "cancelled":
        raise JobCancelledError(detail)
    if record.status == "dead":
        raise JobDeadError(detail)
    if record.status == "failed":
        raise JobFailedError(detail, failure.code if failure else "internal_error")
