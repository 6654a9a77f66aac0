"""Previews: what they show, when they come, and that they change nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.engine import Engine
from engine.events import ImageDrawn, PreviewTaken
from engine.models.fake import FakeModel
from engine.models.latent_to_rgb import STABLE_DIFFUSION_1, LatentToRgb, fit_latent_to_rgb
from engine.models.locate import FAKE_MODELS
from engine.models.options import Options
from engine.models.stable_diffusion import StableDiffusion
from engine.networks.autoencoder import AutoencoderKL
from engine.previews import PREVIEW_INTERVAL_S
from tests.engine.drawing import Params, images, run


class Ticking:
    """A clock that moves on by the same time whenever it is read."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.now = 0.0

    def __call__(self) -> float:
        self.now += self._seconds
        return self.now


def drawn(engine: Engine, *requests, wants_previews: bool = True):
    for index, request in enumerate(requests):
        engine.add(engine.prepare(str(index), request, wants_previews=wants_previews))
    return run(engine)


def previews(events) -> list[PreviewTaken]:
    return [event for event in events if isinstance(event, PreviewTaken)]


class Knowing(FakeModel):
    """Knows the finished picture from the start, and so predicts exactly the noise (or velocity) that is there."""

    def __init__(self, prediction_type: str) -> None:
        super().__init__()
        self.info = replace(
            self.info, scheduler_config={**self.info.scheduler_config, "prediction_type": prediction_type}
        )
        self.predicts_velocity = prediction_type == "v_prediction"
        self.picture = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(1)) - 0.5

    def denoise(self, latents: torch.Tensor, time: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        signal, noise = time[:, 0].view(-1, 1, 1, 1), time[:, 1].view(-1, 1, 1, 1)
        epsilon = (latents - signal * self.picture) / noise
        return signal * epsilon - noise * self.picture if self.predicts_velocity else epsilon


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", ["Euler", "DPMSolver++", "DDIM", "LMS"])
@pytest.mark.parametrize("guidance_scale", [1.0, 7.0])
def test_a_preview_is_the_network_s_idea_of_the_finished_picture(
    params: Params, prediction_type: str, sampler: str, guidance_scale: float
):
    """
    Whatever the sampler's own scale of noise: one that knows the picture shows it after the first step.
    """
    model = Knowing(prediction_type)
    events = drawn(Engine(model), params(sampler=sampler, noise_schedule="default", guidance_scale=guidance_scale))
    first = previews(events)[0]
    assert first.step == 1
    shown = first.picture.pixels().astype(int)
    finished = model.latent_to_rgb(model.picture.numpy()).astype(int)
    # The fake's noise levels lie between the scheduler's, which a timestep is rounded to.
    assert np.abs(shown - finished).max() <= 3


def test_each_picture_of_a_crowd_is_shown_as_itself(params: Params):
    """
    Guided and unguided pictures lie in different rows of one call.
    """
    wishes = [params(seed=seed, guidance_scale=scale) for seed, scale in ((1, 7.0), (2, 1.0), (3, 4.0), (4, 1.0))]
    alone = [previews(drawn(Engine(FakeModel(), rows_per_call=6), wish))[0] for wish in wishes]
    together = {
        event.request_id: event
        for event in previews(drawn(Engine(FakeModel(), rows_per_call=6, max_images_in_flight=4), *wishes))
        if event.step == 1
    }
    for index, expected in enumerate(alone):
        np.testing.assert_array_equal(together[str(index)].picture.pixels(), expected.picture.pixels())


@pytest.mark.parametrize("prompt", ["a house at night", "a yellow star"])
def test_a_late_preview_resembles_the_picture(dreamlet: StableDiffusion, params: Params, prompt: str):
    clock = Ticking(PREVIEW_INTERVAL_S)
    info = dreamlet.info
    wish = params(prompt=prompt, num_inference_steps=8, height=info.native_height, width=info.native_width)
    events = drawn(Engine(dreamlet, clock=clock), wish)
    late = previews(events)[-1].picture.pixels()
    finished = next(event for event in events if isinstance(event, ImageDrawn)).pixels
    height, width, _ = late.shape
    factor = info.pixels_per_latent
    averaged = finished.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))
    assert np.corrcoef(late.ravel(), averaged.ravel())[0, 1] > 0.85


@pytest.mark.parametrize("model", ["fake", "tiny"])
def test_looking_changes_no_picture(params: Params, tiny_model: StableDiffusion, model: str):
    chosen = FakeModel() if model == "fake" else tiny_model
    samplers = ["DPMSolver++", "Euler", "Euler a"]
    wishes = [params(seed=seed, sampler=sampler, noise_schedule="default") for seed, sampler in enumerate(samplers)]
    unseen = drawn(Engine(chosen, rows_per_call=4), *wishes, wants_previews=False)
    clock = Ticking(PREVIEW_INTERVAL_S)
    seen = drawn(Engine(chosen, rows_per_call=4, clock=clock), *wishes)
    assert len(previews(seen)) >= len(wishes)
    assert images(seen) == images(unseen)


def test_nobody_pays_where_nobody_looks(params: Params):
    assert not previews(drawn(Engine(FakeModel()), params(), wants_previews=False))


def test_previews_come_no_more_often_than_one_looks(params: Params):
    """
    At most four a second for a request, however many pictures it has.
    """
    clock = Ticking(0.01)
    events = drawn(Engine(FakeModel(), rows_per_call=8, clock=clock), params(num_inference_steps=100, num_images=3))
    assert 2 <= len(previews(events)) <= clock.now / PREVIEW_INTERVAL_S + 1


def test_colours_that_are_not_learnt_yet_delay_no_short_picture(params: Params):
    """
    Learning them decodes a few pictures: previews begin once they are known, or a request has been drawn for a while.
    """

    class Unlearnt(FakeModel):
        @property
        def latent_to_rgb(self) -> LatentToRgb:
            asked.append(clock.now)
            return super().latent_to_rgb

    asked: list[float] = []
    clock = Ticking(0.1)
    engine = Engine(Unlearnt(), unlearnt_colours_wait_s=2.0, clock=clock)
    assert not previews(drawn(engine, params(num_inference_steps=4)))
    assert not asked
    began = clock.now
    seen = previews(drawn(engine, params(num_inference_steps=20)))
    assert seen
    assert asked[0] >= began + 2.0
    engine.learn_colours()
    assert previews(drawn(engine, params(num_inference_steps=4)))[0].step == 1


def test_no_preview_comes_after_the_last_step(params: Params):
    clock = Ticking(PREVIEW_INTERVAL_S)
    events = drawn(Engine(FakeModel(), clock=clock), params(num_inference_steps=4), params(num_inference_steps=1))
    assert [(event.request_id, event.step) for event in previews(events)] == [("0", 1), ("0", 2), ("0", 3)]


@pytest.mark.parametrize("model_id", FAKE_MODELS)
def test_the_fake_s_colours_are_those_it_decodes(model_id: str):
    model = FakeModel(model_id)
    info = model.info
    latents = torch.randn(info.latent_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    decoded = model.decode(latents).numpy()[:: info.pixels_per_latent, :: info.pixels_per_latent].astype(int)
    assert np.abs(model.latent_to_rgb(latents.numpy()).astype(int) - decoded).max() <= 1  # rounded, not cut


@pytest.mark.parametrize("model_id", FAKE_MODELS)
def test_a_fit_finds_the_colours_of_a_decoder_that_is_linear(model_id: str):
    model = FakeModel(model_id)
    channels = model.info.latent_channels
    fitted = fit_latent_to_rgb(model.decode, channels, torch.device("cpu"))
    np.testing.assert_allclose(fitted.factors, model.latent_to_rgb.factors, atol=0.01)
    np.testing.assert_allclose(fitted.offset, model.latent_to_rgb.offset, atol=0.01)
    again = fit_latent_to_rgb(model.decode, channels, torch.device("cpu"))
    np.testing.assert_array_equal(again.factors, fitted.factors)


def test_stable_diffusion_s_own_autoencoder_is_recognized(tiny_model: StableDiffusion):
    """
    Its colours are known from real pictures, and decoding some on a CPU would take long.
    """
    config = {
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": [128, 256, 512, 512],
        "scaling_factor": 0.18215,
    }
    with torch.device("meta"):
        vae = AutoencoderKL(Options(Path("vae/config.json"), config))
    model = StableDiffusion(info=tiny_model.info, texts=[], unet={}, vae={}, vae_layout=vae, vae_dtype=torch.float32)
    assert model.latent_to_rgb is STABLE_DIFFUSION_1
    assert tiny_model.latent_to_rgb is not STABLE_DIFFUSION_1


def test_what_is_no_number_is_shown_without_a_fuss():
    black_to_grey = LatentToRgb(factors=np.eye(4, 3, dtype=np.float32), offset=np.zeros(3, dtype=np.float32))
    latents = np.full((4, 1, 3), 0.5, dtype=np.float32)
    latents[:, 0, 1], latents[:, 0, 2] = np.nan, np.inf
    assert black_to_grey(latents)[0].tolist() == [[128] * 3, [0] * 3, [0] * 3]
