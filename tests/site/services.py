"""Real PostgreSQL and Redis servers of our own, on free ports, for as long as a test needs them."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["find_postgres", "postgres", "redis"]


def find_postgres() -> Path | None:
    """The folder with `initdb` and `postgres`; None if PostgreSQL is not installed."""
    folders = [
        *Path("/usr/lib/postgresql").glob("*/bin"),
        *([Path(found).parent] if (found := shutil.which("initdb")) else []),
    ]
    return max((folder for folder in folders if (folder / "initdb").exists()), default=None)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A fresh cluster; yields the URL of an empty database."""
    programs = find_postgres()
    assert programs is not None
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        # PostgreSQL refuses to run as root.
        account = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        os.chown(folder, account.pw_uid, account.pw_gid)
        as_account = {"user": account.pw_uid, "group": account.pw_gid} if os.getuid() == 0 else {}
        data = f"{folder}/data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "site", "--auth=trust", "--no-sync", "-E", "UTF8"],
            check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_account,
        )  # fmt: skip
        port = _free_port()
        options = [f"-p{port}", f"-k{folder}", "-clisten_addresses=127.0.0.1", "-cfsync=off", "-cmax_connections=50"]
        with Path(folder, "log").open("wb") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", data, *options], stdout=log, stderr=log, cwd=folder, **as_account
            )
        try:
            _wait_for(port, process, Path(folder) / "log")
            yield f"postgresql://site@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(2)  # SIGINT: a fast shutdown
            process.wait(20)


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """An empty server; yields its URL."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        port = _free_port()
        log = Path(folder) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
                stdout=out,
                stderr=out,
            )
        try:
            _wait_for(port, process, log)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait(20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
