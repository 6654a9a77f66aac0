"""Fetch a model from the Hugging Face hub into the ordinary local cache, where the server finds it by its id.

    python scripts/download_model.py stable-diffusion-v1-5/stable-diffusion-v1-5 --variant fp16
    python scripts/download_model.py OWNER/NAME --file model.safetensors --output var/models

With `--file` it fetches one checkpoint into a folder. The only place in this project that uses the network. It fetches
what the server reads and nothing else: configurations, tokenizer, and the weights as safetensors.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

# Started by its path, Python looks for modules beside this file and not in the repository.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx2
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from engine.errors import EngineError
from engine.models.layout import WEIGHTS_STEM
from engine.models.locate import SAME_MODEL, is_hub_id, locate

SMALL_FILES = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    *(
        f"{part}/{name}"
        for part in ("tokenizer", "tokenizer_2")
        for name in ("merges.txt", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.json")
    ),
    "unet/config.json",
    "vae/config.json",
)


class CannotDownloadError(Exception):
    """Says in one line why, and what to do."""


def main() -> int:
    """Read the command line, fetch, check; 0 if the server can use the model now."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_id", metavar="ID", help="OWNER/NAME, as in stable-diffusion-v1-5/stable-diffusion-v1-5")
    parser.add_argument("--variant", choices=("fp16",), help="half the size, all that a GPU needs; if it is there")
    parser.add_argument("--file", metavar="NAME.safetensors", help="fetch this one checkpoint of the repository")
    parser.add_argument("--output", type=Path, default=Path("var/models"), help="where it goes (default: %(default)s)")
    options = parser.parse_args()
    try:
        if options.file is None:
            download(options.model_id, functools.partial(_fetch, prefer_fp16=options.variant == "fp16"))
            found = locate(options.model_id)
        else:
            found = locate(str(download_file(options.model_id, options.file, options.output)))
    except (CannotDownloadError, EngineError) as error:
        print(f"download_model: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndownload_model: interrupted; the same command goes on where this one stopped", file=sys.stderr)
        return 130
    print(f"{found.model_id} is in {found.path}\nServe it with: MODEL_ID={found.model_id}")
    return 0


def download_file(model_id: str, name: str, folder: Path) -> Path:
    """Fetch one checkpoint.

    Raises:
        CannotDownloadError: in one readable line.
    """
    if not name.endswith(".safetensors"):
        raise CannotDownloadError(f"{name!r} must end in .safetensors: other files can run code when they are opened")
    download(model_id, lambda repository: _fetch_into(repository, [name], folder))
    return folder / name


def download(model_id: str, fetch: Callable[[str], None]) -> None:
    """Fetch from a repository.

    Args:
        model_id: OWNER/NAME.
        fetch: what is called with it, or with the repository that holds the same files.

    Raises:
        CannotDownloadError: in one readable line.
    """
    if not is_hub_id(model_id):
        raise CannotDownloadError(f"{model_id!r} is no id; it has the form OWNER/NAME")
    try:
        try:
            fetch(model_id)
        except GatedRepoError:  # a kind of RepositoryNotFoundError
            raise
        except RepositoryNotFoundError:
            if model_id not in SAME_MODEL:
                raise
            print(f"{model_id} is not on the hub; fetching {SAME_MODEL[model_id]}, which holds the same files")
            fetch(SAME_MODEL[model_id])
    except GatedRepoError as error:
        raise CannotDownloadError(
            f"{model_id} is gated: accept its licence on the hub's page and set HF_TOKEN, then try again"
        ) from error
    except RepositoryNotFoundError as error:
        raise CannotDownloadError(
            f"the hub has no model {model_id}, or it is private and HF_TOKEN is not set"
        ) from error
    except OfflineModeIsEnabled as error:
        raise CannotDownloadError(
            "HF_HUB_OFFLINE is set, which forbids downloads; unset it for this command"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError) as error:
        raise CannotDownloadError(
            f"the hub cannot be reached or did not answer as it should: {_in_a_line(error)}"
        ) from error
    except OSError as error:
        raise CannotDownloadError(f"the files cannot be written: {_in_a_line(error)}") from error


def _fetch_into(model_id: str, names: list[str], folder: Path) -> None:
    for name in names:
        try:
            hf_hub_download(model_id, name, local_dir=folder)
        except EntryNotFoundError as error:
            raise CannotDownloadError(f"{model_id} has no file {name}") from error


def _fetch(model_id: str, *, prefer_fp16: bool) -> None:
    files = [sibling.rfilename for sibling in HfApi().model_info(model_id).siblings or []]
    # The names hold none of the characters that make a pattern of them.
    snapshot_download(model_id, allow_patterns=choose_files(files, prefer_fp16=prefer_fp16))


def choose_files(files: list[str], *, prefer_fp16: bool) -> list[str]:
    """Of a repository's files those that the server needs.

    Raises:
        CannotDownloadError: there is no safetensors file for some part of the model.
    """
    chosen = [name for name in SMALL_FILES if name in files]
    for part, stem in WEIGHTS_STEM.items():
        if part == "text_encoder_2" and f"{part}/config.json" not in files:
            continue  # only Stable Diffusion XL has it
        variants = [f"{part}/{stem}.safetensors", f"{part}/{stem}.fp16.safetensors"]
        found = [name for name in variants if name in files]
        if not found:
            raise CannotDownloadError(
                f"the repository has no {variants[0]}: it is not in diffusers layout, or has its weights only in files "
                "that can run code when they are opened"
            )
        chosen.append(found[-1] if prefer_fp16 else found[0])
    return chosen


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
