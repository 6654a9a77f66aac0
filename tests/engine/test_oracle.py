"""The engine against diffusers, which it never runs while drawing: the same latents, the same pictures."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from engine.engine import Engine
from engine.models.locate import locate
from engine.models.random_model import make_random_model
from engine.models.stable_diffusion import StableDiffusion
from engine.params import GenerationParams
from engine.prompts.prompt import Prompt
from engine.samplers import SAMPLERS
from tests.engine.drawing import Params, add_all, images, run

KARRAS = {"use_karras_sigmas": True}
SDE = {"algorithm_type": "sde-dpmsolver++"}

# How a user of diffusers would build our samplers; written by hand, so that a slip in `samplers.py` shows. Every other
# noise schedule is compared in `test_sampler_table.py`.
DIFFUSERS: dict[tuple[str, str], tuple[str, dict[str, object]]] = {
    ("DPMSolver++", "default"): ("DPMSolverMultistepScheduler", {}),
    ("DPMSolver++", "karras"): ("DPMSolverMultistepScheduler", KARRAS),
    ("DPM++ 3M", "karras"): ("DPMSolverMultistepScheduler", {"solver_order": 3, **KARRAS}),
    ("DPM++ 2M SDE Heun", "karras"): ("DPMSolverMultistepScheduler", {**SDE, **KARRAS, "solver_type": "heun"}),
    ("DPM++ 2M SDE", "karras"): ("DPMSolverMultistepScheduler", {**SDE, **KARRAS}),
    ("DPM++ 3M SDE", "default"): ("DPMSolverMultistepScheduler", {"solver_order": 3, **SDE}),
    ("DPM++ 2S", "karras"): ("DPMSolverSinglestepScheduler", KARRAS),
    ("DPM++ 3S", "default"): ("DPMSolverSinglestepScheduler", {"solver_order": 3}),
    ("Euler", "default"): ("EulerDiscreteScheduler", {}),
    ("Euler", "karras"): ("EulerDiscreteScheduler", KARRAS),
    ("Euler a", "default"): ("EulerAncestralDiscreteScheduler", {}),
    ("Heun", "karras"): ("HeunDiscreteScheduler", KARRAS),
    ("DPM2", "default"): ("KDPM2DiscreteScheduler", {}),
    ("DPM2 a", "default"): ("KDPM2AncestralDiscreteScheduler", {}),
    ("LMS", "default"): ("LMSDiscreteScheduler", {}),
    ("DDIM", "default"): ("DDIMScheduler", {}),
    ("DDPM", "default"): ("DDPMScheduler", {}),
    ("PNDM", "default"): ("PNDMScheduler", {}),
    ("DEIS", "karras"): ("DEISMultistepScheduler", KARRAS),
    ("UniPC", "default"): ("UniPCMultistepScheduler", {}),
    ("SA-Solver", "default"): ("SASolverScheduler", {}),
    ("LCM", "default"): ("LCMScheduler", {}),
    ("TCD", "default"): ("TCDScheduler", {}),
}

WITHOUT_DIFFUSERS_NOISE = {
    "DPM++ SDE": "diffusers draws it from a Brownian tree of its own seed",
    **{name: "diffusers lacks it" for name, sampler in SAMPLERS.items() if sampler.is_own},
    "Euler churn": "chosen by arguments of step(), which the loop below does not pass",
}
"""Compared in `test_sampler_table.py` only, where both sides are handed the same noise."""


@pytest.fixture(scope="module", params=[("tiny", "epsilon"), ("tiny", "v_prediction"), ("tiny-16", "v_prediction")])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StableDiffusion:
    arch, prediction_type = request.param
    folder = tmp_path_factory.mktemp("models") / "random"
    make_random_model(folder, arch=arch, seed=3, prediction_type=prediction_type)
    return StableDiffusion.load(locate(str(folder)), torch.device("cpu"), torch.float32)


def test_every_sampler_is_compared():
    assert {sampler for sampler, _ in DIFFUSERS} == set(SAMPLERS) - set(WITHOUT_DIFFUSERS_NOISE)


@pytest.mark.parametrize(("num_inference_steps", "guidance_scale"), [(1, 7.0), (7, 1.0), (12, 7.0)])
@pytest.mark.parametrize(("sampler", "noise_schedule"), list(DIFFUSERS))
def test_latents_equal_those_of_diffusers_own_loop(
    model: StableDiffusion,
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    noise_schedule: str,
    num_inference_steps: int,
    guidance_scale: float,
):
    """Relative error at most 1e-5 in float32; most of it is the order in which diffusers multiplies and adds."""
    side = 9 * model.info.pixels_per_latent  # 4x9x9 is no multiple of 16: one large draw of noise would differ
    wish = params(
        sampler=sampler,
        noise_schedule=noise_schedule,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        negative_prompt="a dog",
        height=side,
        width=side,
    )
    seen: list[torch.Tensor] = []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda latents: (seen.append(latents.clone()), decode(latents))[1])
    engine = Engine(model)
    add_all(engine, [wish])
    images(run(engine))
    expected = _diffusers_latents(model, wish)
    error = (seen[0] - expected).abs().max() / expected.abs().max()
    assert error <= 1e-5


@torch.inference_mode()
def _diffusers_latents(model: StableDiffusion, wish: GenerationParams) -> torch.Tensor:
    """The denoising loop of diffusers' StableDiffusionPipeline."""
    name, options = DIFFUSERS[wish.sampler, wish.noise_schedule]
    scheduler = getattr(diffusers, name).from_config(dict(model.info.scheduler_config), **options)
    scheduler.set_timesteps(wish.num_inference_steps)
    generator = torch.Generator().manual_seed(wish.seed)
    shape = model.info.latent_shape(wish.height, wish.width)
    latents = torch.randn(1, *shape, generator=generator) * scheduler.init_noise_sigma
    negative, positive = model.encode_prompt(Prompt(wish.negative_prompt)), model.encode_prompt(Prompt(wish.prompt))
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    extra = {"generator": generator} if takes_generator else {}
    # All at once, as the engine embeds them: the number of rows decides the last bits of a product of matrices.
    times = torch.stack([model.embed_time(scheduler.timesteps.float(), text) for text in (negative, positive)])
    for index, timestep in enumerate(scheduler.timesteps):
        seen = scheduler.scale_model_input(latents, timestep)
        both = torch.cat([seen, seen])
        output = model.denoise(both, times[:, index], torch.stack([negative.attended, positive.attended]))
        guided = output[:1] + wish.guidance_scale * (output[1:] - output[:1])
        prediction = guided if wish.is_guided else output[1:]
        latents = scheduler.step(prediction, timestep, latents, **extra).prev_sample
    return latents[0]


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Any]:
    """The built-in model in diffusers' own pipeline, just as it is loaded: its sampler is the server's default."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        str(locate("models/dreamlet").path), dtype=torch.float32, local_files_only=True
    )
    assert pipeline.scheduler.config.use_karras_sigmas
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(
    ("prompt", "height", "width", "sampler", "steps"),
    [
        ("a cat on a mat, digital art", 256, 256, "DPMSolver++", 28),
        ("a dog in a yard", 192, 256, "DPMSolver++", 12),
        ("mountain landscape", 256, 320, "DPMSolver++", 12),
        ("a fox in the snow", 256, 256, "Euler", 12),
        ("an owl in a forest at night", 256, 192, "DDIM", 12),
    ],
)
def test_a_picture_equals_that_of_diffusers_pipeline(
    dreamlet: StableDiffusion,
    pipeline: Any,
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
    prompt: str,
    height: int,
    width: int,
    sampler: str,
    steps: int,
):
    """The built-in model, same seed and settings, float32: at most 2/255 anywhere."""
    wish = params(
        prompt=prompt,
        negative_prompt="blurry, low quality",
        num_inference_steps=steps,
        guidance_scale=7.0,
        seed=42,
        height=height,
        width=width,
        sampler=sampler,
        noise_schedule="karras" if sampler == "DPMSolver++" else "default",
    )
    if sampler != "DPMSolver++":
        name, _ = DIFFUSERS[sampler, "default"]
        scheduler = getattr(diffusers, name).from_config(dict(dreamlet.info.scheduler_config), use_karras_sigmas=False)
        monkeypatch.setattr(pipeline, "scheduler", scheduler)
    engine = Engine(dreamlet)
    add_all(engine, [wish])
    drawn = np.frombuffer(images(run(engine))["0", 0], dtype=np.uint8).reshape(height, width, 3)
    expected = pipeline(
        prompt,
        negative_prompt=wish.negative_prompt,
        num_inference_steps=steps,
        guidance_scale=7.0,
        height=height,
        width=width,
        generator=torch.Generator().manual_seed(42),
    ).images[0]
    assert np.abs(drawn.astype(int) - np.asarray(expected).astype(int)).max() <= 2
    assert drawn.std() > 10, "a flat picture would agree with anything"
