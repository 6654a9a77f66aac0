"""The short hash that information texts name a model by, as AUTOMATIC1111 does: ten digits of its weights' SHA-256.

Computed once for each file and remembered on the disk: weights may have gigabytes.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from engine.backends.compiled_cache import CACHE_NAME, CompiledCache
from engine.errors import EngineError
from engine.models.layout import find_weights
from engine.models.locate import locate
from server.executors.messages import Configure

__all__ = ["ModelHash", "model_hashes"]

logger = logging.getLogger(__name__)

ModelHash = Callable[[str], str | None]
"""From a model's name, empty for the default one, to its hash; None where it has none."""

_DIGITS: Final = 10


def model_hashes(configuration: Configure, *, prefer_fp16: bool) -> ModelHash:
    """The hashes of one engine's models; each is computed when it is first asked for.

    Of a single file it is that of the whole file, under which other programs and sites know the model; of a folder that
    of the UNet's weights. Fake models and weights in several pieces have none.

    Args:
        configuration: which models there are, and where to remember hashes.
        prefer_fp16: whether the engine reads weights in half precision where there are both.
    """
    models = {"": configuration.model_id, **configuration.models}
    cache = None if configuration.cache_folder is None else CompiledCache(Path(configuration.cache_folder) / CACHE_NAME)

    def digest_of(path: Path) -> str:
        if cache is not None:
            return cache.digest_of(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @functools.cache
    def hash_of(name: str) -> str | None:
        try:
            path = locate(models[name]).path if name in models else None
            if path is None:
                return None
            weights = path if path.is_file() else find_weights(path, "unet", prefer_fp16=prefer_fp16)
            return digest_of(weights)[:_DIGITS] if weights.suffix == ".safetensors" else None
        except (EngineError, OSError) as error:
            logger.warning("the hash of a model cannot be computed: %s", error)
            return None

    return hash_of
