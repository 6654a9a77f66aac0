"""The networks of a model, each with what its functions may be called with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.models.examples import decoder_examples, encoder_examples, text_encoder_examples, unet_examples
from engine.models.loading import network_files, read_unet_plan

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from engine.backends.base import Examples, NetworkFiles

__all__ = ["network_parts"]


def network_parts(folder: Path, dtype: torch.dtype, device: torch.device) -> dict[str, tuple[NetworkFiles, Examples]]:
    """What a backend needs to run a model.

    Returns:
        `unet`, `text_encoder` and `vae` -> where it comes from, and its functions.

    Raises:
        ModelLoadError: a file is missing, or the model is not served; the message names file and reason.
    """
    plan = read_unet_plan(folder)
    return {
        "unet": (
            network_files(folder, "unet", dtype, device),
            unet_examples(has_text_addition=plan.addition == "text"),
        ),
        "text_encoder": (network_files(folder, "text_encoder", dtype, device), text_encoder_examples()),
        "vae": (
            network_files(folder, "vae", dtype, device),
            {**encoder_examples(), **decoder_examples(plan.in_channels)},
        ),
    }
