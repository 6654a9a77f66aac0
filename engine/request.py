"""One request for pictures: made ready outside the engine's thread, and remembered while its pictures are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.events import PhaseTimes
from engine.picture import Picture

__all__ = ["PreparedRequest", "Request"]


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request with all that can be made ready outside the engine's thread: tables and noise."""

    request_id: str
    pictures: Sequence[Picture]
    truncated_tokens: int
    wants_previews: bool


@dataclass(slots=True)
class Request:
    """What the engine remembers of a request whose pictures it draws."""

    id: str
    truncated_tokens: int
    num_unfinished: int
    next_preview_at: float
    """On the engine's clock; infinity if no previews are wanted."""
    encode_s: float = 0.0
    decode_s: float = 0.0
    denoise_began: float | None = None
    denoise_ended: float = 0.0

    def times(self) -> PhaseTimes:
        """Where its time went so far."""
        began = self.denoise_ended if self.denoise_began is None else self.denoise_began
        return PhaseTimes(encode_s=self.encode_s, denoise_s=self.denoise_ended - began, decode_s=self.decode_s)
