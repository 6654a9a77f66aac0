"""The site's connections to the GPU server: clients, submitting, following, health. Only this imports the client."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from decimal import Decimal
from typing import Final

from semantic_bit_client import (
    AsyncClient,
    Client,
    Expand,
    Health,
    Hires,
    InvalidRequest,
    Job,
    JobFailed,
    JobNotFound,
    JobState,
    KeyReused,
    Progress,
    RateLimited,
    ResultExpired,
    Retries,
    SemanticBitError,
    ServerBusy,
)

from newdreamflow.dreams import inputs
from newdreamflow.dreams.conf import dreams_settings
from newdreamflow.dreams.growth import growth_of
from newdreamflow.dreams.models import Dream, hires_steps
from newdreamflow.dreams.styles import styled

__all__ = [
    "SAMPLER",
    "WORK_UNIT_PLACES",
    "InvalidRequest",
    "Job",
    "JobFailed",
    "JobNotFound",
    "JobState",
    "KeyReused",
    "Progress",
    "RateLimited",
    "ResultExpired",
    "SemanticBitError",
    "ServerBusy",
    "client",
    "close_clients",
    "follow",
    "health",
    "submit",
]

logger = logging.getLogger(__name__)

SAMPLER: Final = "DPM++ 2M Karras"
"""Named, so that what a dream costs is known before it is sent, whatever the GPU server's default is."""

_MASK_BLUR: Final = 4
"""Pixels over which the part that is drawn passes into the rest."""

_HIRES_STRENGTH: Final = 0.7
"""How much is drawn anew at the larger size: the GPU server's own default for enlarged latents."""

WORK_UNIT_PLACES: Final = Decimal("0.000001")
"""To which the GPU server rounds work units."""

_CLIENT_RETRIES: Final = Retries(attempts=1)
"""The dream's own row remembers when to try again, so no worker waits."""
_FOLLOWER_RETRIES: Final = Retries(attempts=2, time_s=3.0)
_LONGEST_FOLLOW_S: Final = 600.0


def submit(dream: Dream) -> Job:
    """Hand a dream over. However often: by its idempotency key it is one job there.

    Raises:
        SemanticBitError: see the client's `errors.py`.
        InputLostError: the picture that it is drawn over is gone.
    """
    over = inputs.of_dream(dream)
    return client().submit(
        styled(dream.prompt, dream.style),
        idempotency_key=dream.idempotency_key,
        negative_prompt=dream.negative_prompt or None,
        # What people write in brackets is text here, and old dreams are drawn again as they were.
        prompt_syntax="plain",
        num_inference_steps=dream.num_inference_steps,
        guidance_scale=dream.guidance_scale,
        width=dream.width,
        height=dream.height,
        seed=dream.seed,
        num_images=dream.num_images,
        sampler=SAMPLER,
        user=str(dream.user_id),
        image=None if over is None else over.image,
        strength=dream.strength,
        mask=None if over is None else over.mask,
        mask_blur=_MASK_BLUR if dream.has_mask or dream.expand else None,
        expand=_expand(dream, over) if over is not None and dream.expand else None,
        hires=_hires(dream) if dream.hires else None,
        model=dream.wanted_model or None,
    )


def _expand(dream: Dream, over: inputs.Input) -> Expand:
    growth = growth_of(dream.expand, over.width, over.height)
    return {"left": 0, "top": 0, "right": 0, "bottom": 0, **growth}  # type: ignore[typeddict-item]


def _hires(dream: Dream) -> Hires:
    # Everything is said, so that what a dream costs is known before it is sent.
    return {
        "width": dream.picture_width,
        "height": dream.picture_height,
        "upscaler": "latent",
        "steps": hires_steps(dream.num_inference_steps),
        "strength": _HIRES_STRENGTH,
    }


async def follow(*, dream: Dream) -> AsyncGenerator[Progress, None]:
    """How far a dream is at the GPU server, until it has ended there or cannot be followed any more."""
    async with _async_client() as connected:
        try:
            job = await connected.job(dream.remote_job_id)
            async with aclosing(job.events(timeout_s=_LONGEST_FOLLOW_S)) as events:
                async for progress in events:
                    yield progress
        except SemanticBitError as error:
            logger.info("dream %s cannot be followed: %s", dream.uuid, error)


def health() -> Health | None:
    """How the GPU server is; None if it cannot be reached."""
    try:
        return client().health()
    except SemanticBitError:
        return None


_clients: Final[dict[tuple[int, str, str], Client]] = {}
"""By process, since connections do not survive a fork, and by where they lead."""
_clients_lock: Final = threading.Lock()


def client() -> Client:
    """This process's connection to the GPU server; threads share it."""
    url, api_key = dreams_settings.GPU_SERVER_URL, dreams_settings.GPU_SERVER_API_KEY
    with _clients_lock:
        key = (os.getpid(), url, api_key)
        if key not in _clients:
            _clients[key] = Client(url, api_key or None, retries=_CLIENT_RETRIES)
        return _clients[key]


def _async_client() -> AsyncClient:
    # One for each follower: an event loop's connections belong to it alone.
    return AsyncClient(
        dreams_settings.GPU_SERVER_URL, dreams_settings.GPU_SERVER_API_KEY or None, retries=_FOLLOWER_RETRIES
    )


def close_clients() -> None:
    """Close the connections of this process."""
    with _clients_lock:
        while _clients:
            _clients.popitem()[1].close()
