"""The vectors of textual inversions, read for a model. (Which tokens name them: `inversion_names.py`.)"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

import torch

from engine.errors import ModelLoadError
from engine.models.weights_file import WeightsFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.models.textual_inversions import TextualInversion

__all__ = ["LoadedInversion", "load_inversions"]

logger = logging.getLogger(__name__)


class LoadedInversion(NamedTuple):
    """A textual inversion for a model."""

    name: str
    vectors: tuple[torch.Tensor, ...]
    """(v, D) for each of its text encoders, float32, on the CPU; none where it cannot be used."""
    fault: str
    """Why it cannot be used; empty: it can."""


def load_inversions(inversions: Sequence[TextualInversion], widths: Sequence[int]) -> tuple[LoadedInversion, ...]:
    """Read vectors into memory. What cannot be used is logged, and refused where a prompt names it.

    Args:
        inversions: the files.
        widths: D of each of the model's text encoders.
    """
    loaded = []
    for inversion in inversions:
        fault = inversion.fault_with(widths)
        vectors: tuple[torch.Tensor, ...] = ()
        if not fault:
            vectors, fault = _vectors(inversion)
        if fault:
            logger.warning("a textual inversion cannot be used: %s: %s", inversion.name, fault)
        loaded.append(LoadedInversion(inversion.name, vectors, fault))
    return tuple(loaded)


def _vectors(inversion: TextualInversion) -> tuple[tuple[torch.Tensor, ...], str]:
    """Those of a file, and what is wrong with it."""
    try:
        file = WeightsFile(inversion.path)
        # Copies: a tensor left in the mapping would change when somebody overwrites the file.
        vectors = tuple(
            file.tensor(name).to(torch.float32, copy=True).reshape(-1, width)
            for name, width in zip(inversion.tensors, inversion.widths, strict=True)
        )
    except (ModelLoadError, LookupError, RuntimeError):
        return (), "it is damaged, or not readable"
    if any(len(part) != inversion.num_vectors for part in vectors):
        return (), "it has changed since it was listed"
    if not all(bool(part.isfinite().all()) for part in vectors):
        return (), "it holds numbers that are not finite"
    return vectors, ""
