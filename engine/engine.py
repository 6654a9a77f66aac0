"""The engine: requests of any kind share one running batch, and join and leave it between steps.

Knows nothing of HTTP, threads or processes: whoever owns an `Engine` calls `step` until there is no work left.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from engine.batch import Batch, ModelInput
from engine.batch_scheduler import BatchScheduler
from engine.errors import DeviceError, DoesNotFitError, EngineError, NotFiniteError
from engine.events import (
    EngineEvent,
    Failed,
    Finished,
    ImageDrawn,
    PhaseTimes,
    PreviewTaken,
    RanOutOfMemory,
    StepTaken,
    WorkItem,
)
from engine.journey import JourneyCache, Route
from engine.models.base import DiffusionModel
from engine.pacing import Pacer
from engine.params import GenerationParams
from engine.previews import PREVIEW_INTERVAL_S, Previewer
from engine.prompts import PromptEncoder
from engine.samplers import resolve_sampler
from engine.state import DenoisingState, make_state

__all__ = ["Engine", "PreparedRequest"]

logger = logging.getLogger(__name__)

_OUT_OF_MEMORY_PHRASES = ("ALLOC_FAILED", "CUDA error: out of memory", "unable to find an engine to execute")


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request with all that can be made ready outside the engine's thread: tables and noise."""

    request_id: str
    states: Sequence[DenoisingState]
    """One a picture."""
    truncated_tokens: int
    wants_previews: bool


@dataclass(slots=True)
class _Request:
    """What the engine remembers of a request whose pictures it draws."""

    id: str
    truncated_tokens: int
    num_unfinished: int
    next_preview_at: float
    """On the engine's clock; infinity where nobody looks."""
    encode_s: float = 0.0
    decode_s: float = 0.0
    denoise_began: float | None = None
    denoise_ended: float = 0.0

    def times(self) -> PhaseTimes:
        began = self.denoise_ended if self.denoise_began is None else self.denoise_began
        return PhaseTimes(encode_s=self.encode_s, denoise_s=self.denoise_ended - began, decode_s=self.decode_s)


class Engine:
    """Draws pictures, step by step. Owned by one thread; only `prepare` may be called from another."""

    def __init__(
        self,
        model: DiffusionModel,
        *,
        rows_per_call: int = 2,
        max_images_in_flight: int | None = None,
        is_reproducible: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Make an engine around a loaded model.

        Args:
            model: what predicts, encodes and decodes.
            rows_per_call: model rows in one call, at least 2; a guided picture takes two.
            max_images_in_flight: pictures that take turns in the batch; the others wait. None: as many guided ones as
                `rows_per_call` holds.
            is_reproducible: give every call of one latent size the same number of rows, so that a picture's bytes do
                not depend on its neighbours.
            clock: seconds, for phase times.
        """
        self.model = model
        self.max_images_in_flight = max_images_in_flight or max(1, rows_per_call // 2)
        self.journeys = JourneyCache(model.info.scheduler_config)
        self._prompts = PromptEncoder(model)
        self._batch_scheduler = BatchScheduler(rows_per_call=rows_per_call, is_reproducible=is_reproducible)
        self._pacer = Pacer(model.info.device)
        self._previewer = Previewer(model)
        self._clock = clock
        self._requests: dict[str, _Request] = {}
        self._waiting: deque[DenoisingState] = deque()
        self._running: list[DenoisingState] = []
        self._denoised: deque[DenoisingState] = deque()
        # The last work item was a decode: a running batch gets its step before the next one.
        self._has_just_decoded = False
        # Something did not fit beside the running pictures: nobody joins until it has been done.
        self._is_draining_for_memory = False

    @property
    def has_work(self) -> bool:
        """Whether `step` would do something."""
        return bool(self._waiting or self._running or self._denoised)

    def prepare(self, request_id: str, params: GenerationParams, *, wants_previews: bool = False) -> PreparedRequest:
        """Do all that need not hold up the batch: read the sampler's table, draw the noise. Any thread may call this.

        Args:
            request_id: what its events are known by.
            params: what to draw.
            wants_previews: whether anybody looks while it is drawn. The finished pictures are the same.

        Raises:
            InvalidParamsError: this model cannot do what was asked.
        """
        sampler, noise_schedule = resolve_sampler(params.sampler, params.noise_schedule)
        journey = self.journeys.get(
            Route(
                sampler=sampler,
                noise_schedule=noise_schedule,
                num_inference_steps=params.num_inference_steps,
                eta=params.eta if params.eta is not None else sampler.default_eta,
            )
        )
        info = self.model.info
        states = [
            make_state(request_id, params, index, journey, latent_channels=info.latent_channels, device=info.device)
            for index in range(params.num_images)
        ]
        texts = [params.prompt, params.negative_prompt] if params.is_guided else [params.prompt]
        truncated_tokens = sum(self.model.count_truncated_tokens(text) for text in texts)
        return PreparedRequest(request_id, states, truncated_tokens, wants_previews)

    def add(self, request: PreparedRequest) -> None:
        """Take a request in; its pictures join the batch, in order, as soon as there is room."""
        self._requests[request.request_id] = _Request(
            request.request_id,
            request.truncated_tokens,
            num_unfinished=len(request.states),
            next_preview_at=-math.inf if request.wants_previews else math.inf,
        )
        self._waiting.extend(request.states)

    def cancel(self, request_id: str) -> None:
        """Forget a request before the next step, without an event. Unknown ids are ignored."""
        if self._requests.pop(request_id, None) is None:
            return
        self._waiting = deque(state for state in self._waiting if state.request_id != request_id)
        self._running = [state for state in self._running if state.request_id != request_id]
        self._denoised = deque(state for state in self._denoised if state.request_id != request_id)

    @torch.inference_mode()
    def step(self) -> list[EngineEvent]:
        """Do the next piece of work: read a prompt, take a step with everyone who can, or decode a finished picture.

        Raises:
            DeviceError: the device failed; this process must end.
        """
        self._let_in()
        unread = next((state for state in self._running if not state.is_encoded), None)
        if unread is not None:
            return self._encode(unread)
        if self._denoised and not self._should_step_first():
            return self._decode(self._denoised[0])
        if self._running:
            return self._denoise()
        return []

    def _let_in(self) -> None:
        """Let waiting pictures join the batch while there is room."""
        if self._is_draining_for_memory:
            self._is_draining_for_memory = bool(self._running or self._denoised)
        while self._waiting and self._has_room():
            self._running.append(self._waiting.popleft())

    def _has_room(self) -> bool:
        return len(self._running) < self.max_images_in_flight and not self._is_draining_for_memory

    def _should_step_first(self) -> bool:
        """A decode takes as long as a few steps: it never comes twice in a row, nor where memory waits for it."""
        return bool(self._running) and (self._has_just_decoded or self._is_draining_for_memory)

    def _encode(self, state: DenoisingState) -> list[EngineEvent]:
        request = self._requests[state.request_id]
        began = self._clock()
        try:
            prompt_embeds = self._prompts.encode(state.prompt)
            if state.negative_prompt is not None:
                state.negative_prompt_embeds = self._prompts.encode(state.negative_prompt)
        except Exception as error:  # noqa: BLE001 - whatever a model raises ends only the request it is raised for
            ran_out: list[EngineEvent] = []
            if _is_out_of_memory(error):
                # Text takes so little memory that nothing else would fit either.
                error = DoesNotFitError("the prompt does not fit into the device's memory")
                ran_out = [RanOutOfMemory("encode")]
            return [*ran_out, self._fail(state.request_id, self._translated(error, "reading the prompt", [state]))]
        state.prompt_embeds = prompt_embeds
        seconds = self._clock() - began
        request.encode_s += seconds
        whose = {state.request_id: state.num_rows}
        return [WorkItem("encode", seconds, state.num_rows, height=0, width=0, rows_by_request=whose)]

    def _denoise(self) -> list[EngineEvent]:
        """Choose who takes part, and take the step. If it fails for all, find out who cannot."""
        self._has_just_decoded = False
        batch = self._batch_scheduler.next_batch(self._running)
        try:
            return self._take_step(batch)
        except Exception as error:  # noqa: BLE001 - as above
            if _is_out_of_memory(error):
                return self._make_room(batch)
            translated = self._translated(error, "taking a step", batch.states)
            if len(batch.states) == 1:
                return [self._fail(batch.states[0].request_id, translated)]
        events: list[EngineEvent] = []
        for state in batch.states:
            if state.request_id not in self._requests:
                continue  # another picture of its request has just failed
            try:
                events += self._take_step(Batch.of([state], batch.num_rows))
            except Exception as error:  # noqa: BLE001 - as above
                events.append(self._fail(state.request_id, self._translated(error, "taking a step alone", [state])))
        return events

    def _take_step(self, batch: Batch) -> list[EngineEvent]:
        """Gather, predict, guide and advance, scatter; nothing has changed if this raises."""
        began = self._clock()
        self._pacer.wait()
        model_input = batch.gather()
        prediction = self.model.denoise(*model_input)
        previews = self._take_previews(batch, model_input, prediction, began)
        batch.scatter(prediction)
        self._pacer.mark()
        ended = self._clock()
        states = batch.states
        events: list[EngineEvent] = [
            WorkItem(
                "step",
                ended - began,
                rows=batch.num_rows,
                height=states[0].height,
                width=states[0].width,
                rows_by_request=_rows_by_request(states),
            )
        ]
        for state in states:
            request = self._requests[state.request_id]
            request.denoise_began = began if request.denoise_began is None else request.denoise_began
            request.denoise_ended = ended
            events.append(StepTaken(state.request_id, state.image_index, state.call_index, state.num_calls))
        events += previews
        self._denoised.extend(state for state in states if state.is_denoised)
        self._running = [state for state in self._running if not state.is_denoised]
        return events

    def _take_previews(
        self, batch: Batch, model_input: ModelInput, prediction: torch.Tensor, now: float
    ) -> list[PreviewTaken]:
        """Look at one picture of every request whose time has come, but not where the next thing is the picture."""
        previews: list[PreviewTaken] = []
        for index, state in enumerate(batch.states):
            request = self._requests[state.request_id]
            step = state.call_index + 1
            if now >= request.next_preview_at and step < state.num_calls:
                request.next_preview_at = now + PREVIEW_INTERVAL_S
                picture = self._previewer.look_at(batch, index, model_input, prediction)
                previews.append(PreviewTaken(state.request_id, state.image_index, step, picture))
        return previews

    def _make_room(self, batch: Batch) -> list[EngineEvent]:
        """A call ran out of memory: nobody's picture is lost, unless one does not fit even alone."""
        self._free_memory()
        state = batch.states[0]
        if not self._batch_scheduler.did_not_fit(batch):
            error = DoesNotFitError(f"a picture of {state.width}x{state.height} does not fit into the device's memory")
            return [RanOutOfMemory("step"), self._fail(state.request_id, error)]
        rows = self._batch_scheduler.row_limit(state.batch_key)
        logger.warning("out of memory: %dx%d now takes %d model rows a call", state.width, state.height, rows)
        return [RanOutOfMemory("step")]

    def _decode(self, state: DenoisingState) -> list[EngineEvent]:
        """Turn one picture's latents into pixels, and finish its request if it was the last."""
        self._has_just_decoded = True
        request = self._requests[state.request_id]
        began = self._clock()
        try:
            pixels = self._pixels(state)
        except Exception as error:  # noqa: BLE001 - as above
            ran_out: list[EngineEvent] = []
            if _is_out_of_memory(error):
                self._free_memory()
                ran_out = [RanOutOfMemory("decode")]
                if self._running:
                    # Wait until the running pictures have left, and let nobody in meanwhile.
                    self._is_draining_for_memory = True
                    return ran_out
                error = DoesNotFitError(f"decoding {state.width}x{state.height} does not fit into the device's memory")
            return [*ran_out, self._fail(state.request_id, self._translated(error, "decoding", [state]))]
        seconds = self._clock() - began
        self._denoised.remove(state)
        request.decode_s += seconds
        request.num_unfinished -= 1
        events: list[EngineEvent] = [
            WorkItem("decode", seconds, 1, state.height, state.width, rows_by_request={state.request_id: 1}),
            ImageDrawn(state.request_id, state.image_index, state.seed, pixels),
        ]
        if not request.num_unfinished:
            del self._requests[request.id]
            events.append(Finished(request.id, request.times(), request.truncated_tokens))
        return events

    def _pixels(self, state: DenoisingState) -> npt.NDArray[np.uint8]:
        """Decode, and hand over a picture or an error, never a black square."""
        if not bool(state.latents.isfinite().all()):
            raise NotFiniteError("the network gave numbers that are not finite; try another sampler or less guidance")
        return self.model.decode(state.latents).cpu().numpy()

    def _fail(self, request_id: str, error: EngineError) -> Failed:
        self.cancel(request_id)
        return Failed(request_id, error)

    def _translated(self, error: Exception, doing: str, states: Sequence[DenoisingState]) -> EngineError:
        """One request's failure ends only that request; a device's failure ends the process.

        Raises:
            DeviceError: the error is the device's.
        """
        if isinstance(error, EngineError):
            return error
        # cuBLAS and cuDNN report a broken context as plain RuntimeErrors that begin with the same words.
        if isinstance(error, torch.AcceleratorError) or str(error).startswith(("CUDA error", "cuDNN error")):
            raise DeviceError(f"the device failed while {doing}: {error}") from error
        job_ids = sorted({state.request_id for state in states})
        logger.exception("failed while %s", doing, extra={"job_id": " ".join(job_ids)})
        return EngineError(f"the engine failed while {doing}")

    def _free_memory(self) -> None:
        if self.model.info.device.type == "cuda":
            torch.cuda.empty_cache()


def _rows_by_request(states: Sequence[DenoisingState]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for state in states:
        rows[state.request_id] = rows.get(state.request_id, 0) + state.num_rows
    return rows


def _is_out_of_memory(error: Exception) -> bool:
    """Whether a smaller call may succeed; cuBLAS and cuDNN say it in words of their own."""
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in words for phrase in _OUT_OF_MEMORY_PHRASES)
    )
