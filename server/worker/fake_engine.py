"""An engine that draws nothing, on time; as a process: `python -m server.worker.fake_engine FD`. No torch, no numpy.

It says what a real engine would, with scripted times. Tests of the server run it on a thread (`fake_executor.py`). For
chaos and load tests it is a process that ends or hangs when a prompt asks for it: `MODEL_ID=fake-engine[:STEP_MS
[:LOAD_MS]]`.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from server.executors.messages import (
    Cancel,
    FinishEarly,
    FromEngine,
    LoadProgress,
    Ping,
    Pong,
    Progress,
    Ready,
    Submit,
    ToWorker,
)
from server.worker.fake_pictures import fake_image, fake_info, fake_job_done, fake_preview, fake_work
from server.worker.gateway_link import Line

__all__ = ["HANG", "POISON", "FakeEngine", "Script", "script_of"]

POISON: Final = "poison"
"""A prompt with this word ends the process in the middle of the picture's first step."""
HANG: Final = "hang"
"""A prompt with this word makes the engine's thread stop for ever in the middle of the picture's first step."""

_DEFAULT_STEP_MS: Final = 20
_MAX_IMAGES_IN_FLIGHT: Final = 4
_FAULT: Final = re.compile(rf"\b({POISON}|{HANG})\b")


class Script(NamedTuple):
    """How long everything takes."""

    step_s: float
    load_s: float


def script_of(model_id: str) -> Script:
    """Read `fake-engine`, `fake-engine:STEP_MS` or `fake-engine:STEP_MS:LOAD_MS`."""
    _, step_ms, load_ms = f"{model_id}::".split(":")[:3]
    return Script(step_s=int(step_ms or _DEFAULT_STEP_MS) / 1000, load_s=int(load_ms or 0) / 1000)


@dataclass(slots=True)
class _Job:
    """A job with its pictures; all that run take part in every step, as in a real batch."""

    submit: Submit
    num_unfinished: int
    began: float | None = None


@dataclass(slots=True)
class _Picture:
    job: _Job
    index: int
    step: int = 0


def _apply_prompt_faults(prompts: Sequence[str]) -> None:
    for prompt in prompts:
        match _FAULT.search(prompt):
            case None:
                pass
            case fault if fault[0] == POISON:
                os._exit(1)
            case _:
                threading.Event().wait()


class FakeEngine:
    """Takes steps by sleeping. `handle` and `stop` may be called from any thread; `run` owns everything else."""

    def __init__(
        self,
        send: Callable[[FromEngine], None],
        *,
        step_s: float,
        max_images_in_flight: int,
        model_name: str = "fake",
        apply_faults: Callable[[Sequence[str]], object] = _apply_prompt_faults,
    ) -> None:
        """Make one.

        Args:
            send: takes what it says.
            step_s: seconds that a step takes.
            max_images_in_flight: pictures that take a step together.
            model_name: what it says it is.
            apply_faults: called in the middle of every step, with the prompts that take part in it.
        """
        self._send = send
        self._step_s = step_s
        self._max_images_in_flight = max_images_in_flight
        self._model_name = model_name
        self._apply_faults = apply_faults
        self._messages: queue.SimpleQueue[ToWorker | None] = queue.SimpleQueue()
        self._is_stopping = threading.Event()
        self._pictures: list[_Picture] = []

    def handle(self, message: ToWorker) -> None:
        """Take a message in."""
        self._messages.put(message)

    def stop(self) -> None:
        """Make `run` return at once, in the middle of a step too."""
        self._is_stopping.set()
        self._messages.put(None)

    def run(self) -> None:
        """Draw until `stop` is called. Blocks only while there is nothing to do."""
        while not self._is_stopping.is_set():
            self._take_message(must_wait=not self._pictures)
            while not self._messages.empty():
                self._take_message(must_wait=True)
            if self._pictures:
                self._take_step(self._pictures[: self._max_images_in_flight])

    def _take_message(self, *, must_wait: bool) -> None:
        try:
            message = self._messages.get(block=must_wait)
        except queue.Empty:
            return
        match message:
            case Submit():
                job = _Job(message, message.params.num_images)
                self._pictures += [_Picture(job, index) for index in range(message.params.num_images)]
            case Cancel(job_id):
                self._pictures = [picture for picture in self._pictures if picture.job.submit.job_id != job_id]
            case FinishEarly(job_id, image_indices):
                self._finish_early(job_id, image_indices)
            case Ping(number):
                self._send(Pong(number))

    def _finish_early(self, job_id: str, image_indices: Sequence[int] | None) -> None:
        """Send the job's pictures as far as they are, but none that has taken no step."""
        for picture in [picture for picture in self._pictures if picture.job.submit.job_id == job_id]:
            if image_indices is None or picture.index in image_indices:
                self._finish(picture, steps_left_out=picture.job.submit.params.progress_steps - picture.step)

    def _take_step(self, pictures: Sequence[_Picture]) -> None:
        """Every picture's step at once; a picture that has taken its last one leaves."""
        began = time.monotonic()
        self._begin(pictures, began)
        self._is_stopping.wait(self._step_s / 2)
        self._apply_faults([picture.job.submit.params.prompt for picture in pictures])
        if self._is_stopping.wait(self._step_s / 2):
            return
        self._report_work("step", began, pictures)
        for picture in pictures:
            self._report_step(picture)

    def _begin(self, pictures: Sequence[_Picture], now: float) -> None:
        for picture in pictures:
            if picture.job.began is None:
                picture.job.began = now
                self._report_work("encode", now, [picture])

    def _report_step(self, picture: _Picture) -> None:
        submit = picture.job.submit
        params = submit.params
        if not params.model_calls:  # nothing is drawn
            self._finish(picture)
            return
        picture.step += 1
        self._send(Progress(submit.job_id, picture.index, picture.step, params.progress_steps))
        preview = fake_preview(submit.job_id, params, picture.index, picture.step)
        if preview is not None:
            self._send(preview)
        if picture.step == params.progress_steps:
            self._finish(picture)

    def _finish(self, picture: _Picture, *, steps_left_out: int = 0) -> None:
        self._pictures.remove(picture)
        job, now = picture.job, time.monotonic()
        if picture.step or not steps_left_out:
            self._report_work("decode", now, [picture])
            self._send(fake_image(job.submit, picture.index, self._model_name, steps_left_out))
        job.num_unfinished -= 1
        if not job.num_unfinished:
            denoise_s = now - (now if job.began is None else job.began)
            self._send(fake_job_done(job.submit.job_id, job.submit.params, denoise_s))

    def _report_work(self, kind: str, began: float, pictures: Sequence[_Picture]) -> None:
        seconds = time.monotonic() - began
        rows: dict[str, int] = {}
        for submit in (picture.job.submit for picture in pictures):
            rows[submit.job_id] = rows.get(submit.job_id, 0) + submit.params.rows_per_image
        self._send(fake_work(kind, seconds, pictures[0].job.submit.params, self._max_images_in_flight, rows))


def main() -> None:
    """Wait as long as loading would take, say so, and draw until the line closes."""
    line, configuration = Line.inherited()
    script = script_of(configuration.model_id)
    time.sleep(script.load_s)
    line.send(LoadProgress("load", script.load_s))
    max_images_in_flight = configuration.max_images_in_flight or _MAX_IMAGES_IN_FLIGHT
    engine = FakeEngine(
        line.send,
        step_s=script.step_s,
        max_images_in_flight=max_images_in_flight,
        model_name=configuration.model_name,
    )
    line.hand_messages_to(engine.handle)
    line.send(Ready(fake_info(configuration.model_id, max_images_in_flight)))
    engine.run()


if __name__ == "__main__":
    main()
