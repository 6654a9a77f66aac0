"""Command line arguments: the commands and their options."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, get_args

from server.cli.errors import EXIT_CODES, CommandError
from server.store.api_keys import Scope
from server.store.record import JobStatus
from server.store.usage_table import Grouping

__all__ = ["build_parser", "main"]

if TYPE_CHECKING:
    _Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"  # noqa: SLF001 -- argparse has no public name for it

_T = TypeVar("_T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks.

    Returns:
        The exit code; see `EXIT_CODES`.
    """
    parser = build_parser()
    chosen, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(_unknown(unknown))
    # What a command needs is imported when it runs: the web framework alone takes half a second, and a fault in it must
    # not keep `doctor` from running.
    module, _, name = chosen.run.partition(":")
    try:
        exit_code: int = getattr(importlib.import_module(module), name)(chosen) or 0
        sys.stdout.flush()
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 -- for whoever typed the command
        return error.exit_code
    except BrokenPipeError:  # `... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the interpreter's end
        return 0
    else:
        return exit_code


def _unknown(arguments: Sequence[str]) -> str:
    """What is wrong with arguments that are not known: `--port 9000` is a setting."""
    from server.config import Settings  # noqa: PLC0415 -- as above

    message = f"unknown arguments: {' '.join(arguments)}"
    option, _, value = arguments[0].partition("=")
    name = option.lstrip("-").replace("-", "_")
    if option.startswith("--") and name.lower() in Settings.model_fields:
        value = value or next((text for text in arguments[1:] if not text.startswith("-")), "VALUE")
        message += f" ({name.upper()} is a setting: {name.upper()}={value} in the environment or in .env)"
    return message


def build_parser() -> argparse.ArgumentParser:
    """Every command and what it takes; `run` is the function, as `module:name`."""
    parser = _Parser(
        prog="python -m server",
        description="The Semantic Bit GPU server. Settings come from the environment and .env (docs/configuration.md).",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_engine(commands)
    _add_jobs(commands)
    _add_keys(commands)
    _add_usage(commands)
    _add_backup(commands)
    _add_doctor(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser, of every command too, whose help ends with the exit codes."""

    def __init__(self, **words: Any) -> None:  # noqa: ANN401 -- argparse's own
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **{"epilog": EXIT_CODES} | words)


def _add_serve(commands: _Commands) -> None:
    serve = commands.add_parser(
        "serve",
        help="start the server",
        description="Start the server and run it until SIGTERM or Ctrl+C. On the first signal, new requests "
        "are refused and running jobs get DRAIN_TIMEOUT seconds to finish. A second signal stops the server at once; "
        "unfinished jobs continue at the next start.",
        epilog="exit codes:\n  0    stopped after the first signal\n"
        "  1    could not start; one line on standard error says why\n"
        "  130  stopped at once by a second Ctrl+C\n  143  stopped at once by a second SIGTERM\n",
    )
    serve.set_defaults(run="server.serving:serve")


def _add_engine(commands: _Commands) -> None:
    engine = commands.add_parser(
        "engine",
        help="serve this machine's engines to a server elsewhere",
        description="Draw for servers that name this machine in ENGINES, on HOST and PORT, until SIGTERM or Ctrl+C. "
        "On the first signal, no more jobs are taken and running ones get DRAIN_TIMEOUT seconds to finish. A second "
        "signal stops the engine at once; the server draws the jobs elsewhere.",
        epilog="exit codes:\n  0    stopped after the first signal\n"
        "  1    could not start; one line on standard error says why\n"
        "  130  stopped at once by a second Ctrl+C\n  143  stopped at once by a second SIGTERM\n",
    )
    engine.set_defaults(run="server.engine_serving:engine")


def _add_jobs(commands: _Commands) -> None:
    jobs = commands.add_parser(
        "jobs",
        help="list, show, cancel and requeue jobs",
        description="Look at jobs and change them, in the running server or, if none runs, in its store.",
    )
    actions = jobs.add_subparsers(required=True, metavar="ACTION")

    listing = actions.add_parser("list", help="list the newest jobs, one line each")
    listing.add_argument(
        "--status",
        action="append",
        choices=get_args(JobStatus),
        default=[],
        help="only jobs with this status; may be repeated",
    )
    listing.add_argument("--user", help="only jobs on behalf of this user")
    listing.add_argument("--limit", type=_positive, default=20, help="at most this many jobs (default 20)")
    listing.add_argument("--json", action="store_true", help="as JSON, without prompts")
    listing.set_defaults(run="server.cli.jobs:list_jobs")

    showing = actions.add_parser("show", help="show everything about a job")
    showing.add_argument("id", type=_job_id, metavar="ID")
    showing.add_argument("--prompt", action="store_true", help="show its prompts too")
    showing.add_argument("--json", action="store_true", help="as JSON")
    showing.set_defaults(run="server.cli.jobs:show_job")

    cancelling = actions.add_parser("cancel", help="cancel a job before its next step")
    cancelling.add_argument("id", type=_job_id, metavar="ID")
    cancelling.set_defaults(run="server.cli.jobs:cancel_job")

    requeueing = actions.add_parser("requeue", help="retry a dead job")
    requeueing.add_argument("id", type=_job_id, metavar="ID")
    requeueing.set_defaults(run="server.cli.jobs:requeue_job")


def _add_keys(commands: _Commands) -> None:
    keys = commands.add_parser(
        "keys",
        help="create, list, rotate and revoke API keys",
        description="API keys of the running server or, if none runs, of its store. As soon as one exists, every "
        "caller needs one.",
    )
    actions = keys.add_subparsers(required=True, metavar="ACTION")

    creating = actions.add_parser("create", help="create a key; it is printed once, alone on standard output")
    creating.add_argument("--name", type=_key_name, required=True, help="who or what the key is for")
    creating.add_argument(
        "--scope", action="append", choices=get_args(Scope), help="may be repeated (default: generate and read)"
    )
    creating.add_argument(
        "--expires-days", type=_days, metavar="D", help="expire after this many days (default: never)"
    )
    creating.add_argument(
        "--take-over-local", action="store_true", help="make the key the owner of the jobs drawn before there were keys"
    )
    creating.set_defaults(run="server.cli.keys:create_key")

    listing = actions.add_parser("list", help="list all keys, revoked and expired ones too, one line each")
    listing.add_argument("--json", action="store_true", help="as JSON")
    listing.set_defaults(run="server.cli.keys:list_keys")

    rotating = actions.add_parser("rotate", help="replace a key's secret; the new key is printed once")
    rotating.add_argument("id", type=_key_id, metavar="ID")
    rotating.add_argument(
        "--grace-hours", type=_hours, default=24.0, metavar="H", help="hours the old secret stays valid (default 24)"
    )
    rotating.set_defaults(run="server.cli.keys:rotate_key")

    revoking = actions.add_parser("revoke", help="revoke a key for good, at once")
    revoking.add_argument("id", type=_key_id, metavar="ID")
    revoking.set_defaults(run="server.cli.keys:revoke_key")


def _add_backup(commands: _Commands) -> None:
    backup = commands.add_parser(
        "backup",
        help="back up jobs, pictures and keys into one file, while the server runs",
        description="Write all stored data into one tar archive with checksums: of the running server, which "
        "stays available, or of DATA_DIR if none runs. Settings, certificates and models are not included.",
    )
    backup.add_argument("file", metavar="FILE", help="must not exist yet; - is standard output")
    backup.set_defaults(run="server.cli.backup:backup")

    restore = commands.add_parser(
        "restore",
        help="restore a backup into an empty DATA_DIR",
        description="Restore a backup into DATA_DIR: completely, or not at all. It must be empty, and no server may "
        "run in it. Unfinished jobs in the backup continue at the next start.",
    )
    restore.add_argument("file", metavar="FILE", help="a file written by `backup`; - is standard input")
    restore.set_defaults(run="server.cli.backup:restore")


def _add_usage(commands: _Commands) -> None:
    usage = commands.add_parser(
        "usage",
        help="usage and cost by day, key and user",
        description="Usage by the day (UTC) on which jobs ended, from the running server or, if "
        "none runs, from its store.",
    )
    usage.add_argument(
        "--from", dest="first_day", type=date.fromisoformat, metavar="DAY", help="first day (default: 30 days)"
    )
    usage.add_argument(
        "--to", dest="last_day", type=date.fromisoformat, metavar="DAY", help="last day, included (default: today)"
    )
    usage.add_argument("--key", metavar="ID", help="only jobs of this API key")
    usage.add_argument("--user", help="only jobs on behalf of this user")
    usage.add_argument(
        "--by", action="append", choices=get_args(Grouping), help="group by this; may be repeated (default: all three)"
    )
    forms = usage.add_mutually_exclusive_group()
    forms.add_argument("--csv", action="store_true", help="as CSV")
    forms.add_argument("--json", action="store_true", help="as JSON")
    usage.set_defaults(run="server.cli.usage:show_usage")


def _add_doctor(commands: _Commands) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="check the installation and say how to fix problems",
        description="Check device, model, disk, port, job store and settings. Changes nothing.",
        epilog="exit codes:\n  0    no failures found\n  1    at least one FAIL\n",
    )
    doctor.add_argument("--json", action="store_true", help="as JSON")
    doctor.set_defaults(run="server.cli.doctor:doctor")

    health = commands.add_parser(
        "health",
        help="the running server's status, for containers and scripts",
        description="Print the running server's status: healthy, loading, degraded, failed or draining.",
        epilog="exit codes:\n  0    healthy, loading or degraded\n  1    failed or draining\n"
        "  3    no server responds\n",
    )
    health.set_defaults(run="server.cli.health:health")


def _checked(read: Callable[[str], _T], is_legal: Callable[[_T], object], rule: str) -> Callable[[str], _T]:
    """The type of an argument: how it is read, and the rule for its values."""

    def value_of(text: str) -> _T:
        try:
            value = read(text)
        except ValueError:
            raise argparse.ArgumentTypeError(rule) from None
        if not is_legal(value):
            raise argparse.ArgumentTypeError(rule)
        return value

    return value_of


_job_id = _checked(str, re.compile("[0-9a-f]{16}").fullmatch, "a job's id is 16 hexadecimal digits")
_key_id = _checked(
    str, re.compile("[0-9a-f]{12}").fullmatch, "a key's id is 12 hexadecimal digits: the part after sb_live_"
)
_key_name = _checked(
    str, lambda name: 1 <= len(name) <= 64 and name.isprintable(), "a name has 1 to 64 printable characters"
)
_days = _checked(float, lambda days: 0 < days <= 36_500, "must be more than 0, and at most 36500")
_hours = _checked(float, lambda hours: 0 <= hours <= 8760, "must be 0 or more, and at most 8760")
_positive = _checked(int, lambda number: number >= 1, "must be 1 or more")
