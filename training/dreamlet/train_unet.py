"""The training of the UNet on the latents of fresh drawings, with text encoder and autoencoder frozen."""

import copy
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from transformers import CLIPTextModel, CLIPTokenizer

from training.dreamlet.captions import caption_for
from training.dreamlet.config import Preset, UNetConfig
from training.dreamlet.diffusion import CAPTION_DROPOUT, draw_timesteps, noised, weighted_error
from training.dreamlet.held_out_loss import HeldOut
from training.dreamlet.latent_shards import LatentShards
from training.dreamlet.learning.learner import Learner
from training.dreamlet.learning.loop import Chance
from training.dreamlet.machine import autocast, device, to_device
from training.dreamlet.networks import PIXELS_PER_LATENT, new_pipeline, new_unet, read_unet, save_pipeline
from training.dreamlet.pool import Pool
from training.dreamlet.tokenizer import token_ids

FOR_ADAMW = ("conv_in", "conv_out", "time_embedding", "add_embedding")


class UNetStage:
    """The UNet under training. Its result is `pipeline/`, ready to draw."""

    name = "unet"

    def __init__(
        self,
        preset: Preset,
        seed: int,
        parts: Path,
        shards: Path,
        start_from: Path | None = None,
        test_scenes: int = 192,
    ) -> None:
        """Set up.

        Args:
            preset: what and how.
            seed: of the drawings.
            parts: folder with `vae/`, `text_encoder/` and `tokenizer/`; a pipeline's will do.
            shards: folder for the latents.
            start_from: a pipeline, or a file of weights, whose UNet to begin with; the optimizers start anew.
            test_scenes: of the held-out loss; the figure can be compared only for the same number.
        """
        self.config: UNetConfig = preset.unet
        self.training = self.config.training
        self._preset = preset
        self._tokenizer = CLIPTokenizer.from_pretrained(parts / "tokenizer")
        text_encoder = CLIPTextModel.from_pretrained(parts / "text_encoder", dtype=torch.float32)
        self._text_encoder = text_encoder.to(device()).eval().requires_grad_(requires_grad=False)
        self._autoencoder = AutoencoderTiny.from_pretrained(parts / "vae")
        sample_size = preset.native_size[0] // PIXELS_PER_LATENT
        self.unet = new_unet(self.config, text_encoder.config.hidden_size, sample_size)
        if start_from is not None:
            self.unet.load_state_dict(read_unet(start_from))
        to_device(self.unet).train()
        self.learner = Learner(self.unet, self.training, FOR_ADAMW)
        self._held_out = HeldOut(self._autoencoder, self._tokenizer, self._text_encoder, test_scenes)
        make = LatentShards(preset, seed, copy.deepcopy(self._autoencoder), shards)
        self._pool = Pool(make, preset.shard, self.config.pool)

    def loss(self, step: int, chance: Chance) -> torch.Tensor:
        """Of the velocities at noise levels of all kinds; every use of a scene puts it into other words."""
        self._pool.grow_to(self.config.first_pool + self.config.fresh * step)
        count = self.training.batch_size
        batch = self._pool.sample(chance.random, count)
        captions = [
            "" if chance.random.random() < CAPTION_DROPOUT else caption_for(scene, said, chance.random)
            for scene, said in batch.examples
        ]
        latents = batch.tensors["latents"].to(device(), torch.float32, memory_format=torch.channels_last)
        noise = torch.randn(latents.shape, generator=chance.generator).to(device())
        mixed = noised(latents, noise, *draw_timesteps(count, chance.generator))
        with autocast(self._preset):
            with torch.no_grad():
                ids = torch.tensor(token_ids(self._tokenizer, captions)).to(device())
                prompt_embeds = self._text_encoder(ids).last_hidden_state
            predicted = self.unet(mixed.latents, mixed.timesteps, prompt_embeds, return_dict=False)[0]
        cells = batch.tensors["cells"].to(device())
        return weighted_error(predicted, mixed.velocity, cells, self.config.subject_weight)

    def export(self, folder: Path) -> str:
        """Write the pipeline with the average of the weights."""
        with self.learner.average.in_place():
            loss = self._held_out.loss(self.unet)
            unet = copy.deepcopy(self.unet)
        self.unet.train()
        unet.to("cpu", memory_format=torch.contiguous_format)
        text_encoder = copy.deepcopy(self._text_encoder).to("cpu")
        save_pipeline(
            new_pipeline(copy.deepcopy(self._autoencoder), self._tokenizer, text_encoder, unet), folder / "pipeline"
        )
        return f"Loss on held-out scenes {loss:.4f}"
