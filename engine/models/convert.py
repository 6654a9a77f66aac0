"""Converts a model for OpenVINO into its cache: `python -m engine.models.convert MODEL_FOLDER CACHE_FOLDER THREADS`.

How it is begun and listened to is in `engine/backends/conversion_process.py`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from engine.backends.conversion_process import REFUSED
from engine.errors import ModelLoadError

if TYPE_CHECKING:
    from engine.backends.openvino_backend import OpenVinoBackend

__all__ = ["main"]


def main() -> None:
    """Convert what is missing. Exit code 0 only if all of it can be read afterwards."""
    model_folder, cache_folder, num_threads = sys.argv[1:]
    threading.Thread(target=_end_with_the_engine, name="engine-line", daemon=True).start()
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)
    logging.getLogger().handlers[0].setFormatter(_OneLine())
    logging.getLogger("engine").setLevel(logging.DEBUG)
    try:
        _convert(Path(model_folder), Path(cache_folder), int(num_threads) if num_threads else None)
    except ModelLoadError as error:
        logging.getLogger(__name__).error("%s", error)  # noqa: TRY400 - a sentence for the operator, one line
        raise SystemExit(REFUSED) from None
    except Exception as error:  # noqa: BLE001 -- the border: the engine goes on without its result
        logging.getLogger(__name__).error("the conversion failed: %s: %s", type(error).__name__, error)  # noqa: TRY400 - the same
        raise SystemExit(1) from None


def _convert(model_folder: Path, cache_folder: Path, num_threads: int | None) -> None:
    import torch  # noqa: PLC0415 - the thread that watches for the engine's end runs before

    from engine.backends.choice import choose_backend  # noqa: PLC0415 - imports torch
    from engine.models.parts import network_parts  # noqa: PLC0415 - the same

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    device = torch.device("cpu")
    backend: OpenVinoBackend = choose_backend("openvino", device, torch.float32, cache_folder)  # type: ignore[assignment] # no other is chosen for this wish
    parts = network_parts(model_folder, torch.float32, device).values()
    for network, examples in parts:
        backend.convert(network, examples)
    if not all(backend.is_converted(network, examples) for network, examples in parts):
        raise SystemExit(1)


def _end_with_the_engine() -> None:
    """However that one ends, its end of the line is closed then. The main thread may be inside the compiler."""
    while os.read(0, 4096):  # not by `sys.stdin`, whose lock would hold up the end of the interpreter
        pass
    os._exit(1)


class _OneLine(logging.Formatter):
    """`WARNING what happened`, whatever is in it."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname} {' '.join(super().format(record).split())}"


if __name__ == "__main__":
    main()
