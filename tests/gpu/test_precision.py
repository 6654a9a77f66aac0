"""Whether the GPU draws the pictures that the CPU draws: same weights, same seed, less precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from engine.engine import Engine
from engine.events import ImageDrawn
from engine.models.locate import locate
from engine.models.stable_diffusion import StableDiffusion
from engine.prompts.prompt import Prompt
from tests.engine.drawing import add_all, run
from tests.gpu.wishes import wish

pytestmark = pytest.mark.gpu

HALF_DB = 45.0
"""On a CPU float16 keeps 57 to 59 dB of both models' pictures and bfloat16, eight times coarser, 45 to 47. Another
seed, prompt, sampler or number of steps keeps less than 25."""
TF32_DB = 45.0
"""cuDNN's float32 convolutions round their factors to TF32, which has float16's mantissa."""


def pixels(model: StableDiffusion, **wishes: object) -> np.ndarray:
    engine = Engine(model)
    add_all(engine, [wish(model, **wishes)])
    (picture,) = [event.pixels for event in run(engine) if isinstance(event, ImageDrawn)]
    return picture.astype(np.float64)


def signal_to_noise_db(picture: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures."""
    return 10 * math.log10(255**2 / max(float(np.mean((picture - reference) ** 2)), 1e-9))


@pytest.fixture(scope="module")
def full(model_folder):
    """A model by name, in float32: on the CPU, or where it is wanted."""

    def load(name: str, device: str = "cpu") -> StableDiffusion:
        return StableDiffusion.load(locate(str(model_folder(name))), torch.device(device), torch.float32)

    return load


@pytest.mark.parametrize("sampler", ["DPMSolver++", "Euler a"])
@pytest.mark.parametrize("name", ["tiny", "dreamlet"])
def test_half_precision_draws_the_picture_that_the_cpu_draws(half, full, name, sampler):
    """A seed means the same on every device; an ancestral sampler's later draws too."""
    wishes = {"num_inference_steps": 20, "sampler": sampler, "noise_schedule": "default"}
    picture, reference = pixels(half(name), **wishes), pixels(full(name), **wishes)
    assert reference.std() > 10, "a flat picture would hide everything"
    assert signal_to_noise_db(picture, reference) >= HALF_DB
    assert signal_to_noise_db(pixels(half(name), **wishes, seed=8), reference) < HALF_DB - 10


def test_full_precision_draws_the_picture_that_the_cpu_draws(full, device):
    reference = pixels(full("dreamlet"), num_inference_steps=20)
    assert signal_to_noise_db(pixels(full("dreamlet", str(device)), num_inference_steps=20), reference) >= TF32_DB


def test_a_full_size_picture_in_half_precision_is_finite(half):
    """Of the size at which float16 overflows first: the autoencoder's."""
    model = half("sd15")
    with torch.inference_mode():
        text = model.encode_prompt(Prompt("a cat"))
        time = model.embed_time(torch.tensor([999.0, 1.0]).cuda(), text)
        latents = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(0)).cuda()
        assert model.denoise(latents, time, text.attended.expand(2, -1, -1)).isfinite().all()
    picture = pixels(model)
    assert picture.shape == (model.info.native_height, model.info.native_width, 3)
    assert picture.std() > 1, "not a number becomes black"
