"""What each operation of the job store means in SQL. Whoever calls it gives connection and transaction.

Every change of a job names the state it starts from, so an end is never undone and a lost attempt changes nothing.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Final, get_args

import msgspec

from engine.params import GenerationParams
from server.errors import IdempotencyMismatchError
from server.jobs.record import Failure, JobRecord, JobStatus, NewJob, Outcome
from server.jobs.usage import count_end

__all__ = [
    "add",
    "begin",
    "cancel",
    "expire",
    "fail_queued",
    "finish",
    "get",
    "ids_with_files",
    "page",
    "probe",
    "put_back",
    "recover",
    "revive",
]

MAX_EXPIRED: Final = 500
"""Jobs that one call of `expire` removes, and jobs whose files it gives up, so that no caller waits long behind it."""

_LAST_SEQ: Final = 2**63 - 1

_encode = msgspec.json.Encoder().encode
_params = msgspec.json.Decoder(GenerationParams)
_outcome = msgspec.json.Decoder(Outcome)


def add(connection: sqlite3.Connection, new: NewJob) -> JobRecord:
    """Accept a job, or find the one that was accepted with its idempotency key before."""
    earlier = find_repeat(connection, new)
    if earlier is not None:
        return earlier
    seq: int = connection.execute(
        "INSERT INTO jobs (id, key_id, user, params, output_format, is_bound, idempotency_key, request_digest,"
        " created_at, status, attempt, losses, has_files, file_bytes)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', 0, 0, 0, 0)"
        " RETURNING seq",
        (
            new.id,
            new.key_id,
            new.user,
            _encode(new.params).decode(),
            new.output_format,
            new.is_bound,
            new.idempotency_key,
            new.request_digest,
            new.created_at,
        ),
    ).fetchall()[0]["seq"]
    return JobRecord(
        seq=seq, new=new, status="queued", attempt=0, losses=0, started_at=None, outcome=None, has_files=False
    )


def find_repeat(connection: sqlite3.Connection, new: NewJob) -> JobRecord | None:
    """The job that was accepted with this one's idempotency key before."""
    if new.idempotency_key is None:
        return None
    earlier = _one(
        connection,
        "SELECT * FROM jobs WHERE key_id = ? AND idempotency_key = ?",
        (new.key_id, new.idempotency_key),
    )
    if earlier is not None and earlier.new.request_digest != new.request_digest:
        raise IdempotencyMismatchError(
            f"Idempotency-Key must be new or come with the request it was first used for: job {earlier.id}"
        )
    return earlier


def begin(connection: sqlite3.Connection, job_id: str, at: float) -> int | None:
    """Start an attempt; its number."""
    rows = connection.execute(
        "UPDATE jobs SET status = 'running', attempt = attempt + 1, started_at = ? WHERE id = ? AND status = 'queued'"
        " RETURNING attempt",
        (at, job_id),
    ).fetchall()
    return rows[0]["attempt"] if rows else None


def put_back(connection: sqlite3.Connection, job_id: str, attempt: int) -> bool:
    """Let a job whose attempt lost its engine wait again."""
    changed = connection.execute(
        "UPDATE jobs SET status = 'queued', losses = losses + 1 WHERE id = ? AND status = 'running' AND attempt = ?",
        (job_id, attempt),
    )
    return changed.rowcount == 1


def finish(connection: sqlite3.Connection, job_id: str, attempt: int, outcome: Outcome) -> bool:
    """End a job by the attempt that runs; a lost attempt ends nothing."""
    return _end(connection, outcome, "id = ? AND status = 'running' AND attempt = ?", (job_id, attempt)) == 1


def fail_queued(connection: sqlite3.Connection, job_id: str, outcome: Outcome) -> bool:
    """End a job that waits."""
    return _end(connection, outcome, "id = ? AND status = 'queued'", (job_id,)) == 1


def cancel(
    connection: sqlite3.Connection, job_id: str, at: float, failure: Failure, engine_s: float
) -> JobRecord | None:
    """End a job that is not over yet; the job as it is then."""
    outcome = Outcome(status="cancelled", finished_at=at, failure=failure, engine_s=engine_s)
    _end(connection, outcome, "id = ? AND status IN ('queued', 'running')", (job_id,))
    return get(connection, job_id)


def revive(connection: sqlite3.Connection, job_id: str) -> JobRecord | None:
    """Let a dead job wait again, as if it had never run."""
    changed = connection.execute(
        "UPDATE jobs SET status = 'queued', attempt = 0, losses = 0,"
        " started_at = NULL, finished_at = NULL, outcome = NULL WHERE id = ? AND status = 'dead'",
        (job_id,),
    )
    return get(connection, job_id) if changed.rowcount else None


def get(connection: sqlite3.Connection, job_id: str) -> JobRecord | None:
    """Look a job up."""
    return _one(connection, "SELECT * FROM jobs WHERE id = ?", (job_id,))


def page(
    connection: sqlite3.Connection,
    *,
    key_id: str | None,
    user: str | None,
    statuses: Collection[JobStatus],
    before_seq: int | None,
    limit: int,
) -> list[JobRecord]:
    """Jobs of a key, of one of its users or of everybody; newest first.

    Each status is asked for alone: then an index gives exactly the rows wanted, however many other jobs there are.
    """
    if key_id is None:
        rule, values = ":user IS NULL OR user = :user", {"user": user}
    elif user is None:
        rule, values = "key_id = :key_id", {"key_id": key_id}
    else:
        rule, values = "key_id = :key_id AND user = :user", {"key_id": key_id, "user": user}
    # The rules above are ours; every value from outside is bound.
    statement = (
        f"SELECT * FROM jobs WHERE ({rule}) AND status = :status AND seq < :before_seq"  # noqa: S608
        " ORDER BY seq DESC LIMIT :limit"
    )
    wanted = {**values, "before_seq": _LAST_SEQ if before_seq is None else before_seq, "limit": limit}
    newest_of_each = [
        connection.execute(statement, {**wanted, "status": status}).fetchall()
        for status in dict.fromkeys(statuses or get_args(JobStatus))
    ]
    newest = heapq.merge(*newest_of_each, key=lambda row: row["seq"], reverse=True)
    return [_record(row) for row in islice(newest, limit)]


def recover(connection: sqlite3.Connection, at: float) -> list[JobRecord]:
    """Take up what the last process left behind; the jobs that wait now, oldest first."""
    failure = Failure(code="server_restarted", detail="the server was restarted before the pictures were finished")
    outcome = Outcome(status="cancelled", finished_at=at, failure=failure)
    _end(connection, outcome, "status IN ('queued', 'running') AND is_bound", ())
    connection.execute("UPDATE jobs SET status = 'queued' WHERE status = 'running'")
    return list(_records(connection, "SELECT * FROM jobs WHERE status = 'queued' ORDER BY seq", ()))


def expire(
    connection: sqlite3.Connection, *, files_before: float, keep_bytes: int, jobs_before: float
) -> tuple[list[str], bool]:
    """Give up some of the old jobs and old files.

    Returns:
        The jobs whose files nobody needs any more, oldest first; and whether there may be more to give up.
    """
    removed = connection.execute(
        "DELETE FROM jobs WHERE seq IN"
        " (SELECT seq FROM jobs WHERE finished_at IS NOT NULL AND finished_at < ? ORDER BY finished_at, seq LIMIT ?)"
        " RETURNING id, seq, finished_at, has_files",
        (jobs_before, MAX_EXPIRED),
    ).fetchall()
    without_files = sorted((row["finished_at"], row["seq"], row["id"]) for row in removed if row["has_files"])
    kept_bytes: float = connection.execute("SELECT total(file_bytes) FROM jobs WHERE has_files").fetchone()[0]
    oldest = connection.execute(
        "SELECT seq, id, finished_at, file_bytes FROM jobs WHERE has_files ORDER BY finished_at, seq LIMIT ?",
        (MAX_EXPIRED,),
    ).fetchall()
    expired = []
    for row in oldest:
        if row["finished_at"] >= files_before and kept_bytes <= keep_bytes:
            break
        kept_bytes -= row["file_bytes"]
        expired.append(row)
    connection.executemany("UPDATE jobs SET has_files = 0 WHERE seq = ?", [(row["seq"],) for row in expired])
    ids = [job_id for _, _, job_id in without_files] + [row["id"] for row in expired]
    return ids, len(removed) == MAX_EXPIRED or len(expired) == MAX_EXPIRED


def ids_with_files(connection: sqlite3.Connection) -> set[str]:
    """The jobs whose files are kept."""
    return {row["id"] for row in connection.execute("SELECT id FROM jobs WHERE has_files")}


def probe(connection: sqlite3.Connection) -> None:
    """Change one tiny row."""
    connection.execute("UPDATE write_probe SET num_probes = num_probes + 1")


def _end(connection: sqlite3.Connection, outcome: Outcome, rule: str, values: tuple[object, ...]) -> int:
    """Bring the jobs that fulfil the rule to a terminal state, and count what they cost; how many there were."""
    num_bytes = sum(image.num_bytes for image in outcome.images)
    ended = connection.execute(
        # The rules stand above; every value from outside is bound.
        f"UPDATE jobs SET status = ?, finished_at = ?, outcome = ?, has_files = ?, file_bytes = ? WHERE {rule}"  # noqa: S608
        " RETURNING key_id, user",
        (
            outcome.status,
            outcome.finished_at,
            _encode(outcome).decode(),
            bool(outcome.images),
            num_bytes,
            *values,
        ),
    ).fetchall()
    for row in ended:
        count_end(connection, row["key_id"], row["user"], outcome)
    return len(ended)


def _one(connection: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> JobRecord | None:
    return next(_records(connection, statement, values), None)


def _records(connection: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> Iterator[JobRecord]:
    for row in connection.execute(statement, values).fetchall():
        yield _record(row)


def _record(row: sqlite3.Row) -> JobRecord:
    return JobRecord(
        seq=row["seq"],
        new=NewJob(
            id=row["id"],
            key_id=row["key_id"],
            user=row["user"],
            params=_params.decode(row["params"]),
            output_format=row["output_format"],
            is_bound=bool(row["is_bound"]),
            idempotency_key=row["idempotency_key"],
            request_digest=row["request_digest"],
            created_at=row["created_at"],
        ),
        status=row["status"],
        attempt=row["attempt"],
        losses=row["losses"],
        started_at=row["started_at"],
        outcome=None if row["outcome"] is None else _outcome.decode(row["outcome"]),
        has_files=bool(row["has_files"]),
    )
