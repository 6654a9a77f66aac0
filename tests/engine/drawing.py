"""How the engine's tests let an engine draw, and read what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from engine.engine import Engine
from engine.events import EngineEvent, Failed, ImageDrawn
from engine.models.fake import FakeModel
from engine.params import GenerationParams

Params = Callable[..., GenerationParams]
"""Makes a small request; a test names only the wishes that matter to it."""


def add_all(engine: Engine, requests: Iterable[GenerationParams], first_id: int = 0) -> None:
    """Add requests under the ids "0", "1" and so on."""
    for index, request in enumerate(requests, start=first_id):
        engine.add(engine.prepare(str(index), request))


def run(engine: Engine) -> list[EngineEvent]:
    """Let the engine work until it has nothing left to do; every event, in order."""
    events: list[EngineEvent] = []
    while engine.has_work:
        events += engine.step()
    return events


def images(events: Sequence[EngineEvent]) -> dict[tuple[str, int], bytes]:
    """(request id, image index) -> pixels. Fails if a request did."""
    failures = [event for event in events if isinstance(event, Failed)]
    assert not failures, failures
    return {
        (event.request_id, event.image_index): event.pixels.tobytes()
        for event in events
        if isinstance(event, ImageDrawn)
    }


def alone(request: GenerationParams, request_id: str = "0") -> bytes:
    """The pixels of a request that is drawn alone."""
    engine = Engine(FakeModel(), rows_per_call=6)
    engine.add(engine.prepare(request_id, request))
    return images(run(engine))[request_id, 0]
