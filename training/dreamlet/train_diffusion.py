"""Trains text encoder and UNet: `python -m training.dreamlet.train_diffusion --autoencoder DIR --out DIR`.

Stops by the clock, writes a checkpoint now and then, and goes on from it when called again with the same `--out`.
"""

import argparse
import copy
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from training.dreamlet.averages import MovingAverage
from training.dreamlet.clock import RunClock
from training.dreamlet.config import Preset, autocast, begin, device, load_preset, memory_format, to_device
from training.dreamlet.data import drawings_with_tokens, stream
from training.dreamlet.diffusion import Denoiser
from training.dreamlet.feeding import Feeder
from training.dreamlet.networks import PIXELS_PER_LATENT, new_pipeline, new_text_encoder, new_unet, save_pipeline
from training.dreamlet.schooling import school
from training.dreamlet.tokenizer import token_ids, train_tokenizer

LOG = logging.getLogger("dreamlet")
SCHOOLING_SHARE = 0.05
"""Of the run's time, for teaching the text encoder to read."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run works on."""

    autoencoder: AutoencoderTiny
    tokenizer: CLIPTokenizer
    denoiser: Denoiser
    average: MovingAverage
    optimizer: torch.optim.Optimizer


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of a run."""

    root: Path

    @property
    def checkpoint(self) -> Path:
        """Weights, average and optimizer."""
        return self.root / "checkpoint.pt"

    @property
    def pipeline(self) -> Path:
        """The average so far, ready to draw."""
        return self.root / "pipeline"


def train(
    preset: Preset, clock: RunClock, out: Path, autoencoder: Path, start_from: Path | None, checkpoint_every_s: float
) -> float:
    """Train until the clock says stop; leaves `checkpoint.pt` and `pipeline/` in `out`.

    Args:
        preset: what and how.
        clock: of the run; what a checkpoint has spent already is added to it.
        out: the run's folder.
        autoencoder: a trained autoencoder's folder.
        start_from: a pipeline whose text encoder and UNet to begin with.
        checkpoint_every_s: seconds between checkpoints.

    Returns:
        The loss, averaged over the last steps.
    """
    folder = RunFolder(out)
    parts, has_read = _parts(preset, folder, autoencoder, start_from)
    step = 0
    if folder.checkpoint.exists():
        step, clock.spent_s = _restore(parts, folder)
        LOG.info("resumed at step %d, %.1f min", step, clock.spent_s / 60)
    elif not has_read:
        school(parts.denoiser.text_encoder, parts.tokenizer, preset, clock.minutes * SCHOOLING_SHARE)
    drawings = drawings_with_tokens(preset, parts.tokenizer, seed=torch.seed() % 2**31)
    feeder = Feeder(preset, stream(preset, drawings), parts.autoencoder)
    feeder.start()
    feeder.wait_for(preset.diffusion.first_pool)
    LOG.info("first pool drawn after %.1f min", clock.elapsed_s / 60)
    empty_ids = torch.tensor(token_ids(parts.tokenizer, [""])[0], device=device())
    sizes = Random(step)  # noqa: S311 - the order of sizes, not a secret
    average_loss = float("nan")
    while not clock.is_over:
        loss = _step(parts, preset, feeder, sizes, empty_ids, clock)
        step += 1
        if step % 20 == 1:
            # Reading the loss waits for the device, so not every step.
            average_loss = (
                loss.item() if math.isnan(average_loss) else average_loss + 0.1 * (loss.item() - average_loss)
            )
        if clock.is_due(checkpoint_every_s):
            LOG.info(
                "%.1f min, step %d, loss %.4f, %d pictures drawn",
                clock.elapsed_s / 60,
                step,
                average_loss,
                feeder.drawn,
            )
            _save(parts, folder, step, clock)
    feeder.stop()
    _save(parts, folder, step, clock)
    LOG.info("done: step %d, loss %.4f, %d pictures drawn", step, average_loss, feeder.drawn)
    return average_loss


def _step(
    parts: Parts, preset: Preset, feeder: Feeder, sizes: Random, empty_ids: torch.Tensor, clock: RunClock
) -> torch.Tensor:
    """One step of the optimizer; returns the loss, still on the device."""
    batch = feeder.sample(sizes, preset.diffusion.batch_size)
    for group in parts.optimizer.param_groups:
        group["lr"] = clock.learning_rate(preset.diffusion.learning_rate)
    latents = batch["latents"].float().contiguous(memory_format=memory_format())
    with autocast(preset):
        loss: torch.Tensor = parts.denoiser(latents, batch["ids"], empty_ids)
    parts.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(parts.denoiser.parameters(), 1.0)
    parts.optimizer.step()
    parts.average.update()
    return loss.detach()


def _parts(preset: Preset, folder: RunFolder, autoencoder: Path, start_from: Path | None) -> tuple[Parts, bool]:
    """The networks, and whether their text encoder has been to school."""
    source = folder.pipeline if folder.checkpoint.exists() else start_from
    sample_size = preset.sizes[0][0] // PIXELS_PER_LATENT
    if source is not None:
        tokenizer = CLIPTokenizer.from_pretrained(source / "tokenizer")
        text_encoder = CLIPTextModel.from_pretrained(source / "text_encoder", dtype=torch.float32)
        unet = UNet2DConditionModel.from_pretrained(source / "unet")
        unet.register_to_config(sample_size=sample_size)
    else:
        tokenizer = train_tokenizer()
        text_encoder = new_text_encoder(preset.text, tokenizer)
        unet = new_unet(preset.unet, preset.text.width, sample_size)
    denoiser = to_device(Denoiser(text_encoder, unet)).train()
    optimizer = torch.optim.AdamW(
        denoiser.parameters(), lr=preset.diffusion.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    parts = Parts(
        AutoencoderTiny.from_pretrained(autoencoder),
        tokenizer,
        denoiser,
        MovingAverage(denoiser, preset.diffusion.ema_decay),
        optimizer,
    )
    return parts, source is not None


def _save(parts: Parts, folder: RunFolder, step: int, clock: RunClock) -> None:
    """Write checkpoint and pipeline, each whole or not at all."""
    folder.root.mkdir(parents=True, exist_ok=True)
    state = {
        "step": step,
        "spent_s": clock.elapsed_s,
        "denoiser": parts.denoiser.state_dict(),
        "average": parts.average.state(),
        "optimizer": parts.optimizer.state_dict(),
    }
    with parts.average.in_place():
        unet, text_encoder = (copy.deepcopy(part) for part in (parts.denoiser.unet, parts.denoiser.text_encoder))
    save_pipeline(new_pipeline(copy.deepcopy(parts.autoencoder), parts.tokenizer, text_encoder, unet), folder.pipeline)
    partial = folder.checkpoint.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(folder.checkpoint)


def _restore(parts: Parts, folder: RunFolder) -> tuple[int, float]:
    state = torch.load(folder.checkpoint, map_location=device(), weights_only=True)
    parts.denoiser.load_state_dict(state["denoiser"])
    parts.average.restore(**state["average"])
    parts.optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["spent_s"]


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--minutes", type=float, required=True, help="of the whole run, earlier calls included")
    parser.add_argument("--stop-after", type=float, default=math.inf, metavar="MINUTES", help="of this call alone")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--autoencoder", type=Path, required=True, help="a trained autoencoder")
    parser.add_argument("--start-from", type=Path, help="a pipeline to go on from")
    parser.add_argument("--checkpoint-every", type=float, default=120, metavar="SECONDS")
    options = parser.parse_args()
    begin()
    train(
        load_preset(options.preset),
        RunClock(options.minutes, options.stop_after),
        options.out,
        options.autoencoder,
        options.start_from,
        options.checkpoint_every,
    )


if __name__ == "__main__":
    main()
