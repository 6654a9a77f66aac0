"""Headers of an answer with pictures: which job drew them, and how."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import Request

from server.routes.dependencies import Service
from server.store.record import JobRecord

__all__ = ["is_truncated_in", "picture_headers"]


def picture_headers(request: Request, record: JobRecord, service: Service) -> dict[str, str]:
    """The headers of a finished job's pictures; their times are logged too."""
    params = record.new.params  # a repeat has the seed that was drawn the first time
    timing = _server_timing(record)
    request.state.log |= {"job_id": record.id, "server_timing": timing}
    return {
        "X-Job-Id": record.id,
        "X-Seed": str(params.seed),
        "X-Model-Id": quote(params.model or service.settings.model_name, safe="/:@+ "),
        "X-Sampler": params.sampler,
        "X-Noise-Schedule": params.noise_schedule,
        "X-Engine-Class": record.outcome.engine_class if record.outcome else "",
        "X-Prompt-Truncated": "true" if is_truncated_in(record) else "false",
        "Server-Timing": ", ".join(f"{phase};dur={milliseconds}" for phase, milliseconds in timing.items()),
    }


def is_truncated_in(record: JobRecord) -> bool:
    """Whether a text of the job was longer than the text encoder reads."""
    return record.outcome is not None and record.outcome.truncated_tokens > 0


def _server_timing(record: JobRecord) -> dict[str, float]:
    timings = record.outcome.timings if record.outcome else None
    if timings is None:
        return {}
    seconds = {
        "queue": timings.queue_s,
        "encode": timings.encode_s,
        "denoise": timings.denoise_s,
        "decode": timings.decode_s,
        "png": timings.file_s,
    }
    return {phase: round(1000 * duration, 1) for phase, duration in seconds.items()}
