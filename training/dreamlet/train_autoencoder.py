"""Training of the autoencoder, then of its decoder alone, with fixed latents."""

import copy
import math
from pathlib import Path
from random import Random

import torch
from diffusers import AutoencoderTiny
from torch.nn import functional

from training.dreamlet.config import AutoencoderConfig, DecoderConfig, Preset
from training.dreamlet.drawing.render import render
from training.dreamlet.drawings import TrainingDrawings, stacked
from training.dreamlet.fused_autoencoder import FusedAutoencoder
from training.dreamlet.learning.learner import Learner
from training.dreamlet.learning.loop import Chance
from training.dreamlet.machine import as_network_input, autocast, to_device
from training.dreamlet.networks import PIXELS_PER_LATENT, new_autoencoder
from training.dreamlet.pool import Pool, Supply
from training.dreamlet.scenes import draw_held_out_scene

TEST_SEED = 900_001


class AutoencoderStage:
    """The whole autoencoder under training. Its result is `vae/`, scaled to latents of unit variance."""

    name = "autoencoder"

    def __init__(self, preset: Preset, seed: int, test_pictures: int = 48) -> None:
        self.config: AutoencoderConfig = preset.autoencoder
        self.training = self.config.training
        self._preset = preset
        self._test = _held_out_pictures(preset, test_pictures)
        self.network = to_device(FusedAutoencoder(new_autoencoder(self.config.channels))).train()
        self.learner = Learner(self.network, self.training, for_adamw=("inlet", "outlet"))
        self._pool = _pictures(preset, seed, self.config.pool)

    def loss(self, step: int, chance: Chance) -> torch.Tensor:
        """Of the reconstruction, and of latents that stray from a unit normal."""
        self._pool.grow_to(self.config.first_pool + self.config.fresh * step)
        images = _crops(self._pool, self.training.batch_size, self.config.crop, chance.random)
        with autocast(self._preset):
            latents = self.network.encode(images)
            variance, mean = torch.var_mean(latents.float(), dim=(0, 2, 3))
            normal = (mean.square() + variance - variance.clamp(min=1e-4).log() - 1).mean()
            if chance.random.random() < self.config.coarse_share:
                latents, images = functional.avg_pool2d(latents, 2), functional.avg_pool2d(images, 2)
            decoded = self.network.decode(_noisy(latents, self.config.latent_noise, chance))
        return reconstruction_loss(decoded.float(), images) + 0.01 * normal

    def export(self, folder: Path) -> str:
        """Write the average of the weights as `vae/`."""
        with self.learner.average.in_place():
            network = self.network.plain()
        network = to_device(network).eval()
        pictures = torch.split(as_network_input(self._test), 8)
        with torch.inference_mode():
            latents = torch.cat([network.encode(part).latents.float() for part in pictures])
        network.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
        network.save_pretrained(folder / "vae")
        return f"PSNR {psnr(network, self._test):.2f} dB, scaling factor {network.config.scaling_factor}"


class DecoderStage:
    """The decoder under refinement. The encoder stays bit by bit: a UNet trained on its latents still fits."""

    name = "decoder"

    def __init__(self, preset: Preset, seed: int, autoencoder: AutoencoderTiny, test_pictures: int = 48) -> None:
        self.config: DecoderConfig = preset.decoder
        self.training = self.config.training
        self._preset = preset
        self._autoencoder = to_device(autoencoder.float()).eval().requires_grad_(requires_grad=False)
        self._test = _held_out_pictures(preset, test_pictures)
        self.network = to_device(FusedAutoencoder(autoencoder)).train()
        self.network.set_decoder_only()
        self.learner = Learner(self.network, self.training, for_adamw=("outlet",))
        self._pool = _pictures(preset, seed, self.config.pool)

    def loss(self, step: int, chance: Chance) -> torch.Tensor:
        """Of the reconstruction."""
        self._pool.grow_to(self.config.first_pool + self.config.fresh * step)
        images = _crops(self._pool, self.training.batch_size, self.config.crop, chance.random)
        with autocast(self._preset):
            with torch.no_grad():
                latents = self.network.encode(images)
            decoded = self.network.decode(_noisy(latents, self.config.latent_noise, chance))
        return reconstruction_loss(decoded.float(), images)

    def export(self, folder: Path) -> str:
        """Write `vae/`: the old encoder, the average of the new decoder."""
        with self.learner.average.in_place():
            trained = self.network.plain()
        network = copy.deepcopy(self._autoencoder).to(memory_format=torch.contiguous_format)
        network.decoder.load_state_dict(trained.decoder.state_dict())
        network.save_pretrained(folder / "vae")
        return f"PSNR {psnr(network, self._test):.2f} dB"


def reconstruction_loss(decoded: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """How far decoded pictures are from the true ones, in colours and in edges; a scalar."""
    error = decoded - images
    edges = (error[..., 1:, :] - error[..., :-1, :]).abs().mean() + (error[..., 1:] - error[..., :-1]).abs().mean()
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges


@torch.inference_mode()
def psnr(network: AutoencoderTiny, pictures: torch.Tensor) -> float:
    """Mean peak signal-to-noise ratio of single pictures after encoding and decoding, in dB.

    Args:
        network: the autoencoder.
        pictures: (N, 3, H, W), bytes.
    """
    ratios = []
    for picture in torch.split(pictures, 1):
        image = as_network_input(picture)
        decoded = network.decode(network.encode(image).latents).sample.float().clamp(-1, 1)
        ratios.append(10 * math.log10(4 / functional.mse_loss(decoded, image).item()))
    return sum(ratios) / len(ratios)


def held_out_pictures(count: int, width: int = 256, height: int = 256) -> torch.Tensor:
    """Drawings of held-out scenes, (N, 3, H, W), bytes."""
    random = Random(TEST_SEED)  # noqa: S311 - pictures, not secrets
    return stacked([render(draw_held_out_scene(random), width, height) for _ in range(count)])


def _held_out_pictures(preset: Preset, count: int) -> torch.Tensor:
    return held_out_pictures(count, *preset.native_size)


def _pictures(preset: Preset, seed: int, capacity: int) -> Pool:
    return Pool(Supply(TrainingDrawings.of(preset, seed), preset.workers).get, preset.shard, capacity)


def _crops(pool: Pool, count: int, side: int, random: Random) -> torch.Tensor:
    """Squares of pictures, cut where latents begin: subjects stand on that grid."""
    images = pool.sample(random, count).tensors["images"]
    cut = []
    for image in images:
        rows, columns = ((length - side) // PIXELS_PER_LATENT + 1 for length in image.shape[1:])
        top, left = (PIXELS_PER_LATENT * random.randrange(places) for places in (rows, columns))
        cut.append(image[:, top : top + side, left : left + side])
    return as_network_input(torch.stack(cut))


def _noisy(latents: torch.Tensor, most: float, chance: Chance) -> torch.Tensor:
    """Latents with noise of up to so much."""
    amount = most * torch.rand((len(latents), 1, 1, 1), generator=chance.generator)
    noise = torch.randn(latents.shape, generator=chance.generator)
    return latents + (amount * noise).to(latents.device)
