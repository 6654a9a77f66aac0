"""What reaches the networks of a real checkpoint, and what becomes of what they answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from transformers import CLIPTextModel

from engine.models.locate import locate
from engine.models.stable_diffusion import StableDiffusion
from engine.prompts.prompt import Prompt

ROOT = Path(__file__).resolve().parents[2]


@torch.inference_mode()
def test_pixels_are_scaled_and_rounded_to_the_last_bit_as_diffusers_does(tiny_model: StableDiffusion):
    """The nearest of 256 levels, not the one below."""
    latents = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(5))
    decoded = tiny_model._vae["decode"](latents[None] / tiny_model._vae_layout.scaling_factor)
    (expected,) = VaeImageProcessor().postprocess(decoded, output_type="pil")
    drawn = tiny_model.decode(latents).numpy()
    assert np.array_equal(drawn, np.asarray(expected))
    assert drawn.std() > 10, "a flat picture would agree with anything"


@torch.inference_mode()
def test_the_network_is_told_the_fraction_of_a_timestep(tiny_model: StableDiffusion, tiny_model_folder: Path):
    """Karras levels lie between the trained ones; half precision would round 300.125 to 300."""
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    theirs = UNet2DConditionModel.from_pretrained(tiny_model_folder / "unet", low_cpu_mem_usage=False)
    encoder = CLIPTextModel.from_pretrained(tiny_model_folder / "text_encoder")
    tokens = tiny_model._texts[0]._tokenizer.marked(tiny_model._texts[0]._tokenizer.tokens("a cat")[1:-1])
    embeds = encoder(torch.tensor([tokens])).last_hidden_state

    def predicted(timestep: float) -> torch.Tensor:
        return theirs(latents, torch.tensor(timestep), encoder_hidden_states=embeds).sample

    text = tiny_model.encode_prompt(Prompt("a cat"))
    time = tiny_model.embed_time(torch.tensor([300.125]), text)
    told = tiny_model.denoise(latents, time, text.attended[None])
    error = (told - predicted(300.125)).norm()
    assert error <= 3e-6 * told.norm()
    assert error < 0.1 * (told - predicted(300.0)).norm()


@torch.inference_mode()
def test_the_built_in_model_tells_its_network_all_that_diffusers_does(dreamlet: StableDiffusion):
    """A prompt is read twice there: by attention, and as one vector beside the timestep."""
    path = locate("models/dreamlet").path
    theirs = UNet2DConditionModel.from_pretrained(path / "unet", torch_dtype=torch.float32, low_cpu_mem_usage=False)
    encoder = CLIPTextModel.from_pretrained(path / "text_encoder", dtype=torch.float32)
    tokens = dreamlet._texts[0]._tokenizer.marked(dreamlet._texts[0]._tokenizer.tokens("a fox in the snow")[1:-1])
    embeds = encoder(torch.tensor([tokens])).last_hidden_state
    latents = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(5))
    expected = theirs(latents, torch.tensor(600.5), encoder_hidden_states=embeds).sample
    text = dreamlet.encode_prompt(Prompt("a fox in the snow"))
    found = dreamlet.denoise(latents, dreamlet.embed_time(torch.tensor([600.5]), text), text.attended[None])
    assert (found - expected).norm() <= 3e-6 * expected.norm()


@torch.inference_mode()
def test_a_model_answers_in_its_own_dtype(tiny_model_folder: Path):
    """Half precision inside, whole numbers and float32 outside."""
    model = StableDiffusion.load(locate(str(tiny_model_folder)), torch.device("cpu"), torch.bfloat16)
    text = model.encode_prompt(Prompt("a cat"))
    time = model.embed_time(torch.tensor([300.125]), text)
    assert text.attended.dtype == time.dtype == torch.bfloat16
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    assert model.denoise(latents, time, text.attended[None]).dtype == torch.float32
    assert model.decode(latents[0]).dtype == torch.uint8


@torch.inference_mode()
@pytest.mark.parametrize(("num_words", "truncated"), [(1, 0), (75, 0), (76, 1), (100, 25)])
def test_tokens_beyond_what_is_read_are_counted(tiny_model: StableDiffusion, num_words: int, truncated: int):
    """77 with the two markers; `a` is one token."""
    text = "a " * num_words
    assert tiny_model.count_truncated_tokens(text) == truncated
    is_read = not torch.equal(
        tiny_model.encode_prompt(Prompt(text + "a")).attended, tiny_model.encode_prompt(Prompt(text)).attended
    )
    assert is_read == (num_words < 75)


WITHOUT_LIBRARIES = """
import sys

sys.modules |= dict.fromkeys(("accelerate", "diffusers", "transformers"))  # an import of any is an error

import torch
from engine.models.locate import locate
from engine.models.stable_diffusion import StableDiffusion
from engine.prompts.prompt import Prompt

with torch.inference_mode():
    model = StableDiffusion.load(locate("models/dreamlet"), torch.device("cpu"), torch.float32)
    text = model.encode_prompt(Prompt("a cat", is_weighted=True), num_chunks=2)
    time = model.embed_time(torch.tensor([500.0]), text)
    print(model.decode(model.denoise(torch.zeros(1, 16, 8, 8), time, text.attended[None])[0]).shape)
"""


def test_loading_and_every_call_of_a_model_need_neither_diffusers_nor_transformers():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARIES], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout.strip() == "torch.Size([128, 128, 3])", done.stderr
