"""The doctor's look at engines elsewhere: can each be reached, does it draw, and what is it?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping

from server.cli.doctor.finding import Finding
from server.config import Settings, StartError
from server.executors.engines import remote_engines
from server.executors.remote import RemoteEngine

__all__ = ["look_at_engines"]

_POLL_S = 0.02


def look_at_engines(settings: Settings, *, timeout_s: float = 5.0) -> Iterator[Finding]:
    """Look at the settings ENGINES and ENGINE_POOL_URL, if they are set.

    Args:
        settings: of the server.
        timeout_s: for all answers together.
    """
    if not (settings.engines or settings.engine_pool_url):
        return
    try:
        yield from asyncio.run(_asked(settings, timeout_s))
    except StartError as error:
        yield Finding("engines", "FAIL", str(error), "correct ENGINE_CA")


async def _asked(settings: Settings, timeout_s: float) -> list[Finding]:
    found, troubles = await remote_engines(settings)
    findings = [
        Finding("engines", "warn", f"{url} cannot be looked up: {reason}", "correct ENGINES, or start its engines")
        for url, reason in troubles.items()
    ]
    try:
        for engine in found.values():
            await engine.start()
        await _wait_for_answers(found, timeout_s)
        return findings + [_finding(name, engine) for name, engine in found.items()]
    finally:
        for engine in found.values():
            await engine.stop()


async def _wait_for_answers(engines: Mapping[str, RemoteEngine], timeout_s: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while loop.time() < deadline:
        if all(engine.state != "loading" or engine.load_trouble or engine.info for engine in engines.values()):
            return
        await asyncio.sleep(_POLL_S)


def _finding(name: str, engine: RemoteEngine) -> Finding:
    info = engine.info
    words: list[str] = [engine.state]
    if info is not None:
        words += [info.model_id, info.device_name, f"{info.max_images_in_flight} places"]
        words += [f"class {info.engine_class}"] if info.engine_class else []
    what = f"{name}: {', '.join(words)}"
    if engine.state == "ready":
        return Finding("engines", "ok", what)
    reason = engine.failure or engine.load_trouble or "its model is being loaded, or it does not answer"
    remedy = "look at its log; it must run with the same release and ENGINE_TOKEN, and be reachable from here"
    return Finding("engines", "warn", f"{what}: {reason}", remedy)
