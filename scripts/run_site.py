"""Starts GPU server, site and worker together, for one machine: `./run.sh site`. Ctrl+C ends all of them.

Each is the same command as in production (deploy/); this only starts them in order, waits until they answer, says
where, and ends them together. A GPU server that answers at GPU_SERVER_URL already is used as it is. What one of them
says stands on standard error under its own name.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Final, NoReturn
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
MANAGE = (sys.executable, "newdreamflow/manage.py")

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""SIGHUP: the terminal was closed."""
_START_S: Final = 120.0
_STOP_S: Final = 75.0
"""Longer than the GPU server's DRAIN_TIMEOUT by default."""
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Part:
    """One of the programs that make the site."""

    name: str
    process: subprocess.Popen[str]


class Ending(BaseException):
    """Whoever started us wants to end."""


def main() -> int:
    """Run until Ctrl+C or SIGTERM, or until a part ends by itself (exit status 1)."""
    for number in _ENDING:
        signal.signal(number, _end)
    environment = _environment()
    parts: list[Part] = []
    try:
        _run(environment, parts)
    except Ending:
        return 0
    except StartError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        _stop(parts)


class StartError(Exception):
    """The site cannot start. One line for whoever starts it."""


def _run(environment: dict[str, str], parts: list[Part]) -> NoReturn:
    # Django reads .env too, so it is asked where the site will be instead of reading it a second time here.
    answer = _managed(environment, "shell", "-v0", "-c", _ASK_SETTINGS)
    site_url, site_port, gpu_server_url, runner, static_root = answer.splitlines()[-5:]
    gpu_server = urlsplit(gpu_server_url)
    gpu_server_port = gpu_server.port or (443 if gpu_server.scheme == "https" else 80)
    if _listens(int(site_port)):
        raise StartError(f"something listens on port {site_port} already: end it, or set SITE_PORT to another port")
    _managed(environment, "migrate", "--no-input", "-v0")
    if static_root:
        _managed(environment, "collectstatic", "--no-input", "-v0")
    is_ours = gpu_server.hostname in _LOOPBACK and not _listens(gpu_server_port)
    if is_ours:
        environment["PORT"] = str(gpu_server_port)
        parts.append(_start("gpu server", [sys.executable, "-m", "server", "serve"], environment))
    uvicorn = ["-m", "uvicorn", "newdreamflow.config.asgi:application", "--host", "127.0.0.1", "--port", site_port]
    quiet = ["--no-access-log", "--log-level", "warning", "--timeout-graceful-shutdown", "3", "--lifespan", "off"]
    quiet += [
        "--no-proxy-headers"
    ]  # whose word is taken for who asks is the site's own business (SITE_TRUSTED_PROXIES)
    parts.append(_start("site", [sys.executable, *uvicorn, *quiet], environment))
    celery = [sys.executable, "-m", "celery", "-A", "newdreamflow.config.celery", "worker", "--beat", "-l", "warning"]
    celery += ["-s", str(ROOT / environment.get("DATA_DIR", "var") / "site" / "celerybeat-schedule")]
    parts.append(_start("worker", celery if runner == "celery" else [*MANAGE, "dreamworker"], environment))
    _wait(f"http://127.0.0.1:{site_port}/healthz", parts)
    if is_ours:
        _wait(f"{gpu_server_url}/livez", parts)
    elif not _is_there(f"{gpu_server_url}/livez"):
        print(
            f"warning: no GPU server answers at {gpu_server_url} (GPU_SERVER_URL); dreams wait until one does",
            file=sys.stderr,
        )
    print(f"Site:       {site_url}\nGPU server: {gpu_server_url} (API: {gpu_server_url}/docs)", flush=True)
    print("A demo account with a few dreams: .venv/bin/python newdreamflow/manage.py demo", flush=True)
    print("Ctrl+C ends all of it.", flush=True)
    while True:
        for part in parts:
            if part.process.poll() is not None:
                raise StartError(f"the {part.name} has ended ({part.process.returncode}); its last words stand above")
        time.sleep(_POLL_S)


_ASK_SETTINGS = """
from django.conf import settings as s
print(s.SITE_URL, s.SITE_PORT, s.GPU_SERVER_URL, s.DREAMS_RUNNER, s.STATIC_ROOT or '', sep='\\n')
"""


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    # A drawing that takes every core lets the site beside it wait, and itself for the site: docs/adr/0009.
    if "OMP_NUM_THREADS" not in environment:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 2) // 2))
    return environment


def _managed(environment: Mapping[str, str], *arguments: str) -> str:
    finished = subprocess.run(  # noqa: S603, PLW1510 -- our own command; what it says is shown
        [*MANAGE, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if finished.returncode:
        raise StartError(f"manage.py {arguments[0]} failed:\n{finished.stderr.strip() or finished.stdout.strip()}")
    return finished.stdout


def _start(name: str, command: list[str], environment: Mapping[str, str]) -> Part:
    process = subprocess.Popen(  # noqa: S603 -- our own commands
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl+C is for us: we end them in order
        preexec_fn=_end_with_us,  # noqa: PLW1509 -- one system call, no lock
    )
    if process.stdout is None:
        raise AssertionError("it was asked for")
    threading.Thread(target=_pass_on, args=(name, process.stdout), daemon=True).start()
    return Part(name, process)


def _end_with_us() -> None:
    """In the new process: be told to end when we are killed without a chance to say so. Linux only."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _is_there(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 -- the setting's own address
            return True
    except (OSError, ValueError):
        return False


def _pass_on(name: str, lines: IO[str]) -> None:
    for line in lines:
        print(f"[{name}] {line}", end="", file=sys.stderr, flush=True)


def _wait(url: str, parts: list[Part]) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        for part in parts:
            if part.process.poll() is not None:
                raise StartError(f"the {part.name} could not start; its last words stand above")
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 -- our own address
                return
        except (OSError, urllib.error.URLError):
            if time.monotonic() > deadline:
                raise StartError(f"{url} does not answer") from None
            time.sleep(_POLL_S)


def _listens(port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _stop(parts: list[Part]) -> None:
    """End the worker, then the site, then the GPU server; a second signal ends them at once."""
    for number in _ENDING:
        signal.signal(number, lambda *_: _kill(parts))
    for part in reversed(parts):
        part.process.terminate()  # does nothing to one that has ended
    for part in parts:
        try:
            part.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            _kill(parts)


def _kill(parts: list[Part]) -> None:
    for part in parts:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(part.process.pid, signal.SIGKILL)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise Ending


if __name__ == "__main__":
    sys.exit(main())
