"""Held-out loss of a UNet, on fixed scenes, captions and noise: to compare trainings and ideas.

`python -m training.dreamlet.held_out_loss CHECKPOINT PIPELINE ... --parts DIR`
"""

import argparse
import sys
from functools import cached_property
from pathlib import Path
from random import Random

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from training.dreamlet.captions import caption_for
from training.dreamlet.config import load_preset
from training.dreamlet.diffusion import Noised, noised
from training.dreamlet.drawing.render import render
from training.dreamlet.drawings import stacked
from training.dreamlet.machine import as_network_input, begin, device
from training.dreamlet.networks import new_unet, read_unet
from training.dreamlet.scenes import Shares, draw_said, draw_scene
from training.dreamlet.tokenizer import token_ids

SCENES = 192
SEED = 77
SHARES = Shares(landscape=0.07, pair=0.06, other_style=0.1, big=0.09, small=0.05, flaw=0.0)
"""Written out, so that another recipe is measured on the same scenes."""
TOGETHER = 32


class HeldOut:
    """The fixed examples, drawn and encoded when they are first asked for."""

    def __init__(
        self, autoencoder: AutoencoderTiny, tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, scenes: int = SCENES
    ) -> None:
        self._autoencoder = autoencoder
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._scenes = scenes

    @torch.inference_mode()
    def loss(self, unet: UNet2DConditionModel) -> float:
        """Mean squared error of the velocities over timesteps from 20 to 999, spread evenly."""
        return sum(self.losses(unet)) / self._scenes

    @torch.inference_mode()
    def losses(self, unet: UNet2DConditionModel) -> list[float]:
        """The same for each scene."""
        unet.eval()
        mixed, prompt_embeds = self._examples
        found: list[float] = []
        for at in range(0, self._scenes, TOGETHER):
            part = slice(at, at + TOGETHER)
            predicted = unet(mixed.latents[part], mixed.timesteps[part], prompt_embeds[part]).sample.float()
            found += (predicted - mixed.velocity[part]).square().mean(dim=(1, 2, 3)).tolist()
        return found

    @cached_property
    def _examples(self) -> tuple[Noised, torch.Tensor]:
        random = Random(SEED)  # noqa: S311 - pictures, not secrets
        pictures, captions = [], []
        for _ in range(self._scenes):
            said = draw_said(random, SHARES)
            scene = draw_scene(random, said, SHARES)
            pictures.append(render(scene))
            captions.append(caption_for(scene, said, random))
        autoencoder = self._autoencoder.to(device())
        images = torch.split(as_network_input(stacked(pictures)), TOGETHER)
        latents = torch.cat([autoencoder.encode(part).latents.float() for part in images])
        latents = latents * autoencoder.config.scaling_factor
        ids = torch.tensor(token_ids(self._tokenizer, captions)).to(device())
        prompt_embeds = torch.cat([self._text_encoder(part).last_hidden_state for part in torch.split(ids, TOGETHER)])
        generator = torch.Generator().manual_seed(SEED)
        noise = torch.randn(latents.shape, generator=generator).to(device())
        order = torch.randperm(self._scenes, generator=generator)
        timesteps = torch.linspace(20, 999, self._scenes).long()[order]
        return noised(latents, noise, timesteps, torch.zeros(self._scenes, dtype=torch.bool)), prompt_embeds


def versions(source: Path, unet: UNet2DConditionModel) -> dict[str, dict[str, torch.Tensor]]:
    """The weights to measure: both of a checkpoint, the live ones and their average; else those of a file or pipeline.

    Args:
        source: a checkpoint, a file of weights, or a pipeline's folder.
        unet: the network that they belong to.
    """
    if source.suffix != ".pt":
        return {"weights": read_unet(source)}
    learner = torch.load(source, map_location="cpu", weights_only=True)["learner"]
    names = [name for name, _ in unet.named_parameters()]
    return {"live": learner["network"], "average": dict(zip(names, learner["average"]["weights"], strict=True))}


def main() -> None:
    """Read the command line, measure, print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, nargs="+", help="checkpoints, files of weights, pipelines")
    parser.add_argument("--parts", type=Path, required=True, help="folder with vae, text_encoder and tokenizer")
    parser.add_argument("--preset", default="cpu", help="whose UNet it is")
    options = parser.parse_args()
    begin()
    text_encoder = CLIPTextModel.from_pretrained(options.parts / "text_encoder", dtype=torch.float32).to(device())
    held_out = HeldOut(
        AutoencoderTiny.from_pretrained(options.parts / "vae").float(),
        CLIPTokenizer.from_pretrained(options.parts / "tokenizer"),
        text_encoder.eval(),
    )
    unet = new_unet(load_preset(options.preset).unet, text_encoder.config.hidden_size, sample_size=16).to(device())
    for source in options.weights:
        for name, weights in versions(source, unet).items():
            unet.load_state_dict(weights)
            losses = held_out.losses(unet)
            sys.stdout.write(f"{source} ({name}): {sum(losses) / len(losses):.4f}\n")


if __name__ == "__main__":
    main()
