"""When jobs will be done: what gateway and engine will do, played through without doing it.

It keeps to the rules of `Engine.step` and `BatchScheduler.next_batch`, from one picture's end to the next.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from engine.params import GenerationParams
from server.executors.messages import EngineInfo

__all__ = ["Foresight", "Prices", "Running", "foresee"]

_Size = tuple[int, int]
"""Height and width in pixels: only pictures of one size share a call."""


@dataclass(frozen=True, slots=True)
class Running:
    """A job that the engine is drawing."""

    params: GenerationParams
    calls_left: int
    """Model calls that are still to be taken, of all its pictures together."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Seconds that the engine's work items take."""

    step_s: dict[_Size, float]
    """A call of all the rows that a call has."""
    decode_s: dict[_Size, float]
    encode_s: dict[int, float]
    """By rows a picture: with its negative prompt or without."""


def foresee(
    running: Sequence[Running], queued: Sequence[GenerationParams], info: EngineInfo, prices: Prices
) -> Foresight:
    """Play through when each job will be done.

    Args:
        running: what is being drawn, oldest first.
        queued: what waits, in order.
        info: how many rows and pictures the engine takes together.
        prices: of every size that occurs.
    """
    foreseen = _Foreseen(info, prices)
    for job in running:
        foreseen.take_running(job)
    waiting = deque(queued)
    while True:
        while waiting and foreseen.has_room_for(waiting[0]):
            foreseen.take_new(waiting.popleft())
        if not waiting:
            before_another = foreseen.branched(prices)
            break
        foreseen.go_on()
    while foreseen.has_work:
        foreseen.go_on()
    return Foresight(foreseen.ends, before_another, prices)


class Foresight:
    """When jobs will be done, and any one that came after them: told without playing through them again."""

    def __init__(self, ends: list[float], before_another: _Foreseen, prices: Prices) -> None:
        self.ends = ends
        """Seconds until each job will be done, those that run first."""
        self._before_another = before_another
        """As it will be when the last of them has just been begun."""
        self._prices = prices

    def end_of_another(self, params: GenerationParams, prices: Prices) -> float:
        """Seconds until a job will be done that comes after all these, from when they were played through.

        Args:
            params: what it asks for.
            prices: of its size; those of the others are as they were.
        """
        known = self._prices
        both = Prices({**prices.step_s, **known.step_s}, {**prices.decode_s, **known.decode_s}, known.encode_s)
        foreseen = self._before_another.branched(both)
        while not foreseen.has_room_for(params):
            foreseen.go_on()
        foreseen.take_new(params)
        while foreseen.has_work and not foreseen.ends[-1]:
            foreseen.go_on()
        return foreseen.ends[-1]


@dataclass(slots=True, eq=False)
class _Picture:
    job: int
    size: _Size
    rows: int
    calls_left: int
    encode_s: float = 0.0
    """What reading its prompts takes: nothing from the second picture of a job on, for they are remembered."""


class _Foreseen:
    """An engine in the mind."""

    def __init__(self, info: EngineInfo, prices: Prices) -> None:
        self.ends: list[float] = []
        """When each job ends; 0.0 until it has."""
        self._info = info
        self._prices = prices
        self._clock_s = 0.0
        self._images_left: list[int] = []
        """Of each job, not decoded yet."""
        self._places: list[int] = []
        """Of each job, pictures in flight until all of them are done."""
        self._num_in_flight = 0
        self._waiting: deque[_Picture] = deque()
        self._drawing: list[_Picture] = []
        self._denoised: deque[_Picture] = deque()
        self._num_calls = 0
        self._last_turns: dict[_Size, int] = {}

    def branched(self, prices: Prices) -> _Foreseen:
        """The same engine once more, to go on in another way. O(jobs), but a matter of microseconds."""
        other = copy.copy(self)
        other.detach(prices)
        return other

    def detach(self, prices: Prices) -> None:
        """Share nothing that changes with the one that this is a copy of."""
        self._prices = prices
        self.ends, self._images_left, self._places = [*self.ends], [*self._images_left], [*self._places]
        self._waiting = deque(map(copy.copy, self._waiting))
        self._drawing = [*map(copy.copy, self._drawing)]
        self._denoised = deque(map(copy.copy, self._denoised))
        self._last_turns = {**self._last_turns}

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._drawing or self._denoised)

    def has_room_for(self, params: GenerationParams) -> bool:
        """Whether the gateway would hand this over; one that never fits with others runs alone."""
        return not self._num_in_flight or params.num_images <= self._info.max_images_in_flight - self._num_in_flight

    def take_new(self, params: GenerationParams) -> None:
        """Begin a job."""
        pictures = self._take(params, [params.model_calls] * params.num_images)
        pictures[0].encode_s = self._prices.encode_s[params.rows_per_image]

    def take_running(self, job: Running) -> None:
        """Go on with a job. Its pictures are drawn in order, those that fit into one call together."""
        params = job.params
        together = max(1, min(self._info.max_images_in_flight, self._info.rows_per_call // params.rows_per_image))
        calls: list[int] = []
        left = job.calls_left
        while len(calls) < params.num_images and (left > 0 or not calls):
            num_together = (params.num_images - len(calls) - 1) % together + 1
            each = min(params.model_calls, math.ceil(left / num_together))
            calls = [each] * num_together + calls
            left -= each * num_together
        self._take(params, calls)

    def _take(self, params: GenerationParams, calls: Sequence[int]) -> list[_Picture]:
        size, rows = (params.height, params.width), params.rows_per_image
        pictures = [_Picture(len(self.ends), size, rows, calls_left) for calls_left in calls]
        self._waiting.extend(picture for picture in pictures if picture.calls_left)
        self._denoised.extend(picture for picture in pictures if not picture.calls_left)
        self.ends.append(0.0)
        self._images_left.append(len(pictures))
        self._places.append(params.num_images)
        self._num_in_flight += params.num_images
        return pictures

    def go_on(self) -> None:
        """Decode a picture and take a call; with none to decode, take calls up to the first that may be a last one."""
        while self._waiting and len(self._drawing) < self._info.max_images_in_flight:
            self._drawing.append(self._waiting.popleft())
            self._clock_s += self._drawing[-1].encode_s
        if self._denoised:
            self._decode(self._denoised.popleft())
        else:
            self._leap()
        if self._drawing:
            self._call()

    def _decode(self, picture: _Picture) -> None:
        self._clock_s += self._prices.decode_s[picture.size]
        self._images_left[picture.job] -= 1
        if not self._images_left[picture.job]:
            self.ends[picture.job] = self._clock_s
            self._num_in_flight -= self._places[picture.job]

    def _leap(self) -> None:
        """Let every size have its turn as often as nobody is done by it."""
        sharing = self._sharing()
        pictures = [picture for pictures in sharing.values() for picture in pictures]
        rounds = min(picture.calls_left for picture in pictures) - 1
        self._clock_s += rounds * sum(self._prices.step_s[size] for size in sharing)
        for picture in pictures:
            picture.calls_left -= rounds

    def _call(self) -> None:
        """Let the size whose turn is longest ago take a call."""
        sharing = self._sharing()
        size = min(sharing, key=lambda size: self._last_turns.get(size, 0))
        self._num_calls += 1
        self._last_turns[size] = self._num_calls
        self._clock_s += self._prices.step_s[size]
        for picture in sharing[size]:
            picture.calls_left -= 1
        self._denoised.extend(picture for picture in sharing[size] if not picture.calls_left)
        self._drawing = [picture for picture in self._drawing if picture.calls_left]

    def _sharing(self) -> dict[_Size, list[_Picture]]:
        """Who takes part in the next call of each size: the oldest, as many as its rows hold."""
        rows: dict[_Size, int] = {}
        sharing: dict[_Size, list[_Picture]] = {}
        for picture in self._drawing:
            used = rows.get(picture.size, 0)
            if not used or used + picture.rows <= self._info.rows_per_call:
                rows[picture.size] = used + picture.rows
                sharing.setdefault(picture.size, []).append(picture)
        return sharing
