"""Batch scheduling: which pictures join the batch, take the next step, are decoded. For the engine and its simulation.

No torch. (Noise schedules are in `journey.py`; diffusers' schedulers, in `schedulers.py`.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

__all__ = ["BatchKey", "BatchScheduler", "Picture"]


class BatchKey(NamedTuple):
    """What pictures must have in common to share a model call: the shape of its rows."""

    height: int
    """Of the latents; pixels in a simulation."""
    width: int
    num_chunks: int = 1
    """Of their texts: nothing is padded to the length of its neighbours."""
    model: str = ""
    """In a simulation, whose calls they are; an engine has one model."""


class Picture(Protocol):
    """What the rule asks of a picture that is being drawn."""

    @property
    def batch_key(self) -> BatchKey:
        """Who may share a call with it."""
        ...

    @property
    def num_rows(self) -> int:
        """Model rows it takes in each call."""
        ...

    @property
    def is_denoised(self) -> bool:
        """Whether it has taken its last step."""
        ...


P = TypeVar("P", bound=Picture)


class BatchScheduler(Generic[P]):
    """Pictures wait, run (take steps) and are decoded, oldest first.

    Latent sizes take turns; within a size the oldest go first, as many as the row limit holds. The row limit of a size
    falls when a call of it did not fit into memory, and stays there. A decode takes as long as a few steps: it never
    comes twice in a row while pictures run, nor where memory waits for them to leave.
    """

    def __init__(
        self, *, rows_per_call: int, max_images_in_flight: int, row_limits: Mapping[BatchKey, int] | None = None
    ) -> None:
        """Make an empty one.

        Args:
            rows_per_call: model rows in one call.
            max_images_in_flight: pictures that run together.
            row_limits: batch key -> fewer rows, where that many are known not to fit.
        """
        self.waiting: deque[P] = deque()
        self.running: list[P] = []
        self.denoised: deque[P] = deque()
        self._rows_per_call = rows_per_call
        self._max_images_in_flight = max_images_in_flight
        self.row_limits = dict(row_limits or {})
        self._last_turn: dict[BatchKey, int] = {}
        self._turn = 0
        self._has_just_decoded = False
        # Something did not fit beside the running pictures: no other joins until it has been done.
        self._is_draining = False

    @property
    def has_work(self) -> bool:
        """Whether any picture is left."""
        return bool(self.waiting or self.running or self.denoised)

    def row_limit(self, key: BatchKey) -> int:
        """Model rows that one call of this latent size may have."""
        return self.row_limits.get(key, self._rows_per_call)

    def admit(self) -> list[P]:
        """Let waiting pictures join the running ones while there is room. Returns those that have joined."""
        if self._is_draining:
            self._is_draining = bool(self.running or self.denoised)
        joined: list[P] = []
        while self.waiting and len(self.running) < self._max_images_in_flight and not self._is_draining:
            joined.append(self.waiting.popleft())
            self.running.append(joined[-1])
        return joined

    def next_decode(self) -> P | None:
        """The picture that is decoded next; None where a step comes first."""
        must_step_first = self.running and (self._has_just_decoded or self._is_draining)
        if not self.denoised or must_step_first:
            return None
        self._has_just_decoded = True
        return self.denoised[0]

    def next_step(self) -> list[P]:
        """The pictures of the next step, of the size whose turn is longest ago. At least one picture must run."""
        self._has_just_decoded = False
        self._turn += 1
        sharing = self.sharing()
        key = min(sharing, key=lambda key: self._last_turn.get(key, 0))
        # Sizes that are not drawn any more are forgotten: a server lives for years and clients choose the sizes.
        self._last_turn = {key: self._last_turn.get(key, 0) for key in sharing} | {key: self._turn}
        return sharing[key]

    def sharing(self) -> dict[BatchKey, list[P]]:
        """The pictures that take part in the next call of each size."""
        rows: dict[BatchKey, int] = {}
        sharing: dict[BatchKey, list[P]] = {}
        for picture in self.running:
            key = picture.batch_key
            used = rows.get(key, 0)
            if not used or used + picture.num_rows <= self.row_limit(key):
                rows[key] = used + picture.num_rows
                sharing.setdefault(key, []).append(picture)
        return sharing

    def step_taken(self) -> None:
        """Move the pictures that have taken their last step to those that are decoded."""
        self.denoised.extend(picture for picture in self.running if picture.is_denoised)
        self.running = [picture for picture in self.running if not picture.is_denoised]

    def remove(self, is_meant: Callable[[P], bool]) -> None:
        """Forget pictures, wherever they are."""

        def rest(pictures: Iterable[P]) -> Iterable[P]:
            return (picture for picture in pictures if not is_meant(picture))

        self.waiting = deque(rest(self.waiting))
        self.running = list(rest(self.running))
        self.denoised = deque(rest(self.denoised))

    def drain(self) -> bool:
        """Admit no picture until the running ones have left; False if none runs."""
        self._is_draining = self._is_draining or bool(self.running)
        return bool(self.running)

    def put_back(self, pictures: Sequence[P]) -> bool:
        """Let running pictures wait, ahead of all others, until those beside them have left.

        Returns:
            False if there are no others: nothing has changed.
        """
        others = [picture for picture in self.running if picture not in pictures]
        if not others and not self.denoised:
            return False
        self.running = others
        self.waiting.extendleft(reversed(pictures))
        self._is_draining = True
        return True

    def did_not_fit(self, pictures: Sequence[P], num_rows: int) -> bool:
        """Learn from a call that ran out of memory: next time the newest picture waits, or the padding goes.

        Args:
            pictures: that took part. Whichever leaves, the limit has room for one less.
            num_rows: of the call, padding included.

        Returns:
            Whether a smaller call is left to try.
        """
        used = sum(picture.num_rows for picture in pictures)
        smaller = used - pictures[-1].num_rows if len(pictures) > 1 else used
        if smaller >= num_rows:
            return False
        self.row_limits[pictures[0].batch_key] = smaller
        return True
