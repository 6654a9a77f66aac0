"""The command line: which commands there are, and what each takes."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, get_args

from server.access.caller import Scope
from server.cli.errors import EXIT_CODES, CommandError
from server.jobs.record import JobStatus
from server.jobs.usage import Grouping

__all__ = ["main"]

if TYPE_CHECKING:
    _Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 -- argparse has no public name for it

_JOB_ID = re.compile(r"[0-9a-f]{16}")
_KEY_ID = re.compile(r"[0-9a-f]{12}")
_LONGEST_NAME = 64
_MOST_DAYS = 36_500
_MOST_HOURS = 8760


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
    _add_keys(commands)
    _add_usage(commands)
    _add_backup(commands)
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


def _add_keys(commands: _Commands) -> None:
    keys = commands.add_parser(
        "keys",
        help="create, list, rotate and revoke API keys",
        description="API keys of the running server, or, while none runs, in its store. As soon as there is one, every "
        "caller needs one.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = keys.add_subparsers(required=True, metavar="ACTION")

    creating = actions.add_parser("create", help="make a key; it is printed once, alone on standard output")
    creating.add_argument("--name", type=_key_name, required=True, help="whose it is, or what for")
    creating.add_argument(
        "--scope", action="append", choices=get_args(Scope), help="may be repeated (default: generate and read)"
    )
    creating.add_argument("--expires-days", type=_days, metavar="D", help="days from now (default: never)")
    creating.set_defaults(run=_create_key)

    listing = actions.add_parser("list", help="every key that was ever made, a line each")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run=_list_keys)

    rotating = actions.add_parser("rotate", help="give a key a new text; it is printed like a new key")
    rotating.add_argument("id", type=_key_id, metavar="ID")
    rotating.add_argument(
        "--grace-hours", type=_hours, default=24.0, metavar="H", help="hours that the old text is taken (default 24)"
    )
    rotating.set_defaults(run=_rotate_key)

    revoking = actions.add_parser("revoke", help="take a key away for good, at once")
    revoking.add_argument("id", type=_key_id, metavar="ID")
    revoking.set_defaults(run=_revoke_key)


def _add_backup(commands: _Commands) -> None:
    backup = commands.add_parser(
        "backup",
        help="write jobs, pictures and keys into one file, while the server runs",
        description="Write everything that is kept into one tar archive with checksums: of the running server, which "
        "goes on meanwhile, or of the folder of one that does not run. Settings, certificates and models stay out.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    backup.add_argument("file", metavar="FILE", help="must not be there yet; - is standard output")
    backup.set_defaults(run=_backup)

    restore = commands.add_parser(
        "restore",
        help="make an empty DATA_DIR from a backup",
        description="Make DATA_DIR from a backup: wholly, or not at all. It must be empty, and so no server may run in "
        "it. Whatever was accepted before the backup goes on at the next start.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    restore.add_argument("file", metavar="FILE", help="of `backup`; - is standard input")
    restore.set_defaults(run=_restore)


def _add_usage(commands: _Commands) -> None:
    usage = commands.add_parser(
        "usage",
        help="what was drawn for whom, and what it cost",
        description="What every key has drawn, by the days (UTC) on which jobs ended: of the running server, or, while "
        "none runs, from its store.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usage.add_argument("--from", dest="first_day", type=date.fromisoformat, metavar="DAY", help="default: 30 days")
    usage.add_argument("--to", dest="last_day", type=date.fromisoformat, metavar="DAY", help="included; default: today")
    usage.add_argument("--key", metavar="ID", help="only what this API key has asked for")
    usage.add_argument("--user", help="only on behalf of this user")
    usage.add_argument(
        "--by", action="append", choices=get_args(Grouping), help="a row for each; may be repeated (default: all three)"
    )
    forms = usage.add_mutually_exclusive_group()
    forms.add_argument("--csv", action="store_true", help="for a spreadsheet")
    forms.add_argument("--json", action="store_true", help="as JSON")
    usage.set_defaults(run=_usage)


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

    health = commands.add_parser(
        "health",
        help="the running server's status, for containers and scripts",
        description="Ask the running server how it is: healthy, loading, degraded, failed or draining.",
        epilog="exit codes:\n  0    healthy, loading or degraded\n  1    failed or draining\n"
        "  3    no server answers\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    health.set_defaults(run=_health)


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


def _create_key(arguments: argparse.Namespace) -> None:
    from server.cli.keys import create_key  # noqa: PLC0415

    create_key(arguments)


def _list_keys(arguments: argparse.Namespace) -> None:
    from server.cli.keys import list_keys  # noqa: PLC0415

    list_keys(arguments)


def _rotate_key(arguments: argparse.Namespace) -> None:
    from server.cli.keys import rotate_key  # noqa: PLC0415

    rotate_key(arguments)


def _revoke_key(arguments: argparse.Namespace) -> None:
    from server.cli.keys import revoke_key  # noqa: PLC0415

    revoke_key(arguments)


def _backup(arguments: argparse.Namespace) -> None:
    from server.cli.backup import backup  # noqa: PLC0415

    backup(arguments)


def _restore(arguments: argparse.Namespace) -> None:
    from server.cli.backup import restore  # noqa: PLC0415

    restore(arguments)


def _health(_arguments: argparse.Namespace) -> None:
    from server.cli.health import health  # noqa: PLC0415

    health()


def _usage(arguments: argparse.Namespace) -> None:
    from server.cli.usage import tell_usage  # noqa: PLC0415

    tell_usage(arguments)


def _doctor(arguments: argparse.Namespace) -> int:
    from server.cli.doctor import doctor  # noqa: PLC0415

    return doctor(as_json=arguments.json)


def _job_id(text: str) -> str:
    if not _JOB_ID.fullmatch(text):
        raise argparse.ArgumentTypeError("a job's id is 16 hexadecimal digits")
    return text


def _key_id(text: str) -> str:
    if not _KEY_ID.fullmatch(text):
        raise argparse.ArgumentTypeError("a key's id is 12 hexadecimal digits: the part after sb_live_")
    return text


def _key_name(text: str) -> str:
    if not 1 <= len(text) <= _LONGEST_NAME or not text.isprintable():
        raise argparse.ArgumentTypeError(f"a name has 1 to {_LONGEST_NAME} printable characters")
    return text


def _days(text: str) -> float:
    number = float(text)
    if not 0 < number <= _MOST_DAYS:
        raise argparse.ArgumentTypeError(f"must be more than 0, and at most {_MOST_DAYS}")
    return number


def _hours(text: str) -> float:
    number = float(text)
    if not 0 <= number <= _MOST_HOURS:
        raise argparse.ArgumentTypeError(f"must be 0 or more, and at most {_MOST_HOURS}")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
