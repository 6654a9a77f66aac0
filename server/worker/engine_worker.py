"""Runs one `Engine` on its thread: messages in, messages out. Lives in the engine process, or in a test's own.

Three threads share the work: one prepares requests (tables, noise) while the batch goes on, the engine's draws, and one
writes picture files. This module imports torch; the gateway does not import it.
"""

from __future__ import annotations

import gc
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import torch

from engine.engine import Engine, is_out_of_memory
from engine.errors import DeviceError, DoesNotFitError, EngineError, InvalidParamsError
from engine.events import EngineEvent, Failed, Finished, ImageDrawn, PreviewTaken, RanOutOfMemory, StepTaken, WorkItem
from engine.params import GenerationParams
from engine.request import PreparedRequest
from engine.shelf import Shelf
from engine.warm_up import WarmUp
from server.executors.messages import (
    Cancel,
    FinishEarly,
    FromEngine,
    ImageReady,
    JobDone,
    JobFailed,
    LoadFailed,
    ModelsChanged,
    OutOfMemory,
    Ping,
    Pong,
    Preview,
    Progress,
    Submit,
    ToWorker,
    WorkDone,
)
from server.picture_info.file_info import ImageMetadata, file_info
from server.worker.device_memory import device_memory
from server.worker.image_files import decode_png, encode_image, encode_preview
from server.worker.model_hash import ModelHash
from server.worker.models import DEFAULT

__all__ = ["EngineWorker"]

logger = logging.getLogger(__name__)

WARM_UP_AFTER_S: Final = 1.0
"""Without a job. Whoever waits for the server to be ready asks at once."""


class _FileWish(NamedTuple):
    """What the files of a job are, and say."""

    output_format: str
    image_metadata: ImageMetadata
    output_quality: int | None
    params: GenerationParams


def _no_other(name: str) -> Engine:
    raise InvalidParamsError("model", "must be one that this engine has", name)


class _Stop:
    """Ends the engine's thread."""


class EngineWorker:
    """Turns messages into work for one engine, and its events into messages.

    `handle` may be called from one thread and returns at once, `run` owns the engine's; `send` is called from that one
    and from the threads that prepare and that write files.
    """

    def __init__(
        self,
        engine: Engine,
        send: Callable[[FromEngine], None],
        warm_up: WarmUp | None = None,
        *,
        backend: str = "torch",
        model_name: str = "",
        model_hash: ModelHash | None = None,
        shelf: Shelf[Engine] | None = None,
    ) -> None:
        """Make one; `run` runs it.

        Args:
            engine: what draws.
            send: takes what it says.
            warm_up: of this engine, done piece by piece while there are no jobs; None: it is warm.
            backend: what runs its networks: as in `EngineInfo`.
            model_name: what files say that their pictures were drawn with, where a request names no model.
            model_hash: what files say of a model beside its name; None: nothing.
            shelf: the engines of all models, this one among them; None: there is no other.
        """
        if shelf is None:
            shelf = Shelf(_no_other, {})
            shelf.put(DEFAULT, engine)
        if shelf.sizes:
            shelf.on_change = self._tell_models
        self._shelf = shelf
        self._borrowed: dict[str, str] = {}
        """Job -> its model, from the moment it is prepared to its end."""
        self._last_model = DEFAULT
        """Whose turn was last."""
        self._model_name = model_name
        self._model_hash = model_hash or (lambda _: None)
        self._device = engine.model.info.device
        self._send = send
        self._warm_up = warm_up
        self._backend = backend
        self._last_busy_at = time.monotonic()
        self._commands: queue.SimpleQueue[PreparedRequest | Cancel | FinishEarly | Ping | _Stop | DeviceError] = (
            queue.SimpleQueue()
        )
        # A large request takes seconds to prepare; cancels and pings do not wait behind it.
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        # One thread, so that a job's pictures are sent in order and before its end.
        self._files = ThreadPoolExecutor(1, thread_name_prefix="picture-files")
        self._files.submit(self._model_hash, DEFAULT)  # the first picture's file finds it there
        self._formats: dict[str, _FileWish] = {}
        """Written when a job comes in, removed at its end or cancel: what is missing is over."""
        self._file_seconds: dict[str, float] = {}
        """Job -> seconds spent on its files so far. Belongs to the thread that writes files."""
        self._is_stopping = threading.Event()

    def handle(self, message: ToWorker) -> None:
        """Take a message in."""
        if isinstance(message, Submit):
            self._formats[message.job_id] = _FileWish(
                message.output_format, message.image_metadata, message.output_quality, message.params
            )
            self._preparing.submit(self._prepare, message)
            return
        if isinstance(message, Cancel):
            self._formats.pop(message.job_id, None)
        self._commands.put(message)

    def _prepare(self, message: Submit) -> None:
        if message.job_id not in self._formats:
            return  # cancelled while others were prepared
        try:
            inputs = {sha256: decode_png(file) for sha256, file in message.inputs.items()}
            engine = self._borrow(message)
            prepared = engine.prepare(message.job_id, message.params, inputs=inputs, wants_previews=True)
        except EngineError as error:
            self._fail(message.job_id, error)
        except Exception as error:
            if is_out_of_memory(error):
                self._send(OutOfMemory("prepare"))
                self._fail(message.job_id, DoesNotFitError("the request does not fit into the device's memory"))
            elif isinstance(error, torch.AcceleratorError):
                # The engine's thread may be idle, and would never learn that its device is gone.
                self._commands.put(DeviceError(f"the device failed while preparing a request: {error}"))
            else:
                logger.exception("preparing a job failed")
                self._fail(message.job_id, EngineError("the engine failed while preparing the request"))
        else:
            self._commands.put(prepared)

    def _borrow(self, message: Submit) -> Engine:
        """The engine that draws a job, loaded if it is not; waits until there is room for it."""
        name = message.params.model
        engine = self._shelf.borrow(name)
        self._borrowed[message.job_id] = name
        return engine

    def _give_back(self, job_id: str) -> None:
        name = self._borrowed.pop(job_id, None)
        if name is not None:
            self._shelf.give_back(name)

    def run(self) -> None:
        """Draw until `stop` is called. Blocks only while there is nothing to do.

        Returns too when the model proves unable to draw at warm-up, and says so.

        Raises:
            DeviceError: the device failed; the process must end.
        """
        if self._shelf.sizes:
            self._tell_models()
        try:
            while not self._is_stopping.is_set():
                self._take_commands()
                if self._warm_up is not None and not self._formats:
                    self._warm_up = self._warmed(self._warm_up)
                    continue
                if self._warm_up is not None:
                    self._warm_up.step_aside()
                for event in self._step():
                    self._report(event)
        except DeviceError:
            raise
        except EngineError as error:
            self._send(LoadFailed(str(error)))
        finally:
            self._shelf.close()
            self._preparing.shutdown(wait=True, cancel_futures=True)
            self._files.shutdown(wait=True, cancel_futures=True)

    def _tell_models(self) -> None:
        shelf = self._shelf
        resident, sizes, load_seconds = tuple(shelf.resident), dict(shelf.sizes), dict(shelf.load_seconds)
        self._send(ModelsChanged(resident, sizes, shelf.budget_bytes, load_seconds))

    def stop(self) -> None:
        """Make `run` return after its current work item. Any thread may call this."""
        self._is_stopping.set()
        self._commands.put(_Stop())

    def _step(self) -> list[EngineEvent]:
        """Let the models take turns."""
        resident = self._shelf.resident
        working = [name for name, engine in resident.items() if engine.has_work]
        if not working:
            return []
        # The next one after the last, in the order of their names.
        self._last_model = min(working, key=lambda name: (name <= self._last_model, name))
        return resident[self._last_model].step()

    @property
    def _has_work(self) -> bool:
        return any(engine.has_work for engine in self._shelf.resident.values())

    def _take_commands(self) -> None:
        """Carry out what has come in since the last work item. Blocks only when idle: new jobs join between steps."""
        wait_s = self._idle_wait_s()
        while True:
            try:
                command = self._commands.get(block=wait_s != 0, timeout=wait_s)
            except queue.Empty:
                return
            wait_s = 0
            match command:
                case PreparedRequest() | Cancel() | FinishEarly():
                    self._carry_out(command)
                case Ping(number):
                    self._send(Pong(number, device_memory(self._device)))
                    wait_s = self._idle_wait_s()
                case DeviceError():
                    raise command
                case _Stop():
                    return

    def _carry_out(self, command: PreparedRequest | Cancel | FinishEarly) -> None:
        """A command for one job."""
        match command:
            case PreparedRequest():
                if command.request_id in self._formats:  # else it was cancelled while it was prepared
                    self._shelf.resident[self._borrowed[command.request_id]].add(command)
                else:
                    self._give_back(command.request_id)
            case Cancel(job_id):
                for engine in self._shelf.resident.values():
                    engine.cancel(job_id)
                self._give_back(job_id)
                self._forget_files(job_id)
            case FinishEarly(job_id, image_indices):
                for engine in list(self._shelf.resident.values()):
                    for event in engine.finish_early(job_id, image_indices):
                        self._report(event)

    def _idle_wait_s(self) -> float | None:
        """How long to wait for a command: 0 while there is work, None for ever."""
        now = time.monotonic()
        if self._warm_up is None:
            return 0 if self._has_work else None
        if self._formats:
            self._last_busy_at = now
            self._warm_up.step_aside()  # a job is being prepared or drawn
            if any(wish.params.model for wish in list(self._formats.values())):
                self._warm_up = None  # its model may have to make room for another
            return 0 if self._has_work else None
        return max(0.0, self._last_busy_at + WARM_UP_AFTER_S - now)

    def _warmed(self, warm_up: WarmUp) -> WarmUp | None:
        """Do a piece of the warm-up; what is left of it.

        Raises:
            EngineError: the model cannot draw.
        """
        if time.monotonic() < self._last_busy_at + WARM_UP_AFTER_S:
            return warm_up  # a command came while it waited
        for item in warm_up.take_piece():
            self._send(WorkDone(item.kind, item.seconds, item.rows, item.height, item.width, backend=self._backend))
        if not warm_up.is_done:
            return warm_up
        gc.unfreeze()
        gc.collect()
        gc.freeze()  # what is left lives as long as the process
        return None

    def _report(self, event: EngineEvent) -> None:
        match event:
            case StepTaken():
                self._send(Progress(event.request_id, event.image_index, event.step, event.steps))
            case WorkItem():
                whose = dict(event.rows_by_request)
                size = (event.height, event.width)
                model = self._last_model
                self._send(
                    WorkDone(event.kind, event.seconds, event.rows, *size, whose, backend=self._backend, model=model)
                )
            case RanOutOfMemory():
                self._send(OutOfMemory(event.kind))
            case PreviewTaken():
                self._files.submit(self._write_preview, event)
            case ImageDrawn():
                wish = self._formats.get(event.request_id)
                if wish is not None:  # else another of its pictures could not be written
                    self._files.submit(self._write_file, event, wish)
            case Finished():
                self._give_back(event.request_id)
                if self._formats.pop(event.request_id, None) is not None:
                    self._files.submit(self._finish, event)
            case Failed():
                self._fail(event.request_id, event.error)
                self._forget_files(event.request_id)

    def _write_preview(self, preview: PreviewTaken) -> None:
        if preview.request_id not in self._formats:
            return  # it is over
        try:
            file = encode_preview(preview.picture.pixels())
        except Exception:  # a broken device, say, of which the engine's thread will hear; the job can do without
            logger.exception("a preview could not be made")
            return
        self._send(Preview(preview.request_id, preview.image_index, preview.step, file.data, file.media_type))

    def _write_file(self, image: ImageDrawn, wish: _FileWish) -> None:
        began = time.perf_counter()
        try:
            name = wish.params.model
            info = file_info(
                wish.params,
                image.image_index,
                name or self._model_name,
                wish.image_metadata,
                self._model_hash(name or DEFAULT),
            )
            file = encode_image(image.pixels, wish.output_format, info, wish.output_quality)
        except Exception:
            logger.exception("encoding a picture failed")
            self._commands.put(Cancel(image.request_id))
            self._fail(image.request_id, EngineError(f"the picture could not be encoded as {wish.output_format}"))
            return
        seconds = time.perf_counter() - began
        self._file_seconds[image.request_id] = self._file_seconds.get(image.request_id, 0.0) + seconds
        self._send(ImageReady(image.request_id, image.image_index, image.seed, file.data, file.media_type))

    def _forget_files(self, job_id: str) -> None:
        # On the thread that counts, behind the files that are still being written.
        self._files.submit(self._file_seconds.pop, job_id, None)

    def _finish(self, finished: Finished) -> None:
        file_s = self._file_seconds.pop(finished.request_id, 0.0)
        times = finished.times
        self._send(
            JobDone(
                finished.request_id,
                encode_s=times.encode_s,
                denoise_s=times.denoise_s,
                decode_s=times.decode_s,
                file_s=file_s,
                truncated_tokens=finished.truncated_tokens,
            )
        )

    def _fail(self, job_id: str, error: EngineError) -> None:
        self._give_back(job_id)
        self._formats.pop(job_id, None)
        self._send(JobFailed.of(job_id, error))
