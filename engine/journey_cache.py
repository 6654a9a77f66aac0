"""Cache of the sampler tables of one model: in memory, on disk, or probed now, in this order."""

from __future__ import annotations

import copy
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

import torch

from engine.errors import InvalidParamsError
from engine.journey import Journey, Route
from engine.probing import probe
from engine.schedulers import Scheduler, make_scheduler, set_timesteps
from engine.table_store import TableStore

__all__ = ["JourneyCache"]

logger = logging.getLogger(__name__)

# What diffusers' schedulers raise where a combination was not thought of. Not AssertionError: that is our own mistake.
_LIBRARY_FAULTS: Final = (ArithmeticError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)


class JourneyCache:
    """The journeys of one model, each probed once. Safe to use from several threads."""

    def __init__(
        self, scheduler_config: Mapping[str, object], *, store: TableStore | None = None, max_entries: int = 256
    ) -> None:
        """Make one that knows no journey yet.

        Args:
            scheduler_config: what the checkpoint's `scheduler_config.json` says.
            store: tables that were probed before, and where others are kept; None keeps them in memory only.
            max_entries: journeys in memory, the latest used.
        """
        self._config = dict(scheduler_config)
        self._store = store
        self._max_entries = max_entries
        self._journeys: OrderedDict[tuple[object, ...], Journey] = OrderedDict()
        # Building some schedulers lays out 1000 steps (up to 0.3 s): done once, copied for every table.
        self._prototypes: dict[tuple[str, str], Scheduler] = {}
        self._lock = threading.Lock()

    def get(self, route: Route) -> Journey:
        """The journey along a route.

        Raises:
            InvalidParamsError: diffusers has no finite, linear table for this route and this model's configuration.
        """
        key = route.key
        with self._lock:
            journey = self._journeys.get(key)
            if journey is None:
                journey = self._make(route)
                self._journeys[key] = journey
                if len(self._journeys) > self._max_entries:
                    self._journeys.popitem(last=False)
            self._journeys.move_to_end(key)
            return journey

    def _make(self, route: Route) -> Journey:
        journey = None if self._store is None else self._store.read(self._config, route)
        if journey is None:
            journey = self._probe(route)
            if self._store is not None:
                self._store.write(self._config, route, journey)
        return journey

    def _probe(self, route: Route) -> Journey:
        try:
            return self._read_off(route)
        except _LIBRARY_FAULTS as error:
            # Each combination is the caller's choice; several of diffusers' schedulers fail with a few of them. Logged,
            # so that a mistake of our own is not taken for one of the caller's.
            logger.warning("no sampler table", exc_info=True)
            raise InvalidParamsError(
                "sampler",
                f"must suit this model and the other parameters (diffusers fails with {route.noise_schedule} noise "
                f"levels over {route.num_inference_steps} steps: {type(error).__name__}: {error})",
                route.sampler.name,
            ) from error

    def _read_off(self, route: Route) -> Journey:
        sampler, noise_schedule = route.sampler, route.noise_schedule
        prototype = self._prototypes.get((sampler.name, noise_schedule))
        if prototype is None:
            prototype = make_scheduler(sampler, noise_schedule, self._config)
            self._prototypes[sampler.name, noise_schedule] = prototype
        scheduler = copy.deepcopy(prototype)
        timesteps = set_timesteps(
            scheduler, sampler, noise_schedule, route.num_inference_steps, route.begin, route.ays_timesteps
        )
        with torch.inference_mode():  # a fifth faster
            exact = probe(scheduler, timesteps, route)
        return exact.to(torch.float32)
