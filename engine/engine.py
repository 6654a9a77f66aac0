"""The engine: requests of any kind share one running batch, and join and leave it between steps.

Knows nothing of HTTP, threads or processes: whoever owns an `Engine` calls `step` until there is no work left.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

import torch

from engine.batch import Batch, ModelInput
from engine.batch_scheduler import BatchScheduler
from engine.errors import DeviceError, DoesNotFitError, EngineError
from engine.events import (
    EngineEvent,
    Failed,
    Finished,
    ImageDrawn,
    PreviewTaken,
    RanOutOfMemory,
    StepTaken,
    WorkItem,
)
from engine.journey import Journey, route_of
from engine.journey_cache import JourneyCache
from engine.leg import Leg
from engine.models.base import DiffusionModel
from engine.pacing import Pacer
from engine.params import GenerationParams
from engine.picture import Picture, Source, make_picture
from engine.pictures.base import make_base
from engine.pictures.resize import Pixels, resize
from engine.previews import PREVIEW_INTERVAL_S, Previewer
from engine.reading import DOING, PictureReader, check_finite
from engine.request import PreparedRequest, Request
from engine.table_store import TableStore

__all__ = ["Engine", "is_out_of_memory"]

logger = logging.getLogger(__name__)

_OUT_OF_MEMORY_PHRASES = ("ALLOC_FAILED", "CUDA error: out of memory", "unable to find an engine to execute")


class Engine:
    """Draws pictures, step by step. Owned by one thread; only `prepare` may be called from another."""

    def __init__(
        self,
        model: DiffusionModel,
        *,
        rows_per_call: int = 2,
        max_images_in_flight: int | None = None,
        is_reproducible: bool = True,
        tables: TableStore | None = None,
        unlearnt_colours_wait_s: float = 0.0,
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
            tables: samplers' tables that outlive this process; None: each is read off diffusers when it is first asked
                for.
            unlearnt_colours_wait_s: as long as the model's colours are not learnt, a request has no previews in its
                first so many seconds of drawing: learning them would delay it.
            clock: seconds, for phase times.
        """
        self.model = model
        self.max_images_in_flight = max_images_in_flight or max(1, rows_per_call // 2)
        self.journeys = JourneyCache(model.info.scheduler_config, store=tables)
        self._reader = PictureReader(model, clock)
        self._batch_scheduler: BatchScheduler[Picture] = BatchScheduler(
            rows_per_call=rows_per_call, max_images_in_flight=self.max_images_in_flight
        )
        self._is_reproducible = is_reproducible
        self._pacer = Pacer(model.info.device)
        self._previewer = Previewer(model)
        self._unlearnt_colours_wait_s = unlearnt_colours_wait_s
        self._clock = clock
        self._requests: dict[str, Request] = {}
        self._enlarging: deque[Picture] = deque()
        """Those that are only enlarged. Each second piece of work, at most, is a tile: the batch goes on meanwhile."""
        self._has_just_enlarged = False

    @property
    def has_work(self) -> bool:
        """Whether `step` would do something."""
        return self._batch_scheduler.has_work or bool(self._enlarging)

    def learn_colours(self) -> None:
        """Find out what the model's latents look like, if that is not known: a few small pictures are decoded."""
        _ = self.model.latent_to_rgb
        self._unlearnt_colours_wait_s = 0.0

    def prepare(
        self,
        request_id: str,
        params: GenerationParams,
        *,
        inputs: Mapping[str, Pixels] | None = None,
        wants_previews: bool = False,
    ) -> PreparedRequest:
        """Do all that need not hold up the batch: read the sampler's table, draw the noise. Any thread may call this.

        Args:
            request_id: what its events are known by.
            params: what to draw.
            inputs: the pictures that the request names, by their names: (H, W, 3) or (H, W).
            wants_previews: whether anybody looks while it is drawn. The finished pictures are the same.

        Raises:
            InvalidParamsError: this model cannot do what was asked.
        """
        params.check_size_multiple(self.model.info.pixels_per_latent)
        base = make_base(params, inputs or {}, self.model.info.pixels_per_latent)
        source = None if base is None else Source(base)
        pictures = [
            make_picture(request_id, params, index, self._journey_of, source, self.model)
            for index in range(params.num_images)
        ]
        is_cut = params.prompt_syntax == "plain"
        truncated_tokens = sum(self.model.count_truncated_tokens(text) for text in params.texts) if is_cut else 0
        return PreparedRequest(request_id, pictures, truncated_tokens, wants_previews)

    def _journey_of(self, leg: Leg) -> Journey:
        return self.journeys.get(route_of(leg, self.model.info.family))

    def add(self, request: PreparedRequest) -> None:
        """Take a request in; its pictures join the batch, in order, as soon as there is room."""
        self._requests[request.request_id] = Request(
            request.request_id,
            request.truncated_tokens,
            num_unfinished=len(request.pictures),
            next_preview_at=-math.inf if request.wants_previews else math.inf,
        )
        for picture in request.pictures:
            (self._batch_scheduler.waiting if picture.legs else self._enlarging).append(picture)

    def cancel(self, request_id: str) -> None:
        """Forget a request before the next step, without an event. Unknown ids are ignored."""
        if self._requests.pop(request_id, None) is None:
            return
        self._batch_scheduler.remove(lambda picture: picture.request_id == request_id)
        self._enlarging = deque(picture for picture in self._enlarging if picture.request_id != request_id)

    def finish_early(self, request_id: str, image_indices: Collection[int] | None = None) -> list[EngineEvent]:
        """Hand over pictures of a request as far as they are; those of which nothing shows yet are left out.

        Args:
            request_id: unknown ids are ignored.
            image_indices: which of its pictures; None: all that are left.

        Returns:
            The request's end, if nothing is left of it. What is still to be decoded comes with the next steps.
        """
        request = self._requests.get(request_id)
        if request is None:
            return []
        scheduler = self._batch_scheduler
        meant = [
            picture
            for picture in (*scheduler.running, *scheduler.waiting, *self._enlarging)
            if picture.request_id == request_id and (image_indices is None or picture.image_index in image_indices)
        ]
        shown = [picture for picture in meant if picture.shown_leg is not None]
        scheduler.remove(lambda picture: picture in meant)
        self._enlarging = deque(picture for picture in self._enlarging if picture not in meant)
        for picture in shown:
            picture.is_cut_short = True
        scheduler.denoised.extend(shown)
        request.num_unfinished -= len(meant) - len(shown)
        if request.num_unfinished:
            return []
        del self._requests[request_id]
        return [Finished(request_id, request.times(), request.truncated_tokens)]

    @torch.inference_mode()
    def step(self) -> list[EngineEvent]:
        """Do the next piece of work: read a prompt, take a step with all who can, decode a picture, or enlarge a tile.

        Raises:
            DeviceError: the device failed; this process must end.
        """
        scheduler = self._batch_scheduler
        scheduler.admit()
        if self._enlarging and not (self._has_just_enlarged and scheduler.has_work):
            self._has_just_enlarged = True
            return self._read(self._enlarging[0])
        self._has_just_enlarged = False
        unready = next((picture for picture in scheduler.running if not picture.is_ready), None)
        if unready is not None:
            return self._read(unready)
        denoised = scheduler.next_decode()
        if denoised is not None:
            return self._decode(denoised)
        if scheduler.running:
            return self._denoise()
        return []

    def _read(self, picture: Picture) -> list[EngineEvent]:
        kind, request = self._reader.next_kind(picture), self._requests[picture.request_id]
        try:
            events = self._reader.read(picture)
        except Exception as error:  # noqa: BLE001 - whatever a model raises ends only the request it is raised for
            ran_out: list[EngineEvent] = []
            if is_out_of_memory(error):
                self._free_memory()
                ran_out = [RanOutOfMemory(kind)]
                if self._batch_scheduler.put_back([one for one in self._batch_scheduler.running if not one.is_ready]):
                    return ran_out
                error = DoesNotFitError("the request does not fit into the device's memory")
            return [*ran_out, self._fail(picture.request_id, self._translated(error, DOING[kind], [picture]))]
        request.encode_s += sum(event.seconds for event in events if isinstance(event, WorkItem))
        if picture.enlarged is not None and not picture.tiles:
            self._enlarging.remove(picture)
            events.append(StepTaken(picture.request_id, picture.image_index, 1, picture.params.progress_steps))
            events += self._finish(picture, picture.enlarged)
        return events

    def _denoise(self) -> list[EngineEvent]:
        """Choose who takes part, and take the step. If it fails for all, find out who cannot."""
        pictures = self._batch_scheduler.next_step()
        # A call's shape decides the last bits of its results: one shape per size keeps bytes the same in any company.
        num_rows = self._batch_scheduler.row_limit(pictures[0].batch_key) if self._is_reproducible else 0
        batch = Batch.of(pictures, num_rows)
        try:
            return self._take_step(batch)
        except Exception as error:  # noqa: BLE001 - as above
            if is_out_of_memory(error):
                return self._make_room(batch)
            translated = self._translated(error, "taking a step", batch.pictures)
            if len(batch.pictures) == 1:
                return [self._fail(batch.pictures[0].request_id, translated)]
        events: list[EngineEvent] = []
        for picture in batch.pictures:
            if picture.request_id not in self._requests:
                continue  # another picture of its request has just failed
            alone = Batch.of([picture], batch.num_rows)
            try:
                events += self._take_step(alone)
            except Exception as error:  # noqa: BLE001 - as above
                if is_out_of_memory(error):
                    events += self._make_room(alone)
                else:
                    events.append(
                        self._fail(picture.request_id, self._translated(error, "taking a step alone", [picture]))
                    )
        return events

    def _take_step(self, batch: Batch) -> list[EngineEvent]:
        """Gather, predict, guide and advance, scatter; nothing has changed if this raises."""
        began = self._clock()
        self._pacer.wait()
        model_input = batch.gather()
        prediction = self.model.denoise(*model_input)
        previews = self._take_previews(batch, model_input, prediction, began)
        rows_by_request = batch.rows_by_request  # of this call: the next one may have others
        batch.scatter(prediction, model_input.latents)
        self._pacer.mark()
        ended = self._clock()
        pictures = batch.pictures
        events: list[EngineEvent] = [
            WorkItem(
                "step",
                ended - began,
                rows=batch.num_rows,
                height=pictures[0].height,
                width=pictures[0].width,
                rows_by_request=rows_by_request,
            )
        ]
        for picture in pictures:
            request = self._requests[picture.request_id]
            request.denoise_began = began if request.denoise_began is None else request.denoise_began
            request.denoise_ended = ended
            picture.steps_taken += 1
            num_steps = picture.params.progress_steps
            events.append(StepTaken(picture.request_id, picture.image_index, picture.steps_taken, num_steps))
            picture.go_on()
        events += previews
        self._batch_scheduler.step_taken()
        return events

    def _take_previews(
        self, batch: Batch, model_input: ModelInput, prediction: torch.Tensor, now: float
    ) -> list[PreviewTaken]:
        """Look at one picture of every request whose time has come, but not where the next thing is the picture."""
        previews: list[PreviewTaken] = []
        for index, picture in enumerate(batch.pictures):
            request = self._requests[picture.request_id]
            step = picture.steps_taken + 1
            drawing_s = 0.0 if request.denoise_began is None else now - request.denoise_began
            if drawing_s < self._unlearnt_colours_wait_s:
                continue
            if now >= request.next_preview_at and step < picture.params.progress_steps:
                request.next_preview_at = now + PREVIEW_INTERVAL_S
                seen = self._previewer.look_at(batch, index, model_input, prediction)
                previews.append(PreviewTaken(picture.request_id, picture.image_index, step, seen))
        return previews

    def _make_room(self, batch: Batch) -> list[EngineEvent]:
        """A call ran out of memory: no picture is lost, unless one does not fit even alone."""
        self._free_memory()
        picture = batch.pictures[0]
        if not self._batch_scheduler.did_not_fit(batch.pictures, batch.num_rows):
            error = DoesNotFitError(
                f"a picture of {picture.width}x{picture.height} does not fit into the device's memory"
            )
            return [RanOutOfMemory("step"), self._fail(picture.request_id, error)]
        rows = self._batch_scheduler.row_limit(picture.batch_key)
        logger.warning("out of memory at %dx%d: now %d model rows per call", picture.width, picture.height, rows)
        return [RanOutOfMemory("step")]

    def _decode(self, picture: Picture) -> list[EngineEvent]:
        """Turn one picture's latents into pixels, and finish its request if it was the last."""
        request = self._requests[picture.request_id]
        began = self._clock()
        try:
            pixels = self._pixels(picture)
        except Exception as error:  # noqa: BLE001 - as above
            ran_out: list[EngineEvent] = []
            if is_out_of_memory(error):
                self._free_memory()
                ran_out = [RanOutOfMemory("decode")]
                if self._batch_scheduler.drain():
                    return ran_out
                error = DoesNotFitError(
                    f"decoding {picture.width}x{picture.height} does not fit into the device's memory"
                )
            return [*ran_out, self._fail(picture.request_id, self._translated(error, "decoding", [picture]))]
        seconds = self._clock() - began
        self._batch_scheduler.denoised.remove(picture)
        request.decode_s += seconds
        whose = {picture.request_id: 1}
        return [
            WorkItem("decode", seconds, 1, picture.height, picture.width, rows_by_request=whose),
            *self._finish(picture, pixels),
        ]

    def _pixels(self, picture: Picture) -> Pixels:
        """Decode, and hand over a picture or an error, never a black square; lay it over what it was drawn over."""
        latents = self._previewer.latest(picture) if picture.is_cut_short else picture.leg.latents
        check_finite(latents)
        drawn = self.model.decode(latents).cpu().numpy()
        if picture.is_cut_short:
            last = picture.legs[-1].plan
            drawn = resize(drawn, last.height, last.width)
        return drawn if picture.source is None else picture.source.base.finished(drawn)

    def _finish(self, picture: Picture, pixels: Pixels) -> list[EngineEvent]:
        """Hand over a picture, and finish its request if it was the last."""
        request = self._requests[picture.request_id]
        request.num_unfinished -= 1
        events: list[EngineEvent] = [ImageDrawn(picture.request_id, picture.image_index, picture.seed, pixels)]
        if not request.num_unfinished:
            del self._requests[request.id]
            events.append(Finished(request.id, request.times(), request.truncated_tokens))
        return events

    def _fail(self, request_id: str, error: EngineError) -> Failed:
        self.cancel(request_id)
        return Failed(request_id, error)

    def _translated(self, error: Exception, doing: str, pictures: Sequence[Picture]) -> EngineError:
        """One request's failure ends only that request; a device's failure ends the process.

        Raises:
            DeviceError: the error is the device's.
        """
        if isinstance(error, EngineError):
            return error
        # cuBLAS and cuDNN report a broken context as plain RuntimeErrors that begin with the same words.
        if isinstance(error, torch.AcceleratorError) or str(error).startswith(("CUDA error", "cuDNN error")):
            raise DeviceError(f"the device failed while {doing}: {error}") from error
        job_ids = sorted({picture.request_id for picture in pictures})
        logger.exception("failed while %s", doing, extra={"job_id": " ".join(job_ids)})
        return EngineError(f"the engine failed while {doing}")

    def _free_memory(self) -> None:
        if self.model.info.device.type == "cuda":
            torch.cuda.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Whether a smaller call may succeed; cuBLAS and cuDNN say it in words of their own."""
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in words for phrase in _OUT_OF_MEMORY_PHRASES)
    )
