"""Servers with jobs, their archives, and what is restored from them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from engine.params import GenerationParams
from server.store.job_store import JobStore
from server.store.picture_files import ResultFiles
from server.store.record import NewJob, Outcome, StoredImage

PICTURES = [b"first picture", b"second picture"]


def new(number: int, *, is_bound: bool = False) -> NewJob:
    return NewJob(
        id=f"{number:016x}",
        key_id="local",
        user=None,
        params=GenerationParams(prompt="a cat", seed=7, num_inference_steps=4, height=64, width=64, num_images=2),
        output_format="png",
        is_bound=is_bound,
        idempotency_key=f"wish-{number}",
        request_digest=bytes(32),
        created_at=1_700_000_000.0 + number,
    )


async def fill(folder: Path) -> None:
    """Job 1 is done and has two pictures, job 2 was running, job 3 waits, job 4 runs for a connection."""
    store = await JobStore.open(folder)
    for number in (1, 2, 3, 4):
        await store.add(new(number, is_bound=number == 4))
        if number != 3:
            await store.begin(f"{number:016x}", 1_700_000_010.0)
    files = ResultFiles(folder / "results")
    images = []
    for index, data in enumerate(PICTURES):
        files.write(f"{1:016x}", index, data)
        digest = hashlib.sha256(data).hexdigest()
        images.append(StoredImage(seed=index, media_type="image/png", num_bytes=len(data), sha256=digest))
    await store.finish(f"{1:016x}", 1, Outcome(status="done", finished_at=1_700_000_020.0, images=tuple(images)))
    await store.close()
