"""One batch of different samplers against diffusers: what the network is shown, and what its answer becomes."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

from engine.batch import Batch
from engine.engine import Engine
from engine.events import ImageDrawn
from engine.models.fake import SCHEDULER_CONFIG, FakeModel
from engine.params import GenerationParams
from engine.picture import Picture
from engine.prompts.encoder import PromptEncoder
from engine.prompts.prompt import Prompt
from tests.engine.drawing import Params, add_all, run


def euler_karras() -> Any:
    return diffusers.EulerDiscreteScheduler.from_config(SCHEDULER_CONFIG, use_karras_sigmas=True)


def ready_picture(model: FakeModel, wish: GenerationParams) -> Picture:
    """Drawn up to its first step, as the engine has it."""
    (picture,) = Engine(model).prepare("0", wish).pictures
    prompts, leg = PromptEncoder(model), picture.leg
    leg.conditionings = tuple(prompts.encode(prompt, 1, leg.timesteps) for prompt in leg.prompts.prompts)
    return picture


def test_the_network_is_shown_each_pictures_own_latents_timestep_and_prompts(params: Params):
    """A picture's rows stand together, negative prompt first, then zeros; timesteps keep their fractions."""
    model = FakeModel()
    euler = {"sampler": "Euler", "noise_schedule": "karras"}
    guided = params(**euler, prompt="a cat", negative_prompt="a dog", num_inference_steps=5)
    unguided = params(**euler, prompt="a fox", guidance_scale=1.0, num_inference_steps=7, seed=8)
    pictures, latents, timesteps = [], [], []
    for wish, call_index in ((guided, 2), (unguided, 3)):
        picture = ready_picture(model, wish)
        picture.leg.call_index = call_index
        pictures.append(picture)
        scheduler = euler_karras()
        scheduler.set_timesteps(wish.num_inference_steps)
        start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(wish.seed))
        timestep = scheduler.timesteps[call_index]
        latents.append(scheduler.scale_model_input(start * scheduler.init_noise_sigma, timestep)[0])
        timesteps.append(timestep.float())
    assert all(timestep % 1 for timestep in timesteps), "whole ones would not show rounding"

    shown = Batch.of(pictures, num_rows=5).gather()
    torch.testing.assert_close(shown.latents[:3], torch.stack([latents[0], latents[0], latents[1]]))
    prompts = [model.encode_prompt(Prompt(text)) for text in ("a dog", "a cat", "a fox")]
    told = torch.stack([timesteps[0], timesteps[0], timesteps[1]])
    torch.testing.assert_close(shown.time[:3], model.embed_time(told, prompts[0]))
    assert torch.equal(shown.prompt[:3], torch.stack([prompt.attended for prompt in prompts]))
    assert [rows.shape[0] for rows in shown] == [5, 5, 5]
    assert not any(rows[3:].any() for rows in shown)


def test_guidance_moves_from_the_negative_prompt_towards_the_prompt_and_beyond(params: Params):
    """Each picture by its own scale; an unguided one, and padding, keep out of it."""
    model = FakeModel()
    wishes = [params(guidance_scale=7.0), params(guidance_scale=1.0), params(guidance_scale=2.0)]
    batch = Batch.of([ready_picture(model, wish) for wish in wishes], num_rows=7)
    prediction = torch.tensor([10.0, 11.0, 5.0, 20.0, 22.0, 99.0, 99.0]).view(7, 1, 1, 1).expand(7, 4, 8, 8)
    assert batch.guide(prediction)[:, 0, 0, 0].tolist() == [10 + 7 * 1, 5, 20 + 2 * 2]


class Storage(FakeModel):
    """Keeps the latents that it decodes."""

    def __init__(self) -> None:
        super().__init__()
        self.decoded: list[torch.Tensor] = []

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self.decoded.append(latents.clone())
        return super().decode(latents)


@torch.inference_mode()
def diffusers_latents(scheduler: Any, wish: GenerationParams) -> torch.Tensor:
    """The denoising loop of a diffusers pipeline around the fake model."""
    model = FakeModel()
    generator = torch.Generator().manual_seed(wish.seed)
    scheduler.set_timesteps(wish.num_inference_steps)
    latents = torch.randn(1, 4, wish.height // 8, wish.width // 8, generator=generator) * scheduler.init_noise_sigma
    texts = [model.encode_prompt(Prompt(text)) for text in (wish.negative_prompt, wish.prompt)]
    prompts = torch.stack([text.attended for text in texts])
    for timestep in scheduler.timesteps:
        seen = scheduler.scale_model_input(latents, timestep).expand(2, -1, -1, -1)
        time = model.embed_time(timestep.expand(2).float(), texts[0])
        negative, positive = model.denoise(seen, time, prompts).split(1)
        prediction = negative + wish.guidance_scale * (positive - negative) if wish.is_guided else positive
        latents = scheduler.step(prediction, timestep, latents, generator=generator).prev_sample
    return latents[0]


def test_different_samplers_in_one_batch_each_end_where_diffusers_own_loop_does(params: Params):
    """Relative error at most 1e-5 in float32; most of it is the order in which diffusers multiplies and adds."""
    config = SCHEDULER_CONFIG
    euler = {"sampler": "Euler", "noise_schedule": "karras"}
    pairs = [
        (
            params(**euler, num_inference_steps=6, negative_prompt="a dog"),
            euler_karras(),
        ),
        (
            params(sampler="Euler a", noise_schedule="default", num_inference_steps=7, guidance_scale=3.0, seed=8),
            diffusers.EulerAncestralDiscreteScheduler.from_config(config),
        ),
        (
            params(num_inference_steps=5, guidance_scale=1.0, seed=9),
            diffusers.DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=True),
        ),
        (
            params(sampler="DDIM", noise_schedule="default", num_inference_steps=8, seed=10),
            diffusers.DDIMScheduler.from_config(config),
        ),
    ]
    model = Storage()
    engine = Engine(model, rows_per_call=8)
    add_all(engine, [wish for wish, _ in pairs])
    order = [int(event.request_id) for event in run(engine) if isinstance(event, ImageDrawn)]
    assert model.num_calls == 8, "they were not drawn together"
    drawn = dict(zip(order, model.decoded, strict=True))
    for index, (wish, scheduler) in enumerate(pairs):
        expected = diffusers_latents(scheduler, wish)
        error = (drawn[index] - expected).abs().max() / expected.abs().max()
        assert error <= 1e-5, f"{wish.sampler}: {error:.1e}"
