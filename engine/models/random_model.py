"""Model folders with random weights, for tests and benchmarks: every file of a real model, no training behind it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice, product
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from safetensors.torch import save_file

from engine.models.options import Options
from engine.models.unet_plan import UNetPlan
from engine.networks.autoencoder import AutoencoderKL, AutoencoderTiny
from engine.networks.clip import TextEncoder
from engine.networks.unet import UNet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["Architecture", "AutoencoderKind", "PredictionType", "make_random_model"]

Architecture = Literal["sd15", "tiny", "tiny-2", "tiny-xl", "tiny-16"]
AutoencoderKind = Literal["kl", "tiny"]
PredictionType = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True, slots=True)
class _Sizes:
    latent_channels: int
    unet: dict[str, Any]
    autoencoder_kl: dict[str, Any]
    autoencoder_tiny: dict[str, Any]
    text_encoder: dict[str, Any]
    vocabulary_size: int
    text_encoder_2: dict[str, Any] | None = None
    padding: str = "<|endoftext|>"
    """What fills up a text, of the first encoder; OpenCLIP's, the second included, has `!`."""


_TINY_TEXT_ENCODER: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 32,
}

_TINY_UNET: Final[dict[str, Any]] = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 2,
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
_TINY_AUTOENCODER_KL: Final[dict[str, Any]] = {
    "sample_size": 64,
    "block_out_channels": (16, 16, 16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
_TINY_AUTOENCODER_TINY: Final[dict[str, Any]] = {
    "encoder_block_out_channels": (16, 16, 16, 16),
    "decoder_block_out_channels": (16, 16, 16, 16),
    "num_encoder_blocks": (1, 1, 1, 1),
    "num_decoder_blocks": (1, 1, 1, 1),
    # An untrained UNet takes no noise away, and the decoder would squash latents of its size flat.
    "scaling_factor": 8.0,
}

_SIZES: Final[dict[Architecture, _Sizes]] = {
    # Stable Diffusion 1.5 as published: 859.5 M + 83.7 M + 123.1 M parameters; its tiny autoencoder is TAESD.
    "sd15": _Sizes(
        latent_channels=4,
        unet={
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "layers_per_block": 2,
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        autoencoder_kl={
            "sample_size": 512,
            "block_out_channels": (128, 256, 512, 512),
            "layers_per_block": 2,
        },
        autoencoder_tiny={
            "encoder_block_out_channels": (64, 64, 64, 64),
            "decoder_block_out_channels": (64, 64, 64, 64),
        },
        text_encoder={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "projection_dim": 768,
        },
        vocabulary_size=49408,
    ),
    # Milliseconds a step. Channel counts stay multiples of 16, as others run far slower on CPUs.
    "tiny": _Sizes(
        latent_channels=4,
        unet=_TINY_UNET,
        autoencoder_kl=_TINY_AUTOENCODER_KL,
        autoencoder_tiny=_TINY_AUTOENCODER_TINY,
        text_encoder=_TINY_TEXT_ENCODER,
        vocabulary_size=1024,
    ),
    # As small, but built like Stable Diffusion 2 and XL: see their `unet/config.json`.
    "tiny-2": _Sizes(
        latent_channels=4,
        unet=_TINY_UNET | {"attention_head_dim": (2, 4), "use_linear_projection": True, "upcast_attention": True},
        autoencoder_kl=_TINY_AUTOENCODER_KL,
        autoencoder_tiny=_TINY_AUTOENCODER_TINY,
        text_encoder=_TINY_TEXT_ENCODER | {"hidden_act": "gelu"},
        vocabulary_size=1024,
        padding="!",
    ),
    "tiny-xl": _Sizes(
        latent_channels=4,
        unet=_TINY_UNET
        | {
            "cross_attention_dim": 80,
            "attention_head_dim": (2, 4),
            "use_linear_projection": True,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 24 + 6 * 8,
        },
        autoencoder_kl=_TINY_AUTOENCODER_KL | {"scaling_factor": 0.13025, "force_upcast": True},
        autoencoder_tiny=_TINY_AUTOENCODER_TINY,
        text_encoder=_TINY_TEXT_ENCODER,
        vocabulary_size=1024,
        # Its own width and projection, so that what is confused with the first one's shows.
        text_encoder_2=_TINY_TEXT_ENCODER | {"hidden_size": 48, "projection_dim": 24, "hidden_act": "gelu"},
    ),
    # As small, but built like models/dreamlet: a latent is 16x16 pixels with 16 channels, only the UNet's middle reads
    # the prompt's tokens, and the prompt also scales and shifts every layer.
    "tiny-16": _Sizes(
        latent_channels=16,
        unet={
            "sample_size": 4,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "cross_attention_dim": 32,
            "attention_head_dim": 2,
            "norm_num_groups": 8,
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D"),
            "addition_embed_type": "text",
            "addition_embed_type_num_heads": 2,
            "resnet_time_scale_shift": "scale_shift",
        },
        autoencoder_kl={
            "sample_size": 64,
            "block_out_channels": (16, 16, 16, 16, 32),
            "layers_per_block": 1,
            "norm_num_groups": 8,
        },
        autoencoder_tiny={
            "encoder_block_out_channels": (16, 16, 16, 16, 16),
            "decoder_block_out_channels": (16, 16, 16, 16, 16),
            "num_encoder_blocks": (0, 1, 1, 1, 1),
            "num_decoder_blocks": (1, 1, 1, 1, 0),
            "scaling_factor": 8.0,
        },
        text_encoder=_TINY_TEXT_ENCODER,
        vocabulary_size=1024,
    ),
}


def make_random_model(
    folder: Path,
    *,
    arch: Architecture = "tiny",
    seed: int = 0,
    prediction_type: PredictionType = "epsilon",
    vae: AutoencoderKind = "kl",
    dtype: torch.dtype = torch.float32,
    is_inpainting: bool = False,
    embeds_guidance: bool = False,
    zero_terminal_snr: bool = False,
) -> None:
    """Write a model in diffusers layout whose weights are drawn from `seed`; the same arguments give the same files.

    Args:
        folder: Made if it is not there; files of the same names are overwritten.
        arch: `sd15` is Stable Diffusion 1.5 in every size (2.1 GB in float16), `tiny` draws 64x64 pixels in
            milliseconds, and so do `tiny-2` and `tiny-xl`, which are built like Stable Diffusion 2 and XL, and
            `tiny-16`, which is built like `models/dreamlet`.
        seed: Of the weights.
        prediction_type: What the scheduler's configuration says that the UNet predicts.
        vae: AutoencoderKL or AutoencoderTiny.
        dtype: Of the weights on disk.
        is_inpainting: Whether the UNet reads a mask and the masked picture's latents too.
        embeds_guidance: Whether the UNet is told the guidance scale, as LCM's are.
        zero_terminal_snr: Whether the noise schedule ends in noise alone.
    """
    sizes = _SIZES[arch]
    channels = sizes.latent_channels
    unet = {"in_channels": 2 * channels + 1 if is_inpainting else channels, "out_channels": channels, **sizes.unet}
    unet |= {"time_cond_proj_dim": 16} if embeds_guidance else {}
    folder.mkdir(parents=True, exist_ok=True)
    # One part at a time, so that only the largest is ever in memory; the caller's random numbers are left alone.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _write_unet(folder / "unet", unet, dtype)
        _write_autoencoder(folder / "vae", sizes, vae, dtype)
        _write_text_encoder(folder / "text_encoder", sizes.text_encoder, sizes.vocabulary_size, dtype)
        if sizes.text_encoder_2 is not None:
            second = {"architectures": ["CLIPTextModelWithProjection"], **sizes.text_encoder_2}
            _write_text_encoder(folder / "text_encoder_2", second, sizes.vocabulary_size, dtype)
    _write_tokenizer(folder / "tokenizer", sizes.vocabulary_size, sizes.padding)
    if sizes.text_encoder_2 is not None:
        _write_tokenizer(folder / "tokenizer_2", sizes.vocabulary_size, "!")
    scheduler = _scheduler_config(prediction_type) | ({"rescale_betas_zero_snr": True} if zero_terminal_snr else {})
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    _write_json(folder / "model_index.json", _model_index(vae, has_second_encoder=sizes.text_encoder_2 is not None))


def _write_unet(folder: Path, config: dict[str, Any], dtype: torch.dtype) -> None:
    config = {"_class_name": "UNet2DConditionModel", **config}
    unet = UNet(UNetPlan.read(Options(folder / "config.json", config)))
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            # A fresh layer's weights make the prompt all but invisible beside timestep and latents.
            if ".attn2." in name and name.endswith("weight"):
                parameter.mul_(3)
    _write_part(folder, config, unet, dtype)


def _write_autoencoder(folder: Path, sizes: _Sizes, kind: AutoencoderKind, dtype: torch.dtype) -> None:
    channels = sizes.latent_channels
    if kind == "tiny":
        config = {"_class_name": "AutoencoderTiny", "latent_channels": channels, **sizes.autoencoder_tiny}
        tiny = AutoencoderTiny(Options(folder / "config.json", config))
        with torch.no_grad():
            # Fresh weights draw all but black; this gives pictures of middling brightness and contrast.
            last = tiny.decoder.layers[-1]
            assert isinstance(last, torch.nn.Conv2d)  # noqa: S101 - for the type checker
            assert last.bias is not None  # noqa: S101 - the same
            pixels = tiny.decode(torch.randn(1, channels, 16, 16)) / 2 + 0.5
            gain = 0.2 / pixels.std(dim=(0, 2, 3)).mean()
            last.weight.mul_(gain)
            last.bias.copy_(0.5 - gain * (pixels.mean(dim=(0, 2, 3)) - last.bias))
        _write_part(folder, config, tiny, dtype)
        return
    blocks = len(sizes.autoencoder_kl["block_out_channels"])
    config = {
        "_class_name": "AutoencoderKL",
        "latent_channels": channels,
        "scaling_factor": 0.18215,
        "down_block_types": ["DownEncoderBlock2D"] * blocks,
        "up_block_types": ["UpDecoderBlock2D"] * blocks,
        **sizes.autoencoder_kl,
    }
    _write_part(folder, config, AutoencoderKL(Options(folder / "config.json", config)), dtype)


def _write_text_encoder(folder: Path, sizes: dict[str, Any], vocabulary_size: int, dtype: torch.dtype) -> None:
    config = {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": vocabulary_size,
        "max_position_embeddings": 77,
        "bos_token_id": vocabulary_size - 2,
        "eos_token_id": vocabulary_size - 1,
        "pad_token_id": vocabulary_size - 1,
        **sizes,
    }
    encoder = TextEncoder(Options(folder / "config.json", config))
    with torch.no_grad():
        for embedding in encoder.embeddings.parameters():
            embedding.mul_(0.02)  # as CLIP begins: texts that differ more make guidance multiply every rounding
    # The published files carry this prefix, which newer libraries have dropped.
    _write_part(folder, config, encoder, dtype, stem="model", prefix="text_model.")


def _write_part(
    folder: Path,
    config: Mapping[str, object],
    network: torch.nn.Module,
    dtype: torch.dtype,
    *,
    stem: str = "diffusion_pytorch_model",
    prefix: str = "",
) -> None:
    _write_json(folder / "config.json", config)
    weights = {
        f"{prefix}{name}": tensor.to(dtype, copy=True).contiguous() for name, tensor in network.state_dict().items()
    }
    save_file(weights, folder / f"{stem}.safetensors", {"format": "pt"})


def _write_tokenizer(folder: Path, vocabulary_size: int, padding: str) -> None:
    """A byte-level BPE tokenizer as CLIP's: all bytes, all bytes that end a word, merges, and two special tokens."""
    letters = _byte_letters()
    vocabulary = letters + [letter + "</w>" for letter in letters]
    merges = list(islice(_merges(), vocabulary_size - len(vocabulary) - 2))
    vocabulary += [left + right for left, right in merges]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    _write_json(folder / "vocab.json", {token: index for index, token in enumerate(vocabulary)}, indent=None)
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": "<|startoftext|>"} | dict.fromkeys(("eos_token", "unk_token"), "<|endoftext|>")
    special["pad_token"] = padding
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(
        folder / "tokenizer_config.json", {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", **special}
    )


def _byte_letters() -> list[str]:
    """The printable letter that stands for each byte in a byte-level BPE, as in GPT-2 and CLIP."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(len(others))]


def _merges() -> Iterator[tuple[str, str]]:
    """Pairs of letters, then three, then four: each pair of tokens that merge into one which did not exist."""
    pairs = ["".join(pair) for pair in product(ascii_lowercase, repeat=2)]
    endings = [letter + "</w>" for letter in ascii_lowercase]
    yield from product(ascii_lowercase, ascii_lowercase)
    yield from product(ascii_lowercase, endings)
    yield from product(pairs, ascii_lowercase)
    yield from product(pairs, endings)
    yield from product(pairs, pairs)


def _scheduler_config(prediction_type: PredictionType) -> dict[str, object]:
    return {
        "_class_name": "PNDMScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "prediction_type": prediction_type,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    }


def _model_index(vae: AutoencoderKind, *, has_second_encoder: bool) -> dict[str, object]:
    second: dict[str, object] = {}
    if has_second_encoder:
        second = {
            "force_zeros_for_empty_prompt": True,
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
        }
    else:
        second = {"requires_safety_checker": False, "safety_checker": [None, None]}
    return second | {
        "_class_name": "StableDiffusionXLPipeline" if has_second_encoder else "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL" if vae == "kl" else "AutoencoderTiny"],
    }


def _write_json(path: Path, value: object, *, indent: int | None = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
