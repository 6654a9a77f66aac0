"""The promise, on real networks: the same request gives the same file, alone and in any company."""

from __future__ import annotations

import pytest
import torch

from engine.engine import Engine
from engine.events import EngineEvent, ImageDrawn
from engine.models.stable_diffusion import StableDiffusion
from engine.params import GenerationParams
from engine.prompts.prompt import Prompt
from engine.samplers import SAMPLERS as ALL_SAMPLERS
from server.worker.image_files import encode_image
from tests.engine.drawing import Params, add_all, run

MODELS = ["tiny_model", "dreamlet", "tiny_openvino", "dreamlet_openvino"]
"""Fixtures: by torch, and by OpenVINO."""

SAMPLERS = [("DPMSolver++", "karras"), ("Euler", "karras"), ("Euler a", "default"), ("DDIM", "default")]


def requests(model: StableDiffusion, params: Params) -> list[GenerationParams]:
    """Twelve, of mixed steps, guidance, samplers and sizes."""
    longer = 64 + model.info.pixels_per_latent
    return [
        params(
            prompt=f"a {('red', 'blue', 'green')[i % 3]} ball",
            negative_prompt=("", "blurry")[i % 2],
            seed=100 + i,
            sampler=SAMPLERS[i % 4][0],
            noise_schedule=SAMPLERS[i % 4][1],
            num_inference_steps=2 + i % 4,
            guidance_scale=(7.0, 1.0, 3.5)[i % 3],
            height=(64, longer, 64)[i % 3],
            width=(64, 64, longer)[i % 3],
        )
        for i in range(12)
    ]


def files(events: list[EngineEvent]) -> dict[str, bytes]:
    """Request id -> PNG."""
    return {
        event.request_id: encode_image(event.pixels, "png").data for event in events if isinstance(event, ImageDrawn)
    }


@pytest.mark.parametrize("rows_per_call", [2, 6])
@pytest.mark.parametrize("model_name", MODELS)
def test_the_same_request_gives_the_same_file_in_any_company(
    request: pytest.FixtureRequest, params: Params, model_name: str, rows_per_call: int
):
    """Alone, all at once, in reverse order, and joining midway."""
    model: StableDiffusion = request.getfixturevalue(model_name)
    wishes = requests(model, params)

    def engine() -> Engine:
        return Engine(model, rows_per_call=rows_per_call, max_images_in_flight=4)

    alone: dict[str, bytes] = {}
    for index, wish in enumerate(wishes):
        lonely = engine()
        add_all(lonely, [wish], first_id=index)
        alone |= files(run(lonely))

    crowd = engine()
    add_all(crowd, wishes)
    assert files(run(crowd)) == alone

    reverse = engine()
    for index in reversed(range(len(wishes))):
        reverse.add(reverse.prepare(str(index), wishes[index]))
    assert files(run(reverse)) == alone

    joined = engine()
    events: list[EngineEvent] = []
    for index, wish in enumerate(wishes):
        joined.add(joined.prepare(str(index), wish))
        events += joined.step() + joined.step()
    assert files(events + run(joined)) == alone
    assert len(set(alone.values())) == len(wishes)


def test_one_batch_holds_every_sampler_at_once(tiny_model: StableDiffusion, params: Params):
    """Staggered, each at another step, some with two slots and some with five: the bytes are those of a lonely run."""
    wishes = [
        params(
            prompt=f"a ball, {name}",
            seed=index,
            sampler=name,
            noise_schedule=sampler.noise_schedules[index % len(sampler.noise_schedules)],
            num_inference_steps=3 + index % 4,
        )
        for index, (name, sampler) in enumerate(ALL_SAMPLERS.items())
    ]

    def engine() -> Engine:
        return Engine(tiny_model, rows_per_call=2 * len(wishes))

    alone: dict[str, bytes] = {}
    for index, wish in enumerate(wishes):
        lonely = engine()
        add_all(lonely, [wish], first_id=index)
        alone |= files(run(lonely))
    together = engine()
    events: list[EngineEvent] = []
    for index, wish in enumerate(wishes):
        together.add(together.prepare(str(index), wish))
        if index % 5 == 4:
            events += together.step() + together.step()
    assert files(events + run(together)) == alone
    assert len(set(alone.values())) == len(wishes)


@pytest.mark.parametrize("model_name", MODELS)
def test_a_row_does_not_see_its_neighbours(request: pytest.FixtureRequest, model_name: str):
    """What the promise rests on: at one shape of the call, a row's bits depend on that row alone."""
    model: StableDiffusion = request.getfixturevalue(model_name)
    channels = model.info.latent_channels
    generator = torch.Generator().manual_seed(0)
    texts = [model.encode_prompt(Prompt(text)) for text in ("a cat", "a dog", "", "a house")]
    prompts = torch.stack([text.attended for text in texts])
    latents = torch.randn(4, channels, 8, 9, generator=generator)
    timesteps = torch.tensor([[999.0], [500.5], [20.0], [1.0]])
    time = torch.cat([model.embed_time(step, text) for step, text in zip(timesteps, texts, strict=True)])
    with torch.inference_mode():
        straight = model.denoise(latents, time, prompts)
        order = [2, 0, 3, 1]
        shuffled = model.denoise(latents[order], time[order], prompts[order])
        first_alone = model.denoise(
            torch.cat([latents[:1], torch.zeros(3, channels, 8, 9)]),
            torch.cat([time[:1], torch.zeros_like(time[1:])]),
            torch.cat([prompts[:1], torch.zeros_like(prompts[1:])]),
        )
    assert torch.equal(straight[order], shuffled)
    assert torch.equal(straight[0], first_alone[0])
