"""The table of jobs: the SQL of each operation of the job store. The caller gives connection and transaction.

Every change of a job names the state it starts from, so an end is never undone and a lost attempt changes nothing.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, get_args

import msgspec

from engine.params import GenerationParams
from server.errors import IdempotencyMismatchError, InputExpiredError
from server.store.record import MAX_ATTEMPTS, Failure, JobQuery, JobRecord, JobStatus, NewJob, Outcome
from server.store.usage_table import count_end

__all__ = [
    "add",
    "begin",
    "cancel",
    "expire",
    "fail_queued",
    "finish",
    "get",
    "ids_with_files",
    "input_names",
    "page",
    "probe",
    "put_back",
    "put_back_all",
    "recover",
    "revive",
    "take_over",
]

MAX_EXPIRED: Final = 500
"""Jobs that one call of `expire` removes, and jobs whose files it gives up, so that no caller waits long behind it."""

CRASHED: Final = Failure(
    code="job_dead",
    detail=f"the server ended {MAX_ATTEMPTS} times during this job, the last time with no other job;"
    " it is held until an operator requeues it",
)

_LAST_SEQ: Final = 2**63 - 1

_encode = msgspec.json.Encoder().encode
_params = msgspec.json.Decoder(GenerationParams)
_outcome = msgspec.json.Decoder(Outcome)


def add(connection: sqlite3.Connection, new: NewJob, inputs: Mapping[str, int]) -> JobRecord:
    """Accept a job, or find the one that was accepted with its idempotency key before.

    Args:
        connection: the store's.
        new: the job.
        inputs: SHA-256 of each file that it starts from -> bytes of the file.
    """
    earlier = find_repeat(connection, new)
    if earlier is not None:
        return earlier
    added = connection.execute(
        "INSERT INTO jobs (id, key_id, user, params, output_format, image_metadata, output_quality, engine_class,"
        " is_bound, idempotency_key, request_digest, created_at, status, attempt, losses, crashes, has_files,"
        " file_bytes)"
        " VALUES (:id, :key_id, :user, :params, :output_format, :image_metadata, :output_quality, :engine_class,"
        " :is_bound, :idempotency_key, :request_digest, :created_at, 'queued', 0, 0, 0, 0, 0)"
        " RETURNING *",
        msgspec.structs.asdict(new) | {"params": _encode(new.params).decode()},
    ).fetchall()[0]
    connection.executemany(
        "INSERT INTO job_inputs (seq, sha256, num_bytes) VALUES (?, ?, ?)",
        [(added["seq"], sha256, num_bytes) for sha256, num_bytes in inputs.items()],
    )
    return _record(added)


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


def put_back(connection: sqlite3.Connection, job_id: str, attempt: int, *, is_loss: bool) -> bool:
    """Let a job wait again whose attempt lost its engine, or was not begun by it."""
    changed = connection.execute(
        "UPDATE jobs SET status = 'queued', losses = losses + ? WHERE id = ? AND status = 'running' AND attempt = ?",
        (int(is_loss), job_id, attempt),
    )
    return changed.rowcount == 1


def put_back_all(connection: sqlite3.Connection) -> None:
    """Let every running job wait again; nothing was lost."""
    connection.execute("UPDATE jobs SET status = 'queued' WHERE status = 'running'")


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
    """Let a dead job wait again, as if it had never run.

    Raises:
        InputExpiredError: the pictures that it starts from were given up.
    """
    dead = get(connection, job_id)
    if dead is not None and dead.status == "dead" and len(dead.new.params.inputs) > _num_inputs(connection, dead.seq):
        raise InputExpiredError("the pictures that this job starts from have expired: submit it again, with them")
    changed = connection.execute(
        "UPDATE jobs SET status = 'queued', attempt = 0, losses = 0, crashes = 0,"
        " started_at = NULL, finished_at = NULL, outcome = NULL WHERE id = ? AND status = 'dead'",
        (job_id,),
    )
    return get(connection, job_id) if changed.rowcount else None


def take_over(connection: sqlite3.Connection, from_key: str, to_key: str) -> None:
    """Let jobs that have ended be another key's, whose idempotency keys win where both have used the same."""
    connection.execute(
        "UPDATE jobs SET key_id = ?2, idempotency_key = CASE WHEN EXISTS"
        " (SELECT 1 FROM jobs AS other WHERE other.key_id = ?2 AND other.idempotency_key = jobs.idempotency_key)"
        " THEN NULL ELSE idempotency_key END"
        " WHERE key_id = ?1 AND finished_at IS NOT NULL",
        (from_key, to_key),
    )


def get(connection: sqlite3.Connection, job_id: str) -> JobRecord | None:
    """Look a job up."""
    return _one(connection, "SELECT * FROM jobs WHERE id = ?", (job_id,))


def page(connection: sqlite3.Connection, query: JobQuery) -> list[JobRecord]:
    """Jobs of a key, of one of its users or of everybody; newest first.

    Each status is asked for alone: then an index gives exactly the rows wanted, however many other jobs there are.
    """
    if query.key_id is None:
        rule = ":user IS NULL OR user = :user"
    elif query.user is None:
        rule = "key_id = :key_id"
    else:
        rule = "key_id = :key_id AND user = :user"
    # The rules above are ours; every value from outside is bound.
    statement = (
        f"SELECT * FROM jobs WHERE ({rule}) AND status = :status AND seq < :before_seq"  # noqa: S608
        " ORDER BY seq DESC LIMIT :limit"
    )
    before_seq = _LAST_SEQ if query.before_seq is None else query.before_seq
    wanted = msgspec.structs.asdict(query) | {"before_seq": before_seq}
    newest_of_each = [
        connection.execute(statement, {**wanted, "status": status}).fetchall()
        for status in dict.fromkeys(query.statuses or get_args(JobStatus))
    ]
    newest = heapq.merge(*newest_of_each, key=lambda row: row["seq"], reverse=True)
    return [_record(row) for row in islice(newest, query.limit)]


def recover(connection: sqlite3.Connection, at: float) -> list[JobRecord]:
    """Take up what the last process left behind; the jobs that wait now, oldest first, then those that are dead now.

    What is running here was cut off: an orderly end puts it back.
    """
    failure = Failure(code="server_restarted", detail="the server was restarted before the pictures were finished")
    outcome = Outcome(status="cancelled", finished_at=at, failure=failure)
    _end(connection, outcome, "status IN ('queued', 'running') AND is_bound", ())
    connection.execute("UPDATE jobs SET status = 'queued', crashes = crashes + 1 WHERE status = 'running'")
    suspects = list(
        _records(connection, "SELECT * FROM jobs WHERE status = 'queued' AND crashes >= ?", (MAX_ATTEMPTS,))
    )
    outcome = Outcome(status="dead", finished_at=at, failure=CRASHED)
    _end(connection, outcome, "status = 'queued' AND crashes >= ?", (MAX_ATTEMPTS,))
    waiting = _records(connection, "SELECT * FROM jobs WHERE status = 'queued' ORDER BY seq", ())
    return [*waiting, *(record for suspect in suspects if (record := get(connection, suspect.id)))]


def expire(connection: sqlite3.Connection, *, files_before: float, keep_bytes: int, jobs_before: float) -> bool:
    """Give up some of the old jobs and old files. Whether there may be more to give up."""
    num_removed = connection.execute(
        "DELETE FROM jobs WHERE seq IN"
        " (SELECT seq FROM jobs WHERE finished_at IS NOT NULL AND finished_at < ? ORDER BY finished_at, seq LIMIT ?)",
        (jobs_before, MAX_EXPIRED),
    ).rowcount
    kept_bytes: float = connection.execute(
        "SELECT (SELECT total(file_bytes) FROM jobs WHERE has_files)"
        " + (SELECT total(num_bytes) FROM (SELECT DISTINCT sha256, num_bytes FROM job_inputs))"
    ).fetchone()[0]
    # Each by its own index; then as if it were one list.
    with_pictures = connection.execute(
        "SELECT finished_at, seq, 0 FROM jobs WHERE has_files ORDER BY finished_at, seq LIMIT ?", (MAX_EXPIRED,)
    ).fetchall()
    with_inputs = connection.execute(
        "SELECT finished_at, seq, 1 FROM jobs WHERE finished_at IS NOT NULL AND seq IN (SELECT seq FROM job_inputs)"
        " ORDER BY finished_at, seq LIMIT ?",
        (MAX_EXPIRED,),
    ).fetchall()
    num_expired = 0
    for finished_at, seq, is_input in heapq.merge(map(tuple, with_pictures), map(tuple, with_inputs)):
        if (finished_at >= files_before and kept_bytes <= keep_bytes) or num_expired == MAX_EXPIRED:
            break
        give_up = _give_up_inputs if is_input else _give_up_pictures
        kept_bytes -= give_up(connection, seq)
        num_expired += 1
    return num_removed == MAX_EXPIRED or num_expired == MAX_EXPIRED


def _give_up_pictures(connection: sqlite3.Connection, seq: int) -> int:
    """Give up a job's finished pictures; their bytes."""
    rows = connection.execute("UPDATE jobs SET has_files = 0 WHERE seq = ? RETURNING file_bytes", (seq,)).fetchall()
    num_bytes: int = rows[0]["file_bytes"]
    return num_bytes


def _give_up_inputs(connection: sqlite3.Connection, seq: int) -> int:
    """Give up what a job started from; the bytes of those files that no other job names."""
    num_bytes: int = connection.execute(
        "SELECT coalesce(sum(num_bytes), 0) FROM job_inputs AS own WHERE seq = ?1 AND NOT EXISTS"
        " (SELECT 1 FROM job_inputs AS other WHERE other.sha256 = own.sha256 AND other.seq != ?1)",
        (seq,),
    ).fetchone()[0]
    connection.execute("DELETE FROM job_inputs WHERE seq = ?", (seq,))
    return num_bytes


def _num_inputs(connection: sqlite3.Connection, seq: int) -> int:
    count: int = connection.execute("SELECT count(*) FROM job_inputs WHERE seq = ?", (seq,)).fetchone()[0]
    return count


def input_names(connection: sqlite3.Connection) -> set[str]:
    """The input files that jobs name."""
    return {row["sha256"] for row in connection.execute("SELECT DISTINCT sha256 FROM job_inputs")}


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
    columns = dict(row) | {
        "params": _params.decode(row["params"]),
        "is_bound": bool(row["is_bound"]),
        "outcome": None if row["outcome"] is None else _outcome.decode(row["outcome"]),
        "has_files": bool(row["has_files"]),
    }
    columns["new"] = NewJob(**{name: columns[name] for name in NewJob.__struct_fields__})
    return JobRecord(**{name: columns[name] for name in JobRecord.__struct_fields__})
