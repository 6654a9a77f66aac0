"""Training configuration: the presets of `config.toml`, with the meaning of every value."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.dreamlet.learning.schedule import Training
from training.dreamlet.scenes import Shares

CONFIG = Path(__file__).with_name("config.toml")


@dataclass(frozen=True, slots=True)
class AutoencoderConfig:
    """The autoencoder: 16 channels of latents, 16 pixels a latent."""

    channels: int
    """At least 28: the outermost layers spread three colours over nine pixels."""
    crop: int
    """Pixels; the side of the squares that are cut from the pictures."""
    pool: int
    """Pictures held; fresh ones push out the oldest."""
    first_pool: int
    """How many there are before the first step."""
    fresh: int
    """New pictures a step."""
    latent_noise: float
    """The most noise on the latents, which stand around 1: the decoder learns to forgive the UNet's errors."""
    coarse_share: float
    """Of the steps, decode averaged latents against averaged pictures: it keeps the latents smooth."""
    training: Training


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """The refinement of the decoder, at latents that no longer change."""

    crop: int
    pool: int
    first_pool: int
    fresh: int
    latent_noise: float
    training: Training


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The text encoder, trained alone and frozen afterwards."""

    width: int
    layers: int
    heads: int
    short: int
    """Tokens seen in most steps; the padding beyond is trained in every eighth, at full length."""
    training: Training


@dataclass(frozen=True, slots=True)
class UNetConfig:
    """The denoising network."""

    channels: tuple[int, ...]
    """Of each level, from the finest; multiples of 16, since others run slowly on CPUs."""
    layers_per_block: int
    pool: int
    """Latents held; fresh ones push out the oldest."""
    first_pool: int
    fresh: int
    subject_weight: float
    """How much more an error counts in a cell that holds a part of a subject."""
    training: Training


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """The judge."""

    width: int
    """Channels of the finest level; the next two have twice and four times as many."""
    pool: int
    first_pool: int
    fresh: int
    pair_share: float
    """Of its drawings, those with two subjects."""
    training: Training


@dataclass(frozen=True, slots=True)
class Preset:
    """Everything for one kind of machine."""

    threads: int
    """Of torch; 0 leaves its own choice."""
    workers: int
    """Processes that draw pictures; 0 draws between the steps."""
    precision: str
    """`auto`: bfloat16 through autocast where the device is faster in it, else float32. `float32`: always that."""
    shard: int
    """Pictures drawn together; all of them have one size."""
    sizes: tuple[tuple[int, int, float], ...]
    """Width, height and share of each size of picture; the first is the native one."""
    shares: Shares
    """How often things occur. Raise what is rare once what is common is right."""
    autoencoder: AutoencoderConfig
    decoder: DecoderConfig
    text: TextConfig
    unet: UNetConfig
    judge: JudgeConfig

    @property
    def native_size(self) -> tuple[int, int]:
        """Width and height."""
        width, height, _ = self.sizes[0]
        return width, height


def load_preset(name: str, path: Path = CONFIG) -> Preset:
    """Read one preset: the recipe with the preset's own values laid over it.

    Raises:
        ValueError: there is none of this name.
    """
    tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    recipe = tables.pop("recipe")
    if name not in tables:
        raise ValueError(f"preset must be one of {', '.join(tables)}, not {name}")
    values = _over(recipe, tables[name])
    sizes = tables[name].get("sizes", recipe["sizes"])
    parts = {
        part: {**values[part], "training": Training(**values[part]["training"])}
        for part in ("autoencoder", "decoder", "text", "unet", "judge")
    }
    parts["unet"]["channels"] = tuple(parts["unet"]["channels"])
    return Preset(
        threads=values["threads"],
        workers=values["workers"],
        precision=values["precision"],
        shard=values["shard"],
        sizes=tuple((*_size(text), share) for text, share in sizes.items()),
        shares=Shares(**values["shares"]),
        autoencoder=AutoencoderConfig(**parts["autoencoder"]),
        decoder=DecoderConfig(**parts["decoder"]),
        text=TextConfig(**parts["text"]),
        unet=UNetConfig(**parts["unet"]),
        judge=JudgeConfig(**parts["judge"]),
    )


def _size(text: str) -> tuple[int, int]:
    width, height = text.split("x")
    return int(width), int(height)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """One table laid over another, inner tables too."""
    merged = {**below, **above}
    for name, inner in below.items():
        if isinstance(inner, dict) and name in above:
            merged[name] = _over(inner, above[name])
    return merged
