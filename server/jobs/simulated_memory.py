"""Which models an engine of the ETA simulation has in memory, and what it takes to have another. No clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from server.executors.messages import ModelsChanged

__all__ = ["SimulatedMemory"]


class SimulatedMemory:
    """The rule of the engine's shelf: what was used longest ago leaves, and what is in use stays."""

    def __init__(self, report: ModelsChanged, users: Mapping[str, int] = MappingProxyType({})) -> None:
        """Make one.

        Args:
            report: what there is, the model that was used last at the end.
            users: model -> jobs that are being drawn with it.
        """
        self._report = report
        self._resident = list(report.resident)
        self._users = Counter(users)

    def branched(self) -> SimulatedMemory:
        """The same once more, to go on in another way."""
        return SimulatedMemory(msgspec.structs.replace(self._report, resident=tuple(self._resident)), self._users)

    def load_s(self, model: str) -> float:
        """Seconds that it takes to load."""
        return self._report.load_s(model)

    def keeps_models_for(self, model: str) -> bool:
        """As `Seat.keeps_models_for`."""
        return model in self._resident or self._fits({*self._resident, model})

    def has_memory_for(self, model: str) -> bool:
        """As `Seat.has_memory_for`."""
        return not self._users or self._fits({*self._users, model})

    def take(self, model: str) -> float:
        """A job begins. Returns the seconds until its model is there."""
        is_new = model not in self._resident
        unused = [name for name in self._resident if not self._users[name] and name != model]
        while unused and not self._fits({*self._resident, model}):
            self._resident.remove(unused.pop(0))
        self._resident = [*(name for name in self._resident if name != model), model]
        self._users[model] += 1
        return self.load_s(model) if is_new else 0.0

    def leave(self, model: str) -> None:
        """A job has ended."""
        self._users -= Counter([model])

    def _fits(self, models: Iterable[str]) -> bool:
        return self._report.fits(models)
