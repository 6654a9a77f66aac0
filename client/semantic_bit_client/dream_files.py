"""What `dream` does without drawing: `dream info FILE`, `dream upscale FILE`, and the list of models."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from semantic_bit_client.client import Client
from semantic_bit_client.models import Model

__all__ = ["FILE_COMMANDS", "add_file_arguments", "list_of_models"]


def add_file_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    """What the command takes, beside what every command takes."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a PNG, JPEG or WebP file")
    if command == "upscale":
        parser.add_argument("--scale", type=float, help="how much larger, 1 to 4 (default: 2)")


def list_of_models(client: Client, *, as_json: bool) -> str:
    """The models that `--model` may name."""
    models = client.models()
    if as_json:
        return json.dumps([dataclasses.asdict(model) for model in models])
    return "\n".join(_line_of(model) for model in models)


def _line_of(model: Model) -> str:
    size = f"{model.width}x{model.height}, {model.num_inference_steps} steps"
    return f"{model.id} ({model.family}, {size}{', default' if model.is_default else ''})"


def _info(client: Client, options: argparse.Namespace) -> str:
    info = client.image_info(options.file)
    if options.json:
        return json.dumps(dataclasses.asdict(info))
    return info.parameters or f"{options.file} does not say how it was drawn"


def _upscale(client: Client, options: argparse.Namespace) -> str:
    file = options.output or options.file.with_name(f"{options.file.stem}-large.png")
    picture = client.upscale(options.file, scale=options.scale, output_format=options.output_format)
    picture.save(file)
    return json.dumps({"job_id": picture.job_id, "file": str(file)}) if options.json else str(file)


FILE_COMMANDS: Final[Mapping[str, Callable[[Client, argparse.Namespace], str]]] = {"info": _info, "upscale": _upscale}
"""Name -> what it does; it returns what is printed."""
