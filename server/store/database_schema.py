"""The job database's schema, and its migrations: numbered steps of SQL, from any older schema to this one."""

from __future__ import annotations

import sqlite3
from typing import Final

from server.store.errors import StoreTooNewError

__all__ = ["migrate"]

_JOBS: Final = (
    # AUTOINCREMENT: a number is not given again when the newest job is removed, so a page's cursor stays true.
    """
    CREATE TABLE jobs (
        seq             INTEGER PRIMARY KEY AUTOINCREMENT,
        id              TEXT    NOT NULL UNIQUE,
        key_id          TEXT    NOT NULL,
        user            TEXT,
        params          TEXT    NOT NULL, -- JSON of GenerationParams
        output_format   TEXT    NOT NULL,
        is_bound        INTEGER NOT NULL,
        idempotency_key TEXT,
        request_digest  BLOB    NOT NULL,
        created_at      REAL    NOT NULL, -- Unix seconds, as every time here
        status          TEXT    NOT NULL CHECK (status IN ('queued', 'running', 'done', 'failed', 'cancelled', 'dead')),
        attempt         INTEGER NOT NULL,
        losses          INTEGER NOT NULL, -- attempts whose engine was lost; those that a restart cut off are not
        started_at      REAL,
        finished_at     REAL    CHECK ((finished_at IS NULL) = (status IN ('queued', 'running'))),
        outcome         TEXT    CHECK ((outcome IS NULL) = (finished_at IS NULL)), -- JSON of Outcome
        has_files       INTEGER NOT NULL,
        file_bytes      INTEGER NOT NULL  -- of the pictures as they were written
    ) STRICT
    """,
    # A page of jobs asks for each status alone, newest first; an index ends with seq by itself.
    "CREATE INDEX jobs_by_status ON jobs (status)",
    "CREATE INDEX jobs_by_key ON jobs (key_id, status)",
    "CREATE INDEX jobs_by_user ON jobs (key_id, user, status) WHERE user IS NOT NULL",
    """
    CREATE UNIQUE INDEX jobs_by_idempotency_key ON jobs (key_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL
    """,
    "CREATE INDEX jobs_over ON jobs (finished_at) WHERE finished_at IS NOT NULL",
    "CREATE INDEX jobs_with_files ON jobs (finished_at, seq, file_bytes) WHERE has_files",
    "CREATE TABLE write_probe (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), num_probes INTEGER NOT NULL) STRICT",
    "INSERT INTO write_probe VALUES (1, 0)",
)

_API_KEYS: Final = (
    """
    CREATE TABLE api_keys (
        id           TEXT NOT NULL PRIMARY KEY,
        name         TEXT NOT NULL,
        digest       BLOB NOT NULL CHECK (length(digest) = 32), -- SHA-256 of its text
        scopes       TEXT NOT NULL, -- JSON
        created_at   REAL NOT NULL,
        expires_at   REAL,
        revoked_at   REAL,
        last_used_at REAL,
        old_digest   BLOB CHECK (length(old_digest) = 32), -- of the text before it was rotated
        old_until    REAL
    ) STRICT
    """,
)

_USAGE: Final = (
    """
    CREATE TABLE usage (
        day         TEXT    NOT NULL, -- on which the jobs ended, UTC: 2026-11-23
        key_id      TEXT    NOT NULL,
        user        TEXT,
        done        INTEGER NOT NULL,
        failed      INTEGER NOT NULL,
        cancelled   INTEGER NOT NULL,
        dead        INTEGER NOT NULL,
        images      INTEGER NOT NULL,
        work_units  REAL    NOT NULL, -- of those that are done
        engine_s    REAL    NOT NULL, -- of all
        price_nanos INTEGER NOT NULL  -- in 10^-9 of the currency's unit: sums of integers are exact
    ) STRICT
    """,
    # 0 stands for no user: a name is text, and so never the same.
    "CREATE UNIQUE INDEX usage_by_owner ON usage (day, key_id, ifnull(user, 0))",
)

_CRASHES: Final = (
    # Attempts during which the server itself was lost. (Its engine: losses.)
    "ALTER TABLE jobs ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0",
)

_JOB_INPUTS: Final = (
    # A row goes when the job's input files are given up, long before the job itself.
    """
    CREATE TABLE job_inputs (
        seq       INTEGER NOT NULL, -- of the job
        sha256    TEXT    NOT NULL, -- names the file
        num_bytes INTEGER NOT NULL,
        PRIMARY KEY (seq, sha256)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX job_inputs_by_file ON job_inputs (sha256, num_bytes)",
    "CREATE TRIGGER job_inputs_end AFTER DELETE ON jobs BEGIN DELETE FROM job_inputs WHERE seq = OLD.seq; END",
)

_IMAGE_METADATA: Final = (
    # `none`: the picture's file says nothing of how it was drawn.
    "ALTER TABLE jobs ADD COLUMN image_metadata TEXT NOT NULL DEFAULT 'full'",
)

_KEY_OPTIONS: Final = (
    # What callers of AUTOMATIC1111's API have set, and no restart forgets.
    """
    CREATE TABLE key_options (
        key_id  TEXT NOT NULL PRIMARY KEY,
        options TEXT NOT NULL -- JSON
    ) STRICT
    """,
)

_OUTPUT_QUALITY: Final = ("ALTER TABLE jobs ADD COLUMN output_quality INTEGER",)

_ENGINE_CLASS: Final = (
    # The class of engine that must draw it; NULL: any.
    "ALTER TABLE jobs ADD COLUMN engine_class TEXT",
)

STEPS: Final[tuple[tuple[str, ...], ...]] = (
    _JOBS,
    _API_KEYS,
    _USAGE,
    _CRASHES,
    _JOB_INPUTS,
    _IMAGE_METADATA,
    _KEY_OPTIONS,
    _OUTPUT_QUALITY,
    _ENGINE_CLASS,
)
"""Step n takes a database of version n to version n + 1. A step that was released never changes.

Stored params are read through `GenerationParams`: whoever narrows its limits adds a step for the jobs beyond them.
"""


def migrate(connection: sqlite3.Connection) -> None:
    """Take every step that the database has not taken yet, each wholly or not at all.

    Raises:
        StoreTooNewError: the database has taken steps that are not known here.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(STEPS):
        raise StoreTooNewError(
            f"the job database has version {version} and this release knows only versions up to {len(STEPS)}:"
            " start the release that wrote it, or a later one"
        )
    for number, statements in enumerate(STEPS[version:], start=version + 1):
        with connection:  # commits, or rolls back after an error
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
