"""The command `python -m server serve`: starts the engine process, then imports the gateway beside it.

The engine's imports take longest on the way to the first picture, so nothing comes before them but the settings.
"""

from __future__ import annotations

import argparse
import gc
import sys

from server.config import Settings, StartError
from server.executors.devices import local_devices
from server.executors.engine_process import EngineProcess, configuration_of
from server.settings_file import load_settings

__all__ = ["serve"]


def serve(_arguments: argparse.Namespace | None = None) -> None:
    """Run the server until SIGTERM or Ctrl+C. Ends the process: 0 after a stop that was asked for."""
    begun = None
    try:
        settings = load_settings()
        begun = _engine_of(settings)
        # Nothing of what is imported becomes garbage; looking for some takes a tenth of the time.
        gc.disable()
        from server.draining_server import run  # noqa: PLC0415 - the web framework, half a second: beside the engine

        gc.enable()
        run(settings, begun)
    except StartError as error:
        sys.exit(f"error: {error}")
    finally:
        if begun is not None:
            begun.abandon()


def _engine_of(settings: Settings) -> EngineProcess | None:
    """Its engine process, begun; None where the app starts one, or that fails and is tried again there."""
    if settings.reload:
        return None  # the app is made in another process, and anew after every change
    device = next(iter(local_devices(settings)), None)
    if device is None:
        return None  # others draw
    try:
        return EngineProcess.start(configuration_of(settings, device))
    except OSError:
        return None
