"""The promise, where it is hardest: half precision, many rows, kernels chosen by size. Same request, same file."""

from __future__ import annotations

import pytest
import torch

from engine.engine import Engine
from engine.events import EngineEvent
from engine.models.stable_diffusion import StableDiffusion
from engine.params import GenerationParams
from engine.prompts.prompt import Prompt
from engine.warm_up import measure_rows_per_call
from tests.engine.drawing import add_all, run
from tests.gpu.wishes import files, files_of, wish

pytestmark = pytest.mark.gpu

SAMPLERS = [("DPMSolver++", "karras"), ("Euler", "karras"), ("Euler a", "default"), ("DDIM", "default")]


@pytest.fixture(scope="module", params=["tiny", "dreamlet", "sd15"])
def model(request: pytest.FixtureRequest, half) -> StableDiffusion:
    return half(request.param)


@pytest.fixture(scope="module")
def rows(model: StableDiffusion) -> int:
    """What the server would give a call on this device; at least enough for company."""
    return max(4, measure_rows_per_call(model))


def mixed(model: StableDiffusion) -> list[GenerationParams]:
    """Twelve, of mixed steps, guidance, samplers and sizes."""
    side = model.info.native_height
    return [
        wish(
            model,
            prompt=f"a {('red', 'blue', 'green')[i % 3]} ball",
            negative_prompt=("", "blurry")[i % 2],
            seed=100 + i,
            sampler=SAMPLERS[i % 4][0],
            noise_schedule=SAMPLERS[i % 4][1],
            num_inference_steps=2 + i % 4,
            guidance_scale=(7.0, 1.0, 3.5)[i % 3],
            height=(side, side, side + 64)[i % 3],
        )
        for i in range(12)
    ]


def test_the_same_request_gives_the_same_file_in_any_company(model, rows):
    """Alone, all at once, in reverse order, and joining midway, at the row count that was measured."""
    requests = mixed(model)

    def engine() -> Engine:
        return Engine(model, rows_per_call=rows)

    alone: dict[str, bytes] = {}
    for index, request in enumerate(requests):
        lonely = engine()
        add_all(lonely, [request], first_id=index)
        alone |= files(run(lonely))
    assert len(set(alone.values())) == len(requests)

    assert files_of(engine(), requests) == alone

    reverse = engine()
    for index in reversed(range(len(requests))):
        reverse.add(reverse.prepare(str(index), requests[index]))
    assert files(run(reverse)) == alone

    joined = engine()
    events: list[EngineEvent] = []
    for index, request in enumerate(requests):
        joined.add(joined.prepare(str(index), request))
        events += joined.step() + joined.step()
    assert files(events + run(joined)) == alone


def test_a_row_sees_neither_its_neighbours_nor_its_place(model, rows):
    """What the promise rests on: kernels that split sums by a row's place in the call would break it."""
    info = model.info
    generator = torch.Generator().manual_seed(0)
    shape = (rows, *info.latent_shape(info.native_height, info.native_width))
    latents = torch.randn(shape, generator=generator).to(info.device)
    timesteps = torch.linspace(999.0, 1.0, rows).to(info.device)
    with torch.inference_mode():
        texts = [model.encode_prompt(Prompt(f"picture {row}")) for row in range(rows)]
        time = torch.cat([model.embed_time(step[None], text) for step, text in zip(timesteps, texts, strict=True)])
        prompts = torch.stack([text.attended for text in texts])
        straight = model.denoise(latents, time, prompts)
        order = torch.randperm(rows, generator=generator).to(info.device)
        shuffled = model.denoise(latents[order], time[order], prompts[order])
        others = torch.zeros_like(latents)
        others[0] = latents[0]
        alone = model.denoise(others, time, prompts)
    assert straight.isfinite().all()
    assert torch.equal(straight[order], shuffled)
    assert torch.equal(straight[0], alone[0])


def test_the_same_call_gives_the_same_bits_every_time(model, rows):
    """No kernel that adds in the order in which threads happen to arrive."""
    requests = mixed(model)[:4]
    first, second = (files_of(Engine(model, rows_per_call=rows), requests) for _ in range(2))
    assert first == second
