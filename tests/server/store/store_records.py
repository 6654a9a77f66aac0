"""Jobs and endings for tests of the job store: each states only what matters."""

from __future__ import annotations

import hashlib
import itertools
from datetime import datetime
from decimal import Decimal

from engine.params import GenerationParams
from server.store.record import Failure, NewJob, Outcome, StoredImage, Timings

_numbers = itertools.count(1)


def new_job(**wish) -> NewJob:
    """A job that no other test has."""
    number = next(_numbers)
    defaults = {
        "id": f"{number:016x}",
        "key_id": "local",
        "user": None,
        "params": GenerationParams(prompt="a cat", seed=2**63 - 1, eta=0.5, sampler="DDIM", noise_schedule="default"),
        "output_format": "png",
        "is_bound": False,
        "idempotency_key": None,
        "request_digest": hashlib.sha256(b"a cat").digest(),
        "created_at": 1000.0 + number,
    }
    return NewJob(**defaults | wish)


def done(
    at: float = 2000.0,
    *,
    num_bytes: int = 100,
    num_images: int = 1,
    engine_s: float = 2.5,
    work_units: float = 0.25,
    price: str = "0.005",
) -> Outcome:
    """A job ends with pictures, each of so many bytes."""
    image = StoredImage(seed=7, media_type="image/png", num_bytes=num_bytes, sha256="00" * 32)
    timings = Timings(queue_s=0.5, encode_s=0.25, denoise_s=2.0, decode_s=0.125, file_s=0.0625)
    return Outcome(
        status="done",
        finished_at=at,
        images=(image,) * num_images,
        truncated_tokens=3,
        timings=timings,
        engine_s=engine_s,
        work_units=work_units,
        price=Decimal(price),
    )


def lost(status: str = "dead", at: float = 2000.0, *, engine_s: float = 0.0) -> Outcome:
    """A job ends without pictures."""
    return Outcome(status=status, finished_at=at, failure=FAILURE, engine_s=engine_s)


FAILURE = Failure(code="engine_lost", detail="the engine ended while it drew")


def noon(day: str) -> float:
    """Of a day in UTC, like 2026-11-01."""
    return datetime.fromisoformat(f"{day}T12:00+00:00").timestamp()
