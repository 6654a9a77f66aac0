"""The engine against diffusers' pipelines for image to image and inpainting: the same latents and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from engine.engine import Engine
from engine.events import Failed, ImageDrawn
from engine.models.locate import locate
from engine.models.random_model import make_random_model
from engine.models.stable_diffusion import StableDiffusion
from engine.params import GenerationParams, Hires, InputImage, MaskWish
from engine.samplers import SAMPLERS
from tests.engine.drawing import Params, run
from tests.engine.test_oracle import DIFFUSERS

STEPS = 10
IMAGE, MASK = "1" * 64, "2" * 64
SIDE = 72
"""Pixels: 9x9 latents of 4 numbers are no multiple of 16, where one large draw of noise would differ."""

CUT = {
    "LMS": "its first steps would rest on outputs that were never computed: diffusers leaves noise in",
    "PNDM": "as LMS: entered in the middle, diffusers repeats another step than the second",
}
"""Samplers whose noise schedule is cut instead, where they are entered in the middle (`is_cut_when_entered`)."""


CASES = [("kl", *pair) for pair in DIFFUSERS] + [("tiny", "DPMSolver++", "karras"), ("tiny", "Euler a", "default")]
"""Autoencoder, sampler, noise schedule. The tiny autoencoder has no variance, hence no draw: two samplers show it."""


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with the autoencoder of the case."""
    folder = tmp_path_factory.mktemp("models") / "random"
    make_random_model(folder, seed=3, vae=request.param)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> StableDiffusion:
    return StableDiffusion.load(locate(str(folder)), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Iterator[Any]:
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(str(folder), dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Smooth, so that an autoencoder of random weights has something to say."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    noise = np.random.default_rng(0).normal(0, 8, (SIDE, SIDE, 3))
    return (127 + 100 * np.stack([np.sin(5 * x), np.cos(4 * y), x * y], axis=-1) + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    """Aligned to latents: elsewhere diffusers looks at one pixel of each only."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[16:48, 24:64] = 255
    return mask


def wish(params: Params, sampler: str, noise_schedule: str, **wishes: object) -> GenerationParams:
    ordinary = {
        "prompt": "a cat",
        "negative_prompt": "a dog",
        "num_inference_steps": STEPS,
        "height": SIDE,
        "width": SIDE,
        "sampler": sampler,
        "noise_schedule": noise_schedule,
        "image": InputImage(sha256=IMAGE, width=SIDE, height=SIDE),
    }
    return params(**(ordinary | wishes))


def drawn(
    model: StableDiffusion, request: GenerationParams, inputs: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> tuple[torch.Tensor, np.ndarray]:
    """The last latents, and the picture."""
    seen: list[torch.Tensor] = []
    decode = model.decode
    with monkeypatch.context() as patch:
        patch.setattr(model, "decode", lambda latents: (seen.append(latents.clone()), decode(latents))[1])
        engine = Engine(model)
        engine.add(engine.prepare("0", request, inputs=inputs))
        events = run(engine)
    assert not [event for event in events if isinstance(event, Failed)]
    (pixels,) = [event.pixels for event in events if isinstance(event, ImageDrawn)]
    return seen[-1], pixels


def expected(pipeline: Any, kind: Any, request: GenerationParams, **inputs: object) -> torch.Tensor:
    """The last latents of diffusers' pipeline."""
    name, options = DIFFUSERS[request.sampler, request.noise_schedule]
    scheduler = getattr(diffusers, name).from_config(dict(pipeline.scheduler.config), **options)
    parts = {key: value for key, value in pipeline.components.items() if key != "scheduler"}
    other = kind(**parts, scheduler=scheduler, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    answer = other(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        strength=request.strength,
        eta=SAMPLERS[request.sampler].default_eta or 0.0,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="latent",
        **inputs,
    )
    return answer.images[0]


def decoded(pipeline: Any, latents: torch.Tensor) -> np.ndarray:
    """The picture that diffusers makes of latents: (H, W, 3), 0 to 255."""
    with torch.inference_mode():
        image = pipeline.vae.decode(latents[None] / pipeline.vae.config.scaling_factor).sample
    return np.asarray(pipeline.image_processor.postprocess(image, output_type="pil")[0]).astype(int)


def error(found: torch.Tensor, known: torch.Tensor) -> float:
    return float((found - known).abs().max() / known.abs().max())


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
@pytest.mark.parametrize(("folder", "sampler", "noise_schedule"), CASES, indirect=["folder"])
def test_image_to_image_equals_diffusers(
    *,
    model: StableDiffusion,
    pipeline: Any,
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
    image: np.ndarray,
    sampler: str,
    noise_schedule: str,
    strength: float,
):
    """Relative error of the last latents at most 1e-5, pixels within 2 of 255, but for the two samplers that are cut on
    purpose."""
    request = wish(params, sampler, noise_schedule, strength=strength)
    latents, pixels = drawn(model, request, {IMAGE: image}, monkeypatch)
    theirs = expected(pipeline, diffusers.StableDiffusionImg2ImgPipeline, request, image=Image.fromarray(image))
    if sampler in CUT and strength < 1:
        assert error(latents, theirs) > 1e-3, "diffusers has mended it: compare it as the others"
    else:
        assert error(latents, theirs) <= 1e-5
        assert np.abs(pixels - decoded(pipeline, theirs)).max() <= 2


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
@pytest.mark.parametrize(("folder", "sampler", "noise_schedule"), CASES, indirect=["folder"])
def test_inpainting_equals_diffusers(
    *,
    model: StableDiffusion,
    pipeline: Any,
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
    image: np.ndarray,
    mask: np.ndarray,
    sampler: str,
    noise_schedule: str,
    strength: float,
):
    """As image to image within the mask; outside of it the picture is the input, bit for bit."""
    mask_wish = MaskWish(image=InputImage(sha256=MASK, width=SIDE, height=SIDE))
    request = wish(params, sampler, noise_schedule, strength=strength, mask=mask_wish)
    latents, pixels = drawn(model, request, {IMAGE: image, MASK: mask}, monkeypatch)
    np.testing.assert_array_equal(pixels[mask == 0], image[mask == 0])
    theirs = expected(
        pipeline,
        diffusers.StableDiffusionInpaintPipeline,
        request,
        image=Image.fromarray(image),
        mask_image=Image.fromarray(mask),
        height=SIDE,
        width=SIDE,
    )
    if sampler in CUT and strength < 1:
        assert error(latents, theirs) > 1e-3, "diffusers has mended it: compare it as the others"
    else:
        assert error(latents, theirs) <= 1e-5
        assert np.abs(pixels - decoded(pipeline, theirs))[mask == 255].max() <= 2


@pytest.mark.parametrize("folder", ["kl"], indirect=True)
@pytest.mark.parametrize(
    ("upscaler", "mode", "smooths"),
    [
        ("latent", "bilinear", False),
        ("latent-antialiased", "bilinear", True),
        ("latent-bicubic", "bicubic", False),
        ("latent-nearest", "nearest-exact", False),
        ("lanczos", None, False),
    ],
)
def test_hires_fix_equals_a_text_to_image_and_an_image_to_image_pipeline(
    *,
    model: StableDiffusion,
    pipeline: Any,
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
    upscaler: str,
    mode: str | None,
    smooths: bool,
):
    """The first picture enlarged as latents by torch or as pixels by Pillow; a fresh generator of the same seed."""
    text = wish(params, "Euler a", "default", image=None)
    # Strides of 9 latents: an enlargement by a whole factor would hide a shift.
    large = SIDE + 40
    hires = Hires(width=large, height=large, steps=5, strength=0.5, upscaler=upscaler)
    latents, _ = drawn(model, replace(text, hires=hires), {}, monkeypatch)
    first, picture = drawn(model, text, {}, monkeypatch)
    if mode is None:
        image: object = Image.fromarray(picture).resize((large, large), Image.Resampling.LANCZOS)
    else:
        size = (large // 8, large // 8)
        image = torch.nn.functional.interpolate(first[None], size=size, mode=mode, antialias=smooths)
    second = replace(text, strength=0.5, num_inference_steps=10, image=InputImage(sha256=IMAGE, width=1, height=1))
    theirs = expected(pipeline, diffusers.StableDiffusionImg2ImgPipeline, second, image=image)
    assert error(latents, theirs) <= 1e-5
