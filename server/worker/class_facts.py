"""What the bytes of this process's pictures depend on beside the request: files of the model, versions, device."""

from __future__ import annotations

import contextlib
import hashlib
import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Final

import torch

from engine.backends.compiled_cache import CACHE_NAME, CompiledCache
from engine.errors import EngineError
from engine.models.locate import locate

__all__ = ["ModelDigest", "begun_model_digest", "versions"]

_PARTS: Final = ("scheduler", "text_encoder*", "tokenizer*", "unet", "vae")
_SUFFIXES: Final = frozenset({".safetensors", ".json", ".txt"})
_SOURCES: Final = ("engine", "server/worker", "server/picture_info")
_PACKAGES: Final = ("torch", "numpy", "openvino", "diffusers", "tokenizers", "isal", "pillow")
_ROOT: Final = Path(__file__).resolve().parents[2]


class ModelDigest:
    """The SHA-256 of a model's files, computed on a thread while the model is loaded."""

    def __init__(self, pool: ThreadPoolExecutor, model_id: str, cache_folder: str | None) -> None:
        self._coming = pool.submit(_model_digest, model_id, cache_folder)

    def get(self) -> str:
        """Wait for it. A model without files has its name; one that cannot be read here has none."""
        try:
            return self._coming.result()
        except (EngineError, OSError):
            return ""


@contextlib.contextmanager
def begun_model_digest(model_id: str, cache_folder: str | None) -> Iterator[ModelDigest]:
    """Begin to read the files: once for each model, where there is a cache; gigabytes take seconds."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="model digest")
    try:
        yield ModelDigest(pool, model_id, cache_folder)
    finally:
        pool.shutdown(wait=False)


def versions(device: torch.device) -> dict[str, str]:
    """Of our sources, the packages that compute or write, and the device's libraries and kind."""
    found = {"sources": _sources_digest()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    if device.type == "cuda":
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]  # torch forgot its types
        found |= {"cuda": str(torch.version.cuda), "cudnn": str(cudnn)}
        return found | {"device": torch.cuda.get_device_name(device)}
    return found | {"device": f"{_processor()} {torch.backends.cpu.get_cpu_capability()}"}


def _model_digest(model_id: str, cache_folder: str | None) -> str:
    path = locate(model_id).path
    if path is None:
        return model_id
    files = [path] if path.is_file() else [file for part in _PARTS for file in path.glob(f"{part}/*")]
    cache = CompiledCache(Path(cache_folder) / CACHE_NAME) if cache_folder is not None else None
    digest = hashlib.sha256()
    for file in sorted(files):
        if file.suffix in _SUFFIXES:
            name = file.name if file == path else f"{file.parent.name}/{file.name}"
            digest.update(f"{name} {_file_digest(file, cache)}\n".encode())
    return digest.hexdigest()


def _file_digest(file: Path, cache: CompiledCache | None) -> str:
    if cache is not None and file.suffix == ".safetensors":
        return cache.digest_of(file)
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for folder in _SOURCES:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _processor() -> str:
    """The CPU's name, as Linux knows it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
