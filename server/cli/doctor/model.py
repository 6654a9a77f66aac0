"""Model checks: complete, readable, fits into memory? Reads the headers of its files, no weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from engine.errors import EngineError
from engine.models.layout import WEIGHTS_STEM
from engine.models.locate import locate
from server.cli.doctor.finding import Finding, gib
from server.cli.doctor.machine import available_memory_bytes

__all__ = ["fault_of_safetensors", "look_at_model"]

_HEADER_LENGTH = struct.Struct("<Q")
_LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""


def look_at_model(model_id: str) -> Iterator[Finding]:
    """Look at the files of the setting MODEL_ID."""
    try:
        folder = locate(model_id).path
    except EngineError as error:
        yield Finding("model", "FAIL", str(error), "see MODEL_ID in docs/configuration.md")
        return
    if folder is None:
        yield Finding("model", "warn", f"{model_id} draws no real pictures", "unset MODEL_ID for the built-in model")
        return
    files = [path for part in WEIGHTS_STEM for path in sorted((folder / part).glob("*.safetensors"))]
    faults = [(path, fault) for path in files if (fault := fault_of_safetensors(path)) is not None]
    for path, fault in faults:
        yield Finding("model", "FAIL", f"{path.relative_to(folder)} {fault}", "download the model again")
    if not faults:
        yield _size(model_id, sum(path.stat().st_size for path in files))


def fault_of_safetensors(path: Path) -> str | None:
    """What is wrong with a weights file, as far as its header and its length show; None: nothing.

    Format: https://huggingface.co/docs/safetensors/index#format
    """
    try:
        num_bytes = path.stat().st_size
        with path.open("rb") as file:
            (header_bytes,) = _HEADER_LENGTH.unpack(file.read(_HEADER_LENGTH.size))
            if header_bytes > min(_LONGEST_HEADER, num_bytes):
                return "is not a safetensors file (a Git LFS pointer or a web page?)"
            header = json.loads(file.read(header_bytes))
        data_bytes = max(
            (tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"), default=0
        )
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "is damaged: its header cannot be read"
    wanted = _HEADER_LENGTH.size + header_bytes + data_bytes
    return None if num_bytes == wanted else f"is damaged: it has {num_bytes:,} bytes, and should have {wanted:,}"


def _size(model_id: str, num_bytes: int) -> Finding:
    available = available_memory_bytes()
    found = f"{model_id} is complete: {num_bytes / 2**20:,.0f} MiB of weights"
    if available is not None and available < num_bytes:
        return Finding("model", "warn", f"{found}, and only {gib(available)} of memory available", "free some memory")
    return Finding("model", "ok", found)
