"""Warm-up of a loaded model; measures the best number of rows per call on this device."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import replace
from statistics import median
from typing import Final

import torch

from engine.engine import Engine, is_out_of_memory
from engine.events import Failed, Finished, WorkItem
from engine.models.base import DiffusionModel, EncodedPrompt
from engine.params import GenerationParams
from engine.prompts.prompt import Prompt

__all__ = ["WarmUp", "measure_rows_per_call"]

logger = logging.getLogger(__name__)

CPU_ROWS: Final = 2
"""One guided picture: on a CPU larger calls gain next to nothing, and finish every picture later."""

CANDIDATE_ROWS: Final = (2, 4, 8, 16, 32)
WORTHWHILE_GAIN: Final = 1.05
"""Doubling the rows must raise the rows a second by 5 %, or the smaller call wins: its pictures finish sooner."""
TIMED_CALLS: Final = 3

_REQUEST_ID: Final = "warm-up"


@torch.inference_mode()
def measure_rows_per_call(model: DiffusionModel) -> int:
    """Find the knee of rows against time at the model's native size.

    Returns:
        Model rows; a power of two, so that noise in the timings seldom changes it from one start to the next.
    """
    if model.info.device.type == "cpu":
        return CPU_ROWS
    prompt = model.encode_prompt(Prompt(""))
    best_rows, best_rate = CANDIDATE_ROWS[0], 0.0
    for rows in CANDIDATE_ROWS:
        try:
            rate = rows / _seconds_per_call(model, rows, prompt)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            torch.cuda.empty_cache()
            break
        logger.info("%d rows per call: %.0f rows/s", rows, rate)
        if rate < best_rate * WORTHWHILE_GAIN:
            break
        best_rows, best_rate = rows, rate
    return best_rows


def _seconds_per_call(model: DiffusionModel, rows: int, prompt: EncodedPrompt) -> float:
    info = model.info
    size = info.latent_shape(info.native_height, info.native_width)[1:]
    latents = torch.zeros(rows, info.input_channels, *size, device=info.device)
    time_ = model.embed_time(torch.tensor([500.0], device=info.device), prompt).expand(rows, -1).contiguous()
    attended = prompt.attended.expand(rows, -1, -1).contiguous()
    seconds: list[float] = []
    for _ in range(1 + TIMED_CALLS):  # the first one chooses kernels
        began = time.perf_counter()
        model.denoise(latents, time_, attended)
        torch.cuda.synchronize(info.device)
        seconds.append(time.perf_counter() - began)
    return median(seconds[1:])


class WarmUp:
    """Makes an engine as quick as it will be, piece by piece, while nobody waits. Belongs to the engine's thread.

    The default request's table is read and a picture of two steps is drawn at the native size. Requests then find their
    table made and every kernel chosen, and how long each kind of work takes is known. Pictures do not depend on it.
    """

    def __init__(self, engine: Engine, *, sampler: str, noise_schedule: str, num_inference_steps: int) -> None:
        """Plan it; nothing is done yet.

        Args:
            engine: to be warmed.
            sampler: of the default request, as the other two.
            noise_schedule: a key of `NOISE_SCHEDULES`.
            num_inference_steps: its steps.
        """
        self._engine = engine
        info = engine.model.info
        self._default = GenerationParams(
            prompt="warm-up",
            num_inference_steps=num_inference_steps,
            height=info.native_height,
            width=info.native_width,
            seed=0,
            sampler=sampler,
            noise_schedule=noise_schedule,
        )
        # Tables first: on the first start of all, diffusers is imported for them.
        self._pieces = deque([engine.learn_colours, self._read_table, self._draw])
        self._is_drawing = False
        self._work: dict[str, WorkItem] = {}

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return not self._pieces

    def take_piece(self) -> list[WorkItem]:
        """Do the next piece: at most one call of a network, or a table.

        Returns:
            With the last piece, the last work item of each kind: it says best how long the next one will take.

        Raises:
            EngineError: the model cannot draw even this.
        """
        self._pieces[0]()
        if not self._is_drawing:
            self._pieces.popleft()
        return list(self._work.values()) if self.is_done else []

    def step_aside(self) -> None:
        """Leave the engine to requests. A picture that was begun is begun anew."""
        if self._is_drawing:
            self._engine.cancel(_REQUEST_ID)
            self._is_drawing = False

    def _read_table(self) -> None:
        self._engine.prepare(_REQUEST_ID, self._default)

    def _draw(self) -> None:
        if not self._is_drawing:
            self._engine.add(self._engine.prepare(_REQUEST_ID, replace(self._default, num_inference_steps=2)))
            self._is_drawing = True
        for event in self._engine.step():
            match event:
                case Failed():
                    raise event.error
                case WorkItem():
                    self._work[event.kind] = event
                case Finished():
                    self._is_drawing = False
