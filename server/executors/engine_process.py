"""The engine process: `python -m server.executors.engine_process FD`. Loads the model, then draws what it is told.

How it listens, and when it ends, is in `line.py`.
"""

from __future__ import annotations

import time

import structlog

from engine.errors import EngineError
from server.executors.line import Line
from server.executors.messages import LoadFailed, LoadProgress, Ready
from server.telemetry_logs import configure_logging


def main() -> None:
    """Load, say so, and draw until the line closes."""
    began = time.perf_counter()
    line, configuration = Line.inherited()
    configure_logging(configuration.log_level, configuration.log_format, shows_prompts=configuration.log_prompts)
    from server.executors.start_up import start_engine  # noqa: PLC0415 - torch takes seconds to import; timed here
    from server.executors.worker import EngineWorker  # noqa: PLC0415 - the same

    line.send(LoadProgress("import", time.perf_counter() - began))
    try:
        engine, info = start_engine(configuration, line.send)
    except EngineError as error:
        line.send(LoadFailed(str(error)))
        return
    worker = EngineWorker(engine, line.send)
    line.hand_messages_to(worker.handle)
    line.send(Ready(info))
    try:
        worker.run()
    except Exception:  # noqa: BLE001 -- the border: whatever it was, the gateway starts another
        structlog.get_logger("server.engine").critical("the engine process ends", exc_info=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
