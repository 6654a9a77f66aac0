"""Where on this machine the model with a given id lies. No torch, and never the network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ModelLoadError, ModelNotFoundError
from engine.models.layout import missing_files, read_configs

__all__ = ["FAKE_MODELS", "SAME_MODEL", "ModelFolder", "is_fake_engine", "is_hub_id", "locate"]

FAKE_MODELS = {"fake": (4, 8), "fake-16": (16, 16)}
"""Models without weights, for tests and benchmarks -> latent channels and pixels per latent. The first is built like
Stable Diffusion 1.x, the second like the built-in model."""

_FAKE_ENGINE = re.compile(r"fake-engine(:[0-9]{1,6}){0,2}")
_FAKE_SIZE = 512
_REPOSITORY = Path(__file__).resolve().parents[2]
_BUILT_IN_FOLDER = "models"

SAME_MODEL = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "runwayml/stable-diffusion-v1-5",
}
"""The first repository was taken down, and its community copy holds the same files: either stands for the other."""

# The hub's own rule for a repository's name, which leaves no room for `..`, separators or a drive letter.
_HUB_ID = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[0-9a-f]{40,64}")
_LONGEST_ID = 1024
_SINGLE_FILE = ".safetensors"
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model that is on this machine, whole and of a kind that is served."""

    model_id: str
    """As it was asked for."""
    path: Path | None
    """The folder in diffusers layout, or the single file; None for what is fake."""
    native_height: int
    """Pixels the model was trained at."""
    native_width: int
    pixels_per_latent: int
    """Along each side; every size is a multiple of it."""


def locate(model_id: str, *, cache_dir: Path | None = None) -> ModelFolder:
    """Find a model by the path of its folder or by its Hugging Face id, in the local cache only.

    Args:
        model_id: one of `FAKE_MODELS` or a fake engine's (see `is_fake_engine`); a folder or a `.safetensors` file,
            absolute or relative to the working directory (`models/NAME` also to the repository); or an id such as
            `runwayml/stable-diffusion-v1-5`.
            A folder wins over an id.
        cache_dir: The Hugging Face cache; None is where the library puts it (`HF_HUB_CACHE`, `HF_HOME`).

    Raises:
        ModelNotFoundError: not on this machine, or not all of it; the message says how to fetch it.
        ModelLoadError: it is there but damaged, or of a kind that is not served.
    """
    if model_id in FAKE_MODELS or is_fake_engine(model_id):
        _, pixels_per_latent = FAKE_MODELS.get(model_id, FAKE_MODELS["fake"])
        return ModelFolder(model_id, None, _FAKE_SIZE, _FAKE_SIZE, pixels_per_latent)
    folder = _local_folder(model_id)
    if folder is None:
        folder = _cached_folder(model_id, cache_dir)
    elif not folder.is_file() and (missing := missing_files(folder)):
        raise ModelLoadError(f"{folder} is incomplete (diffusers layout); missing: {', '.join(missing)}")
    configs = read_configs(folder)
    return ModelFolder(
        model_id, folder, configs.native_height, configs.native_width, pixels_per_latent=configs.pixels_per_latent
    )


def is_fake_engine(model_id: str) -> bool:
    """Whether it asks for no engine at all but a script with its times: `fake-engine[:STEP_MS[:LOAD_MS]]`."""
    return _FAKE_ENGINE.fullmatch(model_id) is not None


def is_hub_id(model_id: str) -> bool:
    """Whether it has the form of a Hugging Face id, OWNER/NAME."""
    return _HUB_ID.fullmatch(model_id) is not None


def _local_folder(model_id: str) -> Path | None:
    if not model_id.strip() or len(model_id) > _LONGEST_ID or not model_id.isprintable():
        raise ModelNotFoundError(f"{model_id[:80]!r} is neither a folder nor the id of a model")
    path = Path(model_id).expanduser() if model_id.startswith("~/") else Path(model_id)
    candidates = [path]
    if not path.is_absolute() and path.parts[:1] == (_BUILT_IN_FOLDER,) and ".." not in path.parts:
        candidates.append(_REPOSITORY / path)
    for candidate in candidates:
        try:
            if candidate.is_dir() or (candidate.suffix == _SINGLE_FILE and candidate.is_file()):
                return candidate.resolve()
        except OSError:  # a name that this file system cannot have is no folder
            continue
    return None


def _cached_folder(model_id: str, cache_dir: Path | None) -> Path:
    if model_id.lower().endswith(_SINGLE_FILE):
        raise ModelNotFoundError(f"there is no file {model_id!r}")
    if model_id.lower().endswith(_PICKLES):
        raise ModelNotFoundError(
            f"{model_id!r}: such files can run code when they are opened, so only .safetensors is read; get the "
            "model's safetensors version"
        )
    if not is_hub_id(model_id):
        raise ModelNotFoundError(f"there is no folder {model_id!r}, and an id has the form OWNER/NAME")
    cache = _default_cache() if cache_dir is None else cache_dir
    missing: list[str] = []
    for candidate in filter(None, (model_id, SAME_MODEL.get(model_id))):
        snapshot = _snapshot(cache, candidate)
        if snapshot is None:
            continue
        found_missing = missing_files(snapshot)
        if not found_missing:
            return snapshot
        missing = missing or found_missing
    fetch = f"python scripts/download_model.py {model_id}"
    if missing:
        raise ModelNotFoundError(
            f"{model_id} is only partly in the cache {cache}; missing: {', '.join(missing)}. "
            f"Fetch the rest with: {fetch}"
        )
    raise ModelNotFoundError(
        f"{model_id} is neither a folder nor in the cache {cache}. Only Stable Diffusion 1, 2 and XL are served."
        f" If it is one, fetch it with: {fetch}"
    )


def _snapshot(cache: Path, model_id: str) -> Path | None:
    """The folder of the model's main revision, or of its only one.

    By hand, because the library's own look-up imports its HTTP client (240 ms, 25 MB), which the gateway does
    without. Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    repository = cache / f"models--{model_id.replace('/', '--')}"
    snapshots = repository / "snapshots"
    try:
        revision = (repository / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        revision = ""
    if _REVISION.fullmatch(revision) and (snapshots / revision).is_dir():
        return snapshots / revision
    # Fetched by a branch such as `fp16`, there is no main.
    others = [path for path in snapshots.iterdir() if path.is_dir()] if snapshots.is_dir() else []
    return others[0] if len(others) == 1 else None


def _default_cache() -> Path:
    # The library owns the rules (HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME), which it reads when this is imported.
    from huggingface_hub import constants  # noqa: PLC0415 - not needed where a folder is given

    return Path(constants.HF_HUB_CACHE)
