"""What a training run is told: the presets of `config.toml`, with the meaning of every value."""

import logging
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

Network = TypeVar("Network", bound=torch.nn.Module)

CONFIG = Path(__file__).with_name("config.toml")


@dataclass(frozen=True, slots=True)
class AutoencoderConfig:
    """The autoencoder and its training."""

    encoder_channels: int
    decoder_channels: int
    learning_rate: float
    batch_size: int
    crop: int
    """Pixels; the side of the squares that are cut from the pictures."""
    pool: int
    """Pictures kept on the device to cut from; fresh ones push out the oldest."""
    latent_noise: float
    """Standard deviation of the noise on the latents, which stand around 1; makes the decoder forgive small errors."""


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The text encoder, and its schooling before the diffusion begins."""

    width: int
    layers: int
    heads: int
    learning_rate: float
    batch_size: int


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """The denoising network."""

    channels: tuple[int, ...]
    """Of each level, from the finest; multiples of 32, since others run slowly on CPUs."""
    layers_per_block: int
    heads: int


@dataclass(frozen=True, slots=True)
class DiffusionConfig:
    """The training of the text encoder and the UNet."""

    learning_rate: float
    batch_size: int
    pool: int
    """Latents kept on the device; fresh ones push out the oldest."""
    first_pool: int
    """How many there must be before the first step."""
    uses: int
    """How often each is used at least before a fresh one is drawn; spares slow machines the drawing."""
    ema_decay: float


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """The training of the judge."""

    learning_rate: float
    batch_size: int
    pool: int
    """Pictures kept on the device; fresh ones push out the oldest."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Everything for one kind of machine."""

    workers: int
    """Processes that draw pictures; 0 draws between the steps."""
    drawn_together: int
    """Pictures in one batch of drawings."""
    precision: str
    """`bfloat16` for autocast, `float32` for none."""
    sizes: tuple[tuple[int, int, float], ...]
    """Width, height and share of each size of picture; the first is the native one."""
    autoencoder: AutoencoderConfig
    text: TextConfig
    unet: UNetConfig
    diffusion: DiffusionConfig
    judge: JudgeConfig


def load_preset(name: str, path: Path = CONFIG) -> Preset:
    """Read one preset.

    Raises:
        ValueError: there is none of this name.
    """
    presets: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    if name not in presets:
        raise ValueError(f"preset must be one of {', '.join(presets)}, not {name}")
    values = presets[name]
    if "like" in values:
        values = _over(presets[values["like"]], values)
    unet = values["unet"]
    return Preset(
        workers=values["workers"],
        drawn_together=values["drawn_together"],
        precision=values["precision"],
        sizes=tuple((width, height, share) for width, height, share in values["sizes"]),
        autoencoder=AutoencoderConfig(**values["autoencoder"]),
        text=TextConfig(**values["text"]),
        unet=UNetConfig(tuple(unet["channels"]), unet["layers_per_block"], unet["heads"]),
        diffusion=DiffusionConfig(**values["diffusion"]),
        judge=JudgeConfig(**values["judge"]),
    )


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """One table laid over another, inner tables too."""
    merged = {**below, **above}
    for name, inner in below.items():
        if isinstance(inner, dict) and name in above:
            merged[name] = _over(inner, above[name])
    return merged


def device() -> torch.device:
    """The accelerator if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(preset: Preset) -> torch.autocast:
    """The precision in which networks are trained."""
    return torch.autocast(device().type, dtype=torch.bfloat16, enabled=preset.precision == "bfloat16")


def begin() -> None:
    """What every command of training does first: log to the terminal, let a GPU use its fast matrix units."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def memory_format() -> torch.memory_format:
    """How pictures lie in memory while training: GPUs want channels last, the CPU's backward pass is slower with it."""
    return torch.channels_last if device().type == "cuda" else torch.contiguous_format


def to_device(network: Network) -> Network:
    """The network on the device, laid out for training."""
    network.to(device())
    network.to(memory_format=memory_format())  # type: ignore[call-overload]  # torch's stubs lack this form
    return network
