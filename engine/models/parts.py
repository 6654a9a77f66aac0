"""The networks of a model, each with what its functions may be called with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from engine.models.examples import decoder_examples, encoder_examples, text_encoder_examples, unet_examples
from engine.models.layout import read_configs
from engine.models.loading import network_files, read_unet_plan

if TYPE_CHECKING:
    from pathlib import Path

    from engine.backends.base import Examples, NetworkFiles
    from engine.models.layout import ModelConfigs

__all__ = ["autoencoder_dtype", "network_parts"]


def autoencoder_dtype(configs: ModelConfigs, dtype: torch.dtype) -> torch.dtype:
    """What an autoencoder computes with where nobody says: as the rest, but not where it is known to overflow."""
    overflows = configs.family.autoencoder_overflows and configs.vae.get("force_upcast", True) is not False
    return torch.float32 if overflows and dtype == torch.float16 else dtype


def network_parts(
    folder: Path, dtype: torch.dtype, device: torch.device, vae_dtype: torch.dtype | None = None
) -> dict[str, tuple[NetworkFiles, Examples]]:
    """What a backend needs to run a model.

    Args:
        folder: where it is.
        dtype: what it computes with.
        device: where it runs.
        vae_dtype: what its autoencoder computes with; None: see `autoencoder_dtype`.

    Returns:
        `unet`, `vae`, `text_encoder` and, where there is one, `text_encoder_2` -> where it comes from, and its
        functions.

    Raises:
        ModelLoadError: a file is missing, or the model is not served; the message names file and reason.
    """
    plan, configs = read_unet_plan(folder), read_configs(folder)
    vae_dtype = vae_dtype or autoencoder_dtype(configs, dtype)
    method = "encode_for_xl" if len(configs.text_encoders) > 1 else "forward"
    return {
        "unet": (network_files(folder, "unet", dtype, device), unet_examples(plan)),
        **{
            part: (network_files(folder, part, dtype, device), text_encoder_examples(method))
            for part in configs.text_encoders
        },
        "vae": (
            network_files(folder, "vae", vae_dtype, device),
            {**encoder_examples(), **decoder_examples(plan.out_channels)},
        ),
    }
