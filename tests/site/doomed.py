"""A process whose children advance dreams and die at a chosen edge, by `kill -9`.

Run as `python -m tests.site.doomed DATABASE MEDIA_ROOT GPU_SERVER_URL`. Reads lines `DREAM_ID EDGE`, forks a child for
each, and answers with the signal that ended it: 9, or 0 if it came to an end by itself. An edge is a moment right
before or right after a statement, a request to the GPU server or a file; they are counted from 1, and 0 is none.
"""

from __future__ import annotations

import functools
import os
import signal
import sys

import django
from django.conf import settings


def main(database: str, media_root: str, gpu_server_url: str) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.site.settings"
    settings.DATABASES["default"]["NAME"] = database
    settings.MEDIA_ROOT = media_root
    settings.GPU_SERVER_URL = gpu_server_url
    django.setup()
    from newdreamflow.dreams import services  # noqa: F401, PLC0415 -- once, for all children

    print("ready", flush=True)  # noqa: T201 -- to the test
    for line in sys.stdin:
        dream_id, edge = map(int, line.split())
        child = os.fork()
        if child == 0:
            _advance_and_die(dream_id, edge)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status), flush=True)  # noqa: T201


def _advance_and_die(dream_id: int, edge: int) -> None:
    from django.core.files.storage import FileSystemStorage  # noqa: PLC0415
    from django.db import connection  # noqa: PLC0415
    from semantic_bit_client import Client, Job  # noqa: PLC0415

    from newdreamflow.dreams import services  # noqa: PLC0415
    from newdreamflow.dreams.models import Dream  # noqa: PLC0415

    seen = 0

    def pass_edge() -> None:
        nonlocal seen
        seen += 1
        if seen == edge:
            os.kill(os.getpid(), signal.SIGKILL)

    def between_edges(function):
        @functools.wraps(function)
        def called(*arguments, **named):
            pass_edge()
            answer = function(*arguments, **named)
            pass_edge()
            return answer

        return called

    for owner, names in ((Client, ("submit", "job")), (Job, ("cancel", "images")), (FileSystemStorage, ("_save",))):
        for name in names:
            setattr(owner, name, between_edges(getattr(owner, name)))
    with connection.execute_wrapper(
        lambda execute, sql, params, many, context: between_edges(execute)(sql, params, many, context)
    ):
        # Two looks: enough for what is drawn within a moment.
        for _ in range(2):
            services.advance(dream_id=dream_id)
            if Dream.objects.get(pk=dream_id).is_finished:
                return
            _wait_until_drawn(services, Dream.objects.get(pk=dream_id))
            Dream.objects.filter(pk=dream_id).update(next_try_at="2000-01-01T00:00:00Z")


def _wait_until_drawn(services, dream) -> None:
    import time  # noqa: PLC0415

    import httpx2  # noqa: PLC0415

    while dream.remote_job_id and not dream.cancel_requested_at:
        job = httpx2.get(f"{settings.GPU_SERVER_URL}/v1/jobs/{dream.remote_job_id}").json()
        if job["status"] not in {"queued", "running"}:
            return
        time.sleep(0.01)


if __name__ == "__main__":
    main(*sys.argv[1:])
