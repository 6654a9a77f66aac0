"""The command line: which commands there are, and what each takes."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from server.cli.errors import EXIT_CODES, CommandError
from server.jobs.record import JobStatus

__all__ = ["main"]

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 -- argparse has no public name for it

_JOB_ID = re.compile(r"[0-9a-f]{16}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks.

    Returns:
        The exit code; see `EXIT_CODES`.
    """
    chosen = _parser().parse_args(arguments)
    try:
        exit_code: int = chosen.run(chosen) or 0
        sys.stdout.flush()
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 -- for whoever typed the command
        return error.exit_code
    except BrokenPipeError:  # `... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the interpreter's end
        return 0
    else:
        return exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server",
        description="The Semantic Bit GPU server. Settings come from the environment and .env (docs/configuration.md).",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_jobs(commands)
    _add_doctor(commands)
    return parser


def _add_serve(commands: _Commands) -> None:
    serve = commands.add_parser(
        "serve",
        help="start the server",
        description="Start the server and run it until SIGTERM or Ctrl+C. Then nothing more is accepted, and what is "
        "being drawn is finished within DRAIN_TIMEOUT. A second signal ends it at once; accepted jobs go on at the "
        "next start.",
        epilog="exit codes:\n  0    ended as asked\n  1    could not start; one line on standard error says why\n"
        "  130  ended at once by a second Ctrl+C\n  143  ended at once by a second SIGTERM\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.set_defaults(run=_serve)


def _add_jobs(commands: _Commands) -> None:
    jobs = commands.add_parser(
        "jobs",
        help="list, show, cancel and requeue jobs",
        description="Look at jobs and change them: of the running server, or, while none runs, in its store.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = jobs.add_subparsers(required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="the newest jobs, a line each")
    listing.add_argument("--status", action="append", choices=get_args(JobStatus), default=[], help="may be repeated")
    listing.add_argument("--user", help="only jobs on behalf of this user")
    listing.add_argument("--limit", type=_positive, default=20, help="jobs at most (default 20)")
    listing.add_argument("--json", action="store_true", help="as JSON, without prompts")
    listing.set_defaults(run=_list)

    showing = actions.add_parser("show", help="everything that is known of a job")
    showing.add_argument("id", type=_job_id, metavar="ID")
    showing.add_argument("--prompt", action="store_true", help="its prompts too")
    showing.add_argument("--json", action="store_true", help="as JSON")
    showing.set_defaults(run=_show)

    cancelling = actions.add_parser("cancel", help="cancel a job before its next step")
    cancelling.add_argument("id", type=_job_id, metavar="ID")
    cancelling.set_defaults(run=_cancel)

    requeueing = actions.add_parser("requeue", help="let a dead job be tried again")
    requeueing.add_argument("id", type=_job_id, metavar="ID")
    requeueing.set_defaults(run=_requeue)


def _add_doctor(commands: _Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="look for what keeps the server from working well, and say what to do",
        description="Look at device, model, disk, port, job store and settings. Changes nothing.",
        epilog="exit codes:\n  0    nothing found that keeps the server from working\n  1    something was: FAIL\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("--json", action="store_true", help="as JSON")
    doctor.set_defaults(run=_doctor)


# What a command needs is imported when it runs: the web framework alone takes half a second, and a fault in it should
# not keep `doctor` from telling.


def _serve(_arguments: argparse.Namespace) -> None:
    from server.serving import serve  # noqa: PLC0415

    serve()


def _list(arguments: argparse.Namespace) -> None:
    from server.cli.jobs import list_jobs  # noqa: PLC0415

    list_jobs(arguments)


def _show(arguments: argparse.Namespace) -> None:
    from server.cli.jobs import show_job  # noqa: PLC0415

    show_job(arguments)


def _cancel(arguments: argparse.Namespace) -> None:
    from server.cli.jobs import cancel_job  # noqa: PLC0415

    cancel_job(arguments)


def _requeue(arguments: argparse.Namespace) -> None:
    from server.cli.jobs import requeue_job  # noqa: PLC0415

    requeue_job(arguments)


def _doctor(arguments: argparse.Namespace) -> int:
    from server.cli.doctor import doctor  # noqa: PLC0415

    return doctor(as_json=arguments.json)


def _job_id(text: str) -> str:
    if not _JOB_ID.fullmatch(text):
        raise argparse.ArgumentTypeError("a job's id is 16 hexadecimal digits")
    return text


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
