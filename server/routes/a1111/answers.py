"""The answers of `txt2img` and `img2img`: pictures in base64, and everything about them as a JSON text (`info`)."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from engine.params import GenerationParams
from server.picture_info.infotext import info_text
from server.picture_info.png import PNG_SIGNATURE, text_of_png
from server.routes.dependencies import Service
from server.routes.picture_headers import picture_headers
from server.schemas.a1111 import DrawRequest
from server.schemas.a1111_names import label_of
from server.store.record import JobRecord, Picture

__all__ = ["answer"]


def answer(
    request: Request,
    service: Service,
    body: DrawRequest,
    record: JobRecord,
    images: Sequence[Picture],
    timestamp: str,
) -> JSONResponse:
    """The finished pictures of a call, or as many as there are of one that was interrupted."""
    ignored = body.ignored()
    known = body.model_dump(include=set(type(body).model_fields) - {"init_images", "mask"})
    content = {
        "images": [base64.b64encode(image.data).decode() for image in images] if body.send_images else [],
        "parameters": {**known, **({"init_images": None, "mask": None} if hasattr(body, "mask") else {})},
        "info": json.dumps(_info(service, body, record, images, ignored, timestamp)),
    }
    headers = picture_headers(request, record, service)
    if ignored:
        headers["X-Ignored-Parameters"] = ", ".join(ignored)
    return JSONResponse(content, headers=headers)


def _info(
    service: Service,
    body: DrawRequest,
    record: JobRecord,
    images: Sequence[Picture],
    ignored: list[str],
    timestamp: str,
) -> dict[str, Any]:
    params, num_images = record.new.params, len(images)
    # Of a call that was interrupted, some may be missing. Variations of one seed are not told apart then.
    has_own_seeds = len(set(params.seeds)) == len(params.seeds)
    places = [params.seeds.index(image.seed) if has_own_seeds else index for index, image in enumerate(images)]
    model = params.model or service.settings.model_name
    subseed = -1 if params.variation_seed is None else params.variation_seed
    return {
        "prompt": params.prompt,
        "all_prompts": [params.prompt] * num_images,
        "negative_prompt": params.negative_prompt,
        "all_negative_prompts": [params.negative_prompt] * num_images,
        "seed": params.seed,
        "all_seeds": [image.seed for image in images],
        "subseed": subseed,
        "all_subseeds": [subseed if subseed < 0 else subseed + place for place in places],
        "subseed_strength": params.variation_strength,
        "width": params.width,
        "height": params.height,
        "sampler_name": label_of(params.sampler),
        "cfg_scale": params.guidance_scale,
        "steps": params.num_inference_steps,
        "batch_size": body.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": model,
        "sd_model_hash": None,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": params.strength if params.image is not None else None,
        "extra_generation_params": {"Ignored": ", ".join(ignored)} if ignored else {},
        "index_of_first_image": 0,
        "infotexts": [
            _text_of(image, params.of_image(place), model) for image, place in zip(images, places, strict=True)
        ],
        "styles": [],
        "job_timestamp": timestamp,
        "clip_skip": params.clip_skip + 1,
        "is_using_inpainting_conditioning": False,
        "version": "semantic-bit",
    }


def _text_of(image: Picture, params: GenerationParams, model: str) -> str | None:
    """As the file has it; made anew where the file is none that is quickly read, or has no text."""
    text = text_of_png(image.data) if image.data.startswith(PNG_SIGNATURE) else None
    return text or info_text(params, model)
