"""What reaches the networks of a real checkpoint, and what becomes of what they answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor

from engine.models.stable_diffusion import StableDiffusion


@torch.inference_mode()
def test_pixels_are_scaled_and_rounded_to_the_last_bit_as_diffusers_does(tiny_model: StableDiffusion):
    """The nearest of 256 levels, not the one below."""
    latents = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(5))
    vae = tiny_model._vae
    decoded = vae.decode(latents[None] / vae.config.scaling_factor, return_dict=False)[0]
    (expected,) = VaeImageProcessor().postprocess(decoded, output_type="pil")
    drawn = tiny_model.decode(latents).numpy()
    assert np.array_equal(drawn, np.asarray(expected))
    assert drawn.std() > 10, "a flat picture would agree with anything"


@torch.inference_mode()
def test_the_network_is_told_the_fraction_of_a_timestep(tiny_model: StableDiffusion):
    """Karras levels lie between the trained ones; half precision would round 300.125 to 300."""
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    embeds = tiny_model.encode_prompt("a cat")[None]

    def predicted(timestep: float) -> torch.Tensor:
        return tiny_model._unet(latents, torch.tensor(timestep), encoder_hidden_states=embeds).sample

    told = tiny_model.denoise(latents, torch.tensor([300.125]), embeds)
    assert torch.equal(told, predicted(300.125))
    assert not torch.equal(told, predicted(300.0))


@torch.inference_mode()
@pytest.mark.parametrize(("num_words", "truncated"), [(1, 0), (75, 0), (76, 1), (100, 25)])
def test_tokens_beyond_what_is_read_are_counted(tiny_model: StableDiffusion, num_words: int, truncated: int):
    """77 with the two markers; `a` is one token."""
    text = "a " * num_words
    assert tiny_model.count_truncated_tokens(text) == truncated
    is_read = not torch.equal(tiny_model.encode_prompt(text + "a"), tiny_model.encode_prompt(text))
    assert is_read == (num_words < 75)
