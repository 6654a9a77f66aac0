"""Drawings for training: made in shards, in a pool that new ones replace.

What is in a pool depends only on how many were to be drawn so far: shard 17 is always the same drawings.
"""

import logging
import pickle
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from random import Random
from typing import Generic, TypeVar

import torch

from training.dreamlet.scenes import Said, Scene

LOG = logging.getLogger("dreamlet")
T = TypeVar("T")
Example = tuple[Scene, Said]
"""A scene, and what its captions may say of it."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Drawings of one size that were made together."""

    tensors: dict[str, torch.Tensor]
    """Of equal length by name."""
    examples: list[Example] = field(default_factory=list)
    """As many, or none where no caption is wanted."""

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one drawing: only those of one shape fit into one batch."""
        return tuple(next(iter(self.tensors.values())).shape[1:])


class Supply(Generic[T]):
    """Calls a function of a number, for one number after the other; ahead of time where there are processes for it."""

    def __init__(self, make: Callable[[int], T], workers: int) -> None:
        self._make = make
        self._ahead = 2 * workers
        # A fresh interpreter for each: forking a process that runs torch's threads may hang it.
        self._executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn")) if workers else None
        self._pending: dict[int, Future[bytes]] = {}

    def get(self, number: int) -> T:
        """The result for this number."""
        if self._executor is None:
            return self._make(number)
        for wanted in range(number, number + 1 + self._ahead):
            if wanted not in self._pending:
                self._pending[wanted] = self._executor.submit(_packed, self._make, wanted)
        made: T = pickle.loads(self._pending.pop(number).result())  # noqa: S301 - by a process of our own
        return made


def _packed(make: Callable[[int], object], number: int) -> bytes:
    """Bytes, since tensors would come through shared memory, of which containers have little."""
    return pickle.dumps(make(number))


class Pool:
    """The newest shards, up to a capacity."""

    def __init__(self, make: Callable[[int], Shard], shard: int, capacity: int) -> None:
        """Describe the pool.

        Args:
            make: makes the shard of a number.
            shard: drawings in each.
            capacity: drawings held, at least one shard.
        """
        self._make = make
        self._length = shard
        self._capacity = max(1, capacity // shard)
        self._shards: deque[Shard] = deque(maxlen=self._capacity)
        self._next = 0

    def grow_to(self, drawn: int) -> None:
        """Add shards until so many drawings have been made in all; those that no longer fit are never made."""
        last = -(-drawn // self._length)
        self._next = max(self._next, last - self._capacity)
        if last - self._next > 1:
            LOG.info("%d shards of %d drawings to make, or to read", last - self._next, self._length)
        while self._next < last:
            self._shards.append(self._make(self._next))
            self._next += 1

    def __len__(self) -> int:
        return sum(len(shard) for shard in self._shards)

    def sample(self, random: Random, count: int) -> Shard:
        """Take drawings of one size by chance, with replacement; a size is as likely as its share in the pool."""
        shape = random.choice(self._shards).shape
        fitting = [shard for shard in self._shards if shard.shape == shape]
        chosen = [(shard, random.randrange(len(shard))) for shard in random.choices(fitting, k=count)]
        names = fitting[0].tensors
        return Shard(
            {name: torch.stack([shard.tensors[name][row] for shard, row in chosen]) for name in names},
            [shard.examples[row] for shard, row in chosen if shard.examples],
        )
