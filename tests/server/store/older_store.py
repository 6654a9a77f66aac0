"""Takes a job database back to an older schema, as a release before this one left it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from server.store.database import DATABASE_NAME
from server.store.database_schema import STEPS

UNDO = {
    2: "DROP TABLE api_keys",
    3: "DROP TABLE usage",
    4: "ALTER TABLE jobs DROP COLUMN crashes",
    5: "DROP TRIGGER job_inputs_end; DROP TABLE job_inputs",
    6: "ALTER TABLE jobs DROP COLUMN image_metadata",
    7: "DROP TABLE key_options",
    8: "ALTER TABLE jobs DROP COLUMN output_quality",
    9: "ALTER TABLE jobs DROP COLUMN engine_class",
}
"""Schema version -> what takes it back by one."""


def make_older(folder: Path, version: int) -> None:
    """Take the closed store of a folder back to a version; KeyError: the newest step has no line in UNDO yet."""
    script = ";".join(UNDO[step] for step in range(len(STEPS), version, -1))
    with contextlib.closing(sqlite3.connect(folder / DATABASE_NAME)) as connection:
        connection.executescript(f"{script}; PRAGMA user_version = {version}")
