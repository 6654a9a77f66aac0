"""Trains dreamlet, one part after the other: `python -m training.dreamlet.train all --out var/dreamlet`.

Each part is a folder of the run: `autoencoder`, `text`, `unet`, `decoder`, `judge`. What is finished is left alone;
what was interrupted goes on to the step. `parts` collects what the UNet is trained on, `pipeline` is what comes out.
`--ask decay` and `--ask stop` speak to a training in another terminal.
"""

import argparse
import logging
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch
from diffusers import AutoencoderTiny

from training.dreamlet.config import Preset, load_preset
from training.dreamlet.learning.loop import Stage, run
from training.dreamlet.learning.run_folder import RunFolder
from training.dreamlet.machine import begin
from training.dreamlet.train_autoencoder import AutoencoderStage, DecoderStage
from training.dreamlet.train_judge import JudgeStage
from training.dreamlet.train_text import TextStage
from training.dreamlet.train_unet import UNetStage

LOG = logging.getLogger("dreamlet")
PARTS = ("autoencoder", "text", "unet", "decoder", "judge")
SHIPPED = ("vae", "text_encoder", "tokenizer")
"""What the UNet is trained on."""


class Interrupted:
    """Whether the user has pressed Ctrl-C or the process was asked to end: the step in hand is finished and saved."""

    def __init__(self) -> None:
        self._is_set = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._set)

    def _set(self, _number: int, _frame: FrameType | None) -> None:
        self._is_set = True

    def __call__(self) -> bool:
        """Ask."""
        return self._is_set


def train(
    preset: Preset, part: str, out: Path, start_from: Path | None, seed: int, checkpoint_every_s: float,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> bool:  # fmt: skip
    """Train one part; returns whether it is finished.

    Args:
        preset: what and how.
        part: one of PARTS.
        out: folder of the run.
        start_from: a pipeline to go on from, or for the UNet alone a file of weights.
        seed: of all chance.
        checkpoint_every_s: seconds between checkpoints.
        is_interrupted: True saves and stops.
    """
    torch.manual_seed(seed)
    folder = RunFolder(out / part)
    stage = _stage(preset, part, out, start_from, seed)
    is_finished = run(stage, folder, seed, checkpoint_every_s, is_interrupted)
    if is_finished and part in ("autoencoder", "text"):
        copy_parts(folder.result, out / "parts")
    if is_finished and part in ("unet", "decoder"):
        assemble(out)
    return is_finished


def train_all(
    preset: Preset, out: Path, start_from: Path | None, seed: int, checkpoint_every_s: float,
    is_interrupted: Callable[[], bool] = lambda: False,
) -> bool:  # fmt: skip
    """Train every part that is not finished. A pipeline to start from spares autoencoder and text encoder."""
    if start_from is not None and start_from.is_dir():
        copy_parts(start_from, out / "parts")
    parts = [part for part in PARTS if start_from is None or part not in ("autoencoder", "text")]
    return all(train(preset, part, out, start_from, seed, checkpoint_every_s, is_interrupted) for part in parts)


def assemble(out: Path) -> None:
    """Put `pipeline` together: what the UNet's training made, with the refined decoder if there is one."""
    made, refined = out / "unet" / "result" / "pipeline", out / "decoder" / "result" / "vae"
    if made.exists():
        shutil.copytree(made, out / "pipeline", dirs_exist_ok=True)
        if refined.exists():
            AutoencoderTiny.from_pretrained(refined).half().save_pretrained(out / "pipeline" / "vae")


def copy_parts(source: Path, parts: Path) -> None:
    """Copy what the UNet is trained on, as far as the source has it."""
    for name in SHIPPED:
        if (source / name).exists():
            shutil.copytree(source / name, parts / name, dirs_exist_ok=True)


def _stage(preset: Preset, part: str, out: Path, start_from: Path | None, seed: int) -> Stage:
    if part == "autoencoder":
        return AutoencoderStage(preset, seed)
    if part == "text":
        return TextStage(preset)
    if part == "judge":
        return JudgeStage(preset, seed)
    if part == "decoder":
        return DecoderStage(preset, seed, AutoencoderTiny.from_pretrained(out / "parts" / "vae"))
    return UNetStage(preset, seed, out / "parts", out / "unet" / "latents", start_from)


def with_steps(preset: Preset, part: str, steps: int) -> Preset:
    """The preset with another number of steps for one part."""
    config = getattr(preset, part)
    return replace(preset, **{part: replace(config, training=replace(config.training, steps=steps))})


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line; train, or ask a training for something."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("part", choices=("all", *PARTS))
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--preset", default="cpu", help="cpu or gpu")
    parser.add_argument("--steps", type=int, help="of the whole training of one part, its decay included")
    parser.add_argument(
        "--start-from", type=Path, help="a pipeline, whose autoencoder and text encoder are kept; or a UNet's weights"
    )
    parser.add_argument("--ask", choices=("decay", "stop"), help="ask the training that runs on this folder, and end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-every", type=float, default=600, metavar="SECONDS")
    options = parser.parse_args(arguments)
    if (options.ask or options.steps) and options.part == "all":
        parser.error("--ask and --steps need one part, not all")
    if options.ask:
        RunFolder(options.out / options.part).ask(options.ask)
        return
    preset = load_preset(options.preset)
    if options.steps:
        preset = with_steps(preset, options.part, options.steps)
    begin(preset.threads)
    values = (options.out, options.start_from, options.seed, options.checkpoint_every, Interrupted())
    if options.part == "all":
        train_all(preset, *values)
    else:
        if options.start_from is not None and options.start_from.is_dir() and options.part == "unet":
            copy_parts(options.start_from, options.out / "parts")
        train(preset, options.part, *values)


if __name__ == "__main__":
    main()
