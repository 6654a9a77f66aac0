"""A gateway of a few lines around a real engine with a scripted clock: what estimates are compared with."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from engine.engine import Engine
from engine.events import Finished, ImageDrawn, StepTaken, WorkItem
from engine.models.base import EncodedImage, EncodedPrompt
from engine.models.fake import FakeModel
from engine.params import GenerationParams
from engine.picture_params import Hires, InputImage
from engine.prompts.prompt import Prompt
from server.executors.messages import EngineInfo, WorkDone
from server.executors.work_times import WorkTimes
from server.jobs.eta_simulation import Running, simulate

IMAGE = InputImage(sha256="0" * 64, width=64, height=64)
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def params(**changes: object) -> GenerationParams:
    default = GenerationParams(prompt="a lamp", num_inference_steps=10, height=64, width=64, seed=1)
    return replace(default, **changes)  # type: ignore[arg-type] # the names of its fields


class ScriptedModel(FakeModel):
    """Takes the time that a script says, give or take a tenth, on a clock of its own."""

    def __init__(
        self,
        step_s: Callable[[int, int], float],
        decode_s: Callable[[int], float],
        encode_s: float,
        *,
        jitter: float = 0.1,
        max_rows: int | None = None,
    ) -> None:
        super().__init__(max_rows=max_rows)
        self.now = 0.0
        self._step_s, self._decode_s, self._encode_s = step_s, decode_s, encode_s
        self._jitter = jitter
        self._random = random.Random(7)

    def _take(self, seconds: float) -> None:
        self.now += seconds * self._random.uniform(1 - self._jitter, 1 + self._jitter)

    def encode_prompt(self, prompt: Prompt, num_chunks: int = 1) -> EncodedPrompt:
        self._take(self._encode_s)
        return super().encode_prompt(prompt, num_chunks)

    def denoise(self, latents: torch.Tensor, time: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        rows, _, height, width = latents.shape
        if self.max_rows is not None and rows > self.max_rows:
            raise torch.OutOfMemoryError
        self._take(self._step_s(rows, 64 * height * width))
        return latents * 0.1

    def encode_image(self, pixels: torch.Tensor, hidden: torch.Tensor | None = None) -> EncodedImage:
        height, width, _ = pixels.shape
        self._take(self._decode_s(height * width) / 2)
        return super().encode_image(pixels, hidden)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        _, height, width = latents.shape
        self._take(self._decode_s(64 * height * width))
        return torch.zeros(8 * height, 8 * width, 3, dtype=torch.uint8)


@dataclass
class Host:
    """A gateway of a few lines around a real engine: hands over what there is room for, and notes who ended when."""

    model: ScriptedModel
    rows_per_call: int
    max_images_in_flight: int
    round_s: float
    """A call of every size in `mixed_queue`, and a few decodes."""
    times: WorkTimes = field(default_factory=WorkTimes)
    queued: deque[tuple[str, GenerationParams]] = field(default_factory=deque)
    running: dict[str, GenerationParams] = field(default_factory=dict)
    calls: dict[str, list[int]] = field(default_factory=dict)
    """Job -> calls that each of its pictures has taken."""
    finished: dict[str, set[int]] = field(default_factory=dict)
    """Job -> which of its pictures are finished."""
    ended: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = Engine(
            self.model,
            rows_per_call=self.rows_per_call,
            max_images_in_flight=self.max_images_in_flight,
            clock=lambda: self.model.now,
        )
        self.info = EngineInfo("fake", "cpu", "CPU", "float32", 64, 64, self.rows_per_call, self.max_images_in_flight)

    def accept(self, wishes: Sequence[GenerationParams]) -> None:
        for wish in wishes:
            number = len(self.calls) + 1
            self.calls[f"{number}"] = [0] * wish.num_images
            self.finished[f"{number}"] = set()
            self.queued.append((f"{number}", replace(wish, prompt=f"{wish.prompt} {number}")))

    def go_on(self) -> None:
        while self.queued and self._has_room():
            job_id, wish = self.queued.popleft()
            self.running[job_id] = wish
            self.engine.add(self.engine.prepare(job_id, wish, inputs={IMAGE.sha256: PIXELS}))
        for event in self.engine.step():
            match event:
                case WorkItem():
                    self.times.observe(WorkDone(event.kind, event.seconds, event.rows, event.height, event.width))
                case StepTaken():
                    self.calls[event.request_id][event.image_index] += 1
                case ImageDrawn():
                    self.finished[event.request_id].add(event.image_index)
                case Finished():
                    self.ended[event.request_id] = self.model.now
                    del self.running[event.request_id]

    def _has_room(self) -> bool:
        free = self.max_images_in_flight - sum(wish.num_images for wish in self.running.values())
        return not self.running or self.queued[0][1].num_images <= free

    def _calls_left(self, job_id: str, wish: GenerationParams) -> list[int]:
        taken = enumerate(self.calls[job_id])
        # As `LiveJob.calls_left`.
        left = ((index, min(wish.model_calls, wish.progress_steps - calls)) for index, calls in taken)
        return [calls for index, calls in left if index not in self.finished[job_id]]

    def run_until(self, is_enough: Callable[[], bool]) -> None:
        while (self.queued or self.running) and not is_enough():
            self.go_on()

    def foretold(self) -> dict[str, float] | None:
        """Job -> when it will end, on the model's clock."""
        running = [Running(wish, self._calls_left(job_id, wish)) for job_id, wish in self.running.items()]
        simulation = simulate(running, [wish for _, wish in self.queued], self.info, self.times)
        job_ids = [*self.running, *(job_id for job_id, _ in self.queued)]
        if simulation is None:
            return None
        return {job: self.model.now + end for job, end in zip(job_ids, simulation.ends, strict=True)}

    def estimated(self, *wishes: GenerationParams) -> list[float]:
        """Seconds until jobs will end that come to an idle engine."""
        simulation = simulate([], wishes, self.info, self.times)
        assert simulation is not None
        return simulation.ends


def slow_host() -> Host:
    """Two rows a call and one picture at a time, as on a CPU: time goes with rows and pixels."""
    model = ScriptedModel(lambda rows, pixels: rows * pixels * 1e-5, lambda pixels: pixels * 3e-5, encode_s=0.02)
    return Host(model, rows_per_call=2, max_images_in_flight=1, round_s=0.1)


def wide_host() -> Host:
    """Thirty-two rows a call and sixteen pictures together, as on a GPU."""
    model = ScriptedModel(
        lambda rows, pixels: 0.002 + rows * pixels * 2e-7, lambda pixels: pixels * 1e-6, encode_s=0.004
    )
    return Host(model, rows_per_call=32, max_images_in_flight=16, round_s=0.3)


def mixed_queue(number: int, seed: int) -> list[GenerationParams]:
    chance = random.Random(seed)
    return [
        params(
            num_inference_steps=chance.choice([3, 6, 14]),
            guidance_scale=chance.choice([1.0, 7.0, 7.0]),
            width=chance.choice([64, 64, 64, 96, 160]),
            num_images=chance.choice([1, 1, 2, 5]),
            sampler=chance.choice(["DPMSolver++", "Heun"]),
        )
        for _ in range(number)
    ]


def hires_fix(steps: int, upscaler: str) -> Hires:
    return Hires(width=128, height=128, steps=steps, strength=0.5, upscaler=upscaler)


def queue_with_pictures(number: int, seed: int) -> list[GenerationParams]:
    """Text, images of several strengths, and hires fixes."""
    chance = random.Random(seed)
    return [
        params(num_images=chance.choice([1, 1, 3]), num_inference_steps=chance.choice([6, 14]), **wish)
        for wish in chance.choices(
            [
                {},
                {"image": IMAGE, "strength": 0.25},
                {"image": IMAGE, "strength": 0.75, "width": 160},
                {"hires": hires_fix(3, "latent")},
                {"hires": hires_fix(6, "lanczos"), "guidance_scale": 1.0},
            ],
            k=number,
        )
    ]
