"""The command `doctor`: checks the installation and suggests fixes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict

from server.cli.doctor.configuration import look_at_configuration
from server.cli.doctor.data import look_at_data
from server.cli.doctor.engines import look_at_engines
from server.cli.doctor.finding import Finding
from server.cli.doctor.gpu import look_at_gpu
from server.cli.doctor.keys import look_at_keys
from server.cli.doctor.machine import look_at_machine
from server.cli.doctor.model import look_at_model
from server.cli.doctor.network import look_at_port
from server.cli.doctor.tls import look_at_tls
from server.cli.output import as_json, say
from server.config import Settings, StartError
from server.settings_file import load_settings

__all__ = ["doctor"]


def doctor(arguments: argparse.Namespace) -> int:
    """Print every finding as soon as it is made, or all of them as JSON at the end.

    Returns:
        The exit code: 1 if anything keeps the server from working.
    """
    findings: list[Finding] = []
    for finding in _look():
        findings.append(finding)
        if not arguments.json:
            say(finding.as_text())
    is_well = all(finding.level != "FAIL" for finding in findings)
    if arguments.json:
        say(as_json({"ok": is_well, "findings": [asdict(finding) for finding in findings]}))
    return 0 if is_well else 1


def _look() -> Iterator[Finding]:
    settings: Settings | None = None
    try:
        settings = load_settings()
    except StartError as error:
        yield Finding("settings", "FAIL", str(error), "correct it in .env or in the environment; see .env.example")
    yield from look_at_configuration()
    yield from look_at_machine()
    yield from look_at_gpu(settings.device if settings else "auto")
    if settings is None:
        return
    yield from look_at_model(settings.model_id)
    yield from look_at_data(settings.server_folder, settings.keep_results_mib * 2**20)
    yield from look_at_keys(settings.host, settings.server_folder, has_environment_key=settings.api_key is not None)
    yield from look_at_tls(settings)
    yield from look_at_engines(settings)
    yield from look_at_port(settings.host, settings.port, settings.server_folder)
