"""`manage.py dreamworker`: the database runner."""

from __future__ import annotations

import signal
from argparse import ArgumentParser
from types import FrameType

from django.core.management.base import BaseCommand

from newdreamflow.dreams.worker import DreamWorker

__all__ = ["Command"]


class Command(BaseCommand):
    """The command."""

    help = "Advance dreams until SIGTERM or Ctrl+C. Several may run at once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """What it takes."""
        parser.add_argument("--threads", type=int, default=4, help="dreams advanced at once (default %(default)s)")

    def handle(self, *, threads: int, **_options: object) -> None:
        """Run."""
        worker = DreamWorker(threads)

        def stop(_number: int, _frame: FrameType | None) -> None:
            worker.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        worker.run()
