"""Every family of models against diffusers' pipelines: the same latents, from text, from a picture, and with a mask."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from engine.engine import Engine
from engine.events import Failed
from engine.models.locate import locate
from engine.models.random_model import make_random_model
from engine.models.stable_diffusion import StableDiffusion
from engine.params import GenerationParams, InputImage, MaskWish
from engine.samplers import SAMPLERS
from tests.engine.drawing import Params, run
from tests.engine.test_oracle import DIFFUSERS

SIDE = 72
IMAGE, MASK = "1" * 64, "2" * 64
FAMILIES: dict[str, dict[str, Any]] = {
    "SD 2": {"arch": "tiny-2", "prediction_type": "v_prediction"},
    "SD 2 of noise": {"arch": "tiny-2"},
    "SD 2 with zero terminal SNR": {"arch": "tiny-2", "prediction_type": "v_prediction", "zero_terminal_snr": True},
    "SDXL": {"arch": "tiny-xl"},
    "SDXL, tiny autoencoder": {"arch": "tiny-xl", "vae": "tiny"},
    "LCM": {"arch": "tiny", "embeds_guidance": True},
    "SDXL LCM": {"arch": "tiny-xl", "embeds_guidance": True},
    "SD 1 inpainting": {"arch": "tiny", "is_inpainting": True},
    "SD 2 inpainting": {"arch": "tiny-2", "is_inpainting": True},
    "SDXL inpainting": {"arch": "tiny-xl", "is_inpainting": True},
    "SD 1 inpainting, tiny autoencoder": {"arch": "tiny", "is_inpainting": True, "vae": "tiny"},
}
SAMPLED = [("DPMSolver++", "karras"), ("Euler a", "default"), ("DDIM", "default")]


@dataclass
class Pair:
    """A model, and what diffusers makes of the same folder."""

    ours: StableDiffusion
    theirs: Any


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder: Path = tmp_path_factory.mktemp("models") / "random"
    make_random_model(folder, seed=3, **FAMILIES[request.param])
    ours = StableDiffusion.load(locate(str(folder)), torch.device("cpu"), torch.float32)
    return Pair(ours, diffusers.DiffusionPipeline.from_pretrained(str(folder), dtype=torch.float32))


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    """A smooth picture, and a mask aligned to latents."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    image = (127 + 100 * np.stack([np.sin(5 * x), np.cos(4 * y), x * y], axis=-1)).clip(0, 255).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 24:64] = 255
    return {IMAGE: image, MASK: mask}


def named(sha256: str) -> InputImage:
    return InputImage(sha256=sha256, width=SIDE, height=SIDE)


def latents_of(
    model: StableDiffusion, requests: list[GenerationParams], inputs: dict[str, np.ndarray]
) -> list[torch.Tensor]:
    """The last latents of each, drawn together."""
    engine = Engine(model, rows_per_call=8)
    seen: dict[str, torch.Tensor] = {}
    finish = engine._finish

    def remember(picture, pixels):
        seen[picture.request_id] = picture.leg.latents.clone()
        return finish(picture, pixels)

    engine._finish = remember  # type: ignore[method-assign]
    for index, request in enumerate(requests):
        engine.add(engine.prepare(str(index), request, inputs=inputs))
    failures = [event for event in run(engine) if isinstance(event, Failed)]
    assert not failures
    return [seen[str(index)] for index in range(len(requests))]


def expected(pipeline: Any, kind: str, request: GenerationParams, **inputs: object) -> torch.Tensor:
    """The last latents of diffusers' pipeline."""
    name, options = DIFFUSERS[request.sampler, request.noise_schedule]
    is_xl = "text_encoder_2" in pipeline.components
    pipeline_class = getattr(diffusers, f"StableDiffusion{'XL' if is_xl else ''}{kind}Pipeline")
    wanted = inspect.signature(pipeline_class.__init__).parameters
    parts = {key: value for key, value in pipeline.components.items() if key in wanted and key != "scheduler"}
    scheduler = getattr(diffusers, name).from_config(dict(pipeline.scheduler.config), **options)
    extra = {} if is_xl else {"requires_safety_checker": False}
    other = pipeline_class(**parts, scheduler=scheduler, **extra)
    other.set_progress_bar_config(disable=True)
    if is_xl and request.size_ids is not None:
        sizes = request.size_ids
        inputs |= {"original_size": sizes[:2], "crops_coords_top_left": sizes[2:4], "target_size": sizes[4:]}
    if kind:
        inputs.setdefault("strength", request.strength)
    answer = other(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt or None,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        eta=SAMPLERS[request.sampler].default_eta or 0.0,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="latent",
        **inputs,
    )
    return answer.images[0]


def error(found: torch.Tensor, known: torch.Tensor) -> float:
    return float((found - known).abs().max() / known.abs().max())


@pytest.fixture
def wish(params: Params) -> Params:
    def make(**wishes: object) -> GenerationParams:
        ordinary = {"negative_prompt": "a dog", "num_inference_steps": 6, "height": SIDE, "width": SIDE}
        return params(**(ordinary | wishes))

    return make


@pytest.mark.parametrize("pair", FAMILIES, indirect=True)
def test_each_way_to_ask_equals_diffusers_pipeline(pair: Pair, wish: Params, inputs: dict[str, np.ndarray]):
    """Relative error of the last latents at most 1e-5: from text, from a picture, and with a mask; all in one batch."""
    image, mask = Image.fromarray(inputs[IMAGE]), Image.fromarray(inputs[MASK])
    size = {"height": SIDE, "width": SIDE}
    cases: list[tuple[str, GenerationParams, dict[str, object]]] = []
    for sampler, noise_schedule in SAMPLED:
        plain = wish(sampler=sampler, noise_schedule=noise_schedule)
        drawn_over = replace(plain, image=named(IMAGE), strength=0.6)
        masked = replace(drawn_over, mask=MaskWish(image=named(MASK)))
        painted = {"image": image, "mask_image": mask, **size}
        cases += [("Inpaint", masked, dict(painted)), ("Inpaint", replace(masked, strength=1.0), dict(painted))]
        if pair.ours.info.is_inpainting:
            # Their pipelines for text and pictures take no such model; without a mask all is masked.
            painted["mask_image"] = Image.new("L", (SIDE, SIDE), 255)
            cases.append(("Inpaint", drawn_over, dict(painted)))
            cases.append(("Inpaint", plain, dict(painted) | {"strength": 1.0}))
        else:
            cases += [("", plain, dict(size)), ("Img2Img", drawn_over, {"image": image})]
    found = latents_of(pair.ours, [request for _, request, _ in cases], inputs)
    for latents, (kind, request, theirs) in zip(found, cases, strict=True):
        known = expected(pair.theirs, kind, request, **theirs)
        assert error(latents, known) <= 1e-5, (kind, request)


@pytest.mark.parametrize("pair", ["SDXL"], indirect=True)
def test_requests_of_other_sizes_guidance_and_samplers_share_calls(pair: Pair, wish: Params):
    """Size ids, guidance, sampler and the number of steps are each row's own; no negative prompt is all zeros."""
    requests = [
        wish(sampler="Euler", noise_schedule="default", num_inference_steps=5, guidance_scale=4.0, negative_prompt=""),
        wish(
            sampler="DPM++ 2M SDE",
            noise_schedule="karras",
            num_inference_steps=8,
            seed=11,
            size_ids=(1024, 768, 0, 16, 512, 640),
        ),
        wish(sampler="Euler", noise_schedule="default", guidance_scale=1.0, seed=5),
    ]
    for request, latents in zip(requests, latents_of(pair.ours, requests, {}), strict=True):
        assert error(latents, expected(pair.theirs, "", request, height=SIDE, width=SIDE)) <= 1e-5


@pytest.mark.parametrize("pair", ["SDXL"], indirect=True)
def test_the_noise_schedule_found_for_sdxl_is_its_own(pair: Pair, wish: Params):
    request = wish(sampler="Euler", noise_schedule="ays", num_inference_steps=10)
    engine = Engine(pair.ours)
    told = engine.prepare("0", request).pictures[0].leg.timesteps
    assert [round(step) for step in told] == diffusers.schedulers.AysSchedules["StableDiffusionXLTimesteps"]
