"""Our engine without server, queue and picture files. Imports torch."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from benchmarks.common.drawn import Drawn, Pixels
from engine.events import Failed, ImageDrawn
from engine.params import GenerationParams
from server.executors.messages import Configure
from server.worker.start_up import start_engine

__all__ = ["EngineInProcess"]


class EngineInProcess:
    """The engine, loaded and warmed up as the server does it."""

    def __init__(self, configuration: Configure) -> None:
        self._engine, self.info = start_engine(configuration, lambda _message: None)

    def draw(self, requests: Sequence[GenerationParams]) -> Drawn:
        """Draw requests of one picture each that come all at once."""
        began = time.perf_counter()
        finished_s = [0.0] * len(requests)
        pictures: list[Pixels] = [np.empty(0, np.uint8)] * len(requests)
        for index, params in enumerate(requests):
            self._engine.add(self._engine.prepare(str(index), params))
        while self._engine.has_work:
            for event in self._engine.step():
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, ImageDrawn):
                    finished_s[int(event.request_id)] = time.perf_counter() - began
                    pictures[int(event.request_id)] = event.pixels
        return Drawn(finished_s, pictures)
