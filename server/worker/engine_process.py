"""The engine process: `python -m server.worker.engine_process FD`. Loads the model, then draws.

How it listens, and when it ends, is in `gateway_link.py`.
"""

from __future__ import annotations

import gc
import time

import structlog

from engine.errors import EngineError
from server.executors.messages import LoadFailed, Loading, LoadProgress, Ready
from server.log_format import configure_logging
from server.worker.conversion import begun_conversion
from server.worker.gateway_link import Line


def main() -> None:
    """Load, say so, and draw until the line closes."""
    line, configuration = Line.inherited()
    configure_logging(configuration.log_level, configuration.log_format, shows_prompts=configuration.log_prompts)
    conversion = begun_conversion(configuration)
    # Looking for garbage among what is imported takes an eighth of the time; a warm engine looks once.
    gc.disable()
    began = time.perf_counter()
    line.send(Loading("import"))
    from server.worker.engine_worker import EngineWorker  # noqa: PLC0415 - torch takes seconds to import; timed here
    from server.worker.model_hash import model_hashes  # noqa: PLC0415 - the same
    from server.worker.models import shelf_of  # noqa: PLC0415 - the same
    from server.worker.start_up import start_engine, warm_up_of  # noqa: PLC0415 - the same

    line.send(LoadProgress("import", time.perf_counter() - began))
    try:
        engine, info = start_engine(configuration, line.send, conversion)
    except EngineError as error:
        line.send(LoadFailed(str(error)))
        return
    except Exception:  # noqa: BLE001 -- the border: memory or device may be free for the next one
        structlog.get_logger("server.engine").critical("loading the model failed", exc_info=True)
        raise SystemExit(1) from None
    gc.freeze()
    gc.enable()
    is_warm = configuration.warms_up_first
    worker = EngineWorker(
        engine,
        line.send,
        None if is_warm else warm_up_of(engine, configuration),
        model_name=configuration.model_name,
        backend=info.backend,
        model_hash=model_hashes(configuration, prefer_fp16=engine.model.info.dtype.itemsize == 2),
        shelf=shelf_of(configuration, engine, info),
    )
    del engine  # it may have to make room for another model
    line.hand_messages_to(worker.handle)
    line.send(Ready(info, is_warm=is_warm))
    try:
        worker.run()
    except Exception:  # noqa: BLE001 -- the border: whatever it was, the gateway starts another
        structlog.get_logger("server.engine").critical("engine process failed", exc_info=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
