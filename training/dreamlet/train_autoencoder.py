"""Trains the autoencoder on fresh drawings: `python -m training.dreamlet.train_autoencoder --out DIR`."""

import argparse
import logging
import math
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch.nn import functional

from training.dreamlet.captions import draw_example
from training.dreamlet.clock import RunClock
from training.dreamlet.config import Preset, autocast, begin, device, load_preset, memory_format, to_device
from training.dreamlet.data import Drawings, Example, Pool, as_network_input, stream
from training.dreamlet.networks import new_autoencoder

LOG = logging.getLogger("dreamlet")
TEST_SEED = 900_001
CHECKPOINT_EVERY_S = 120


def train(preset: Preset, minutes: float, out: Path, start_from: Path | None) -> AutoencoderTiny:
    """Train for so many minutes and save the result in `out`, now and then and at the end.

    Args:
        preset: what and how.
        minutes: of training; the learning rate falls to its end over them.
        out: folder of the autoencoder in the layout of diffusers.
        start_from: an autoencoder to go on from.
    """
    config = preset.autoencoder
    network = AutoencoderTiny.from_pretrained(start_from) if start_from else new_autoencoder(config)
    network = to_device(network).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=1e-4)
    pool = Pool(config.pool, device())
    drawn = stream(preset, _pictures_alone(preset, seed=torch.seed() % 2**31))
    while pool.count < min(config.pool, 10 * config.batch_size):
        pool.add(next(drawn))
    test = as_network_input(next(iter(_pictures_alone(preset, TEST_SEED)))["images"]).to(device())
    clock = RunClock(minutes)
    step = 0
    while not clock.is_over:
        if step % 2 == 0:
            pool.add(next(drawn))
        for group in optimizer.param_groups:
            group["lr"] = clock.learning_rate(config.learning_rate)
        images = _crops(as_network_input(pool.sample(config.batch_size)["images"]), config.crop)
        with autocast(preset):
            loss = reconstruction_loss(network, images, config.latent_noise)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        if clock.is_due(CHECKPOINT_EVERY_S):
            _save(network, pool, out)
            LOG.info(
                "autoencoder %.1f min, step %d, loss %.4f, PSNR %.2f dB",
                clock.elapsed_s / 60,
                step,
                loss.item(),
                psnr(network, test),
            )
    _save(network, pool, out)
    LOG.info(
        "autoencoder done: step %d, PSNR %.2f dB, scale %.3f", step, psnr(network, test), network.config.scaling_factor
    )
    return network


def reconstruction_loss(network: AutoencoderTiny, images: torch.Tensor, latent_noise: float) -> torch.Tensor:
    """How far the decoded pictures are from the encoded ones, in colours and in edges, at latents near a unit normal.

    Args:
        network: the autoencoder.
        images: (N, 3, H, W) in [-1, 1].
        latent_noise: standard deviation of what is added to the latents.
    """
    latents = network.encode(images).latents
    decoded = network.decode(latents + latent_noise * torch.randn_like(latents)).sample.float()
    error = decoded - images
    edges = (error[..., 1:, :] - error[..., :-1, :]).abs().mean() + (error[..., 1:] - error[..., :-1]).abs().mean()
    latents = latents.float()
    variance, mean = torch.var_mean(latents, dim=(0, 2, 3))
    normal = (mean.square() + variance - variance.clamp(min=1e-4).log() - 1).mean()
    loss: torch.Tensor = error.abs().mean() + 2 * error.square().mean() + 0.5 * edges + 0.01 * normal
    return loss


@torch.inference_mode()
def psnr(network: AutoencoderTiny, images: torch.Tensor) -> float:
    """Mean peak signal-to-noise ratio of single pictures after encoding and decoding, in dB.

    Args:
        network: the autoencoder.
        images: (N, 3, H, W) in [-1, 1].
    """
    ratios = []
    for image in torch.split(images, 1):
        decoded = network.decode(network.encode(image).latents).sample.float().clamp(-1, 1)
        ratios.append(10 * math.log10(4 / functional.mse_loss(decoded, image).item()))
    return sum(ratios) / len(ratios)


@torch.inference_mode()
def _save(network: AutoencoderTiny, pool: Pool, out: Path) -> None:
    """Write the network, with the factor that brings its latents to unit variance in its configuration."""
    images = as_network_input(pool.sample(32)["images"])
    network.register_to_config(scaling_factor=1 / network.encode(images).latents.float().std().item())
    network.save_pretrained(out)


def _crops(images: torch.Tensor, side: int) -> torch.Tensor:
    """One square of each batch, cut at a random place and mirrored half of the time."""
    top = int(torch.randint(images.shape[2] - side + 1, ()))
    left = int(torch.randint(images.shape[3] - side + 1, ()))
    cut = images[..., top : top + side, left : left + side]
    cut = cut.flip(3) if torch.rand(()) < 0.5 else cut
    return cut.contiguous(memory_format=memory_format())


def _nothing_else(_examples: list[Example]) -> dict[str, torch.Tensor]:
    return {}


def _pictures_alone(preset: Preset, seed: int) -> Drawings:
    width, height, _ = preset.sizes[0]
    return Drawings(((width, height, 1.0),), preset.drawn_together, seed, draw_example, _nothing_else)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the autoencoder")
    parser.add_argument("--start-from", type=Path, help="an autoencoder to go on from")
    options = parser.parse_args()
    begin()
    train(load_preset(options.preset), options.minutes, options.out, options.start_from)


if __name__ == "__main__":
    main()
