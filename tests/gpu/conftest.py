"""What the tests of a real GPU share. Where torch can use none, they skip and say so."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.models.locate import locate
from engine.models.random_model import make_random_model
from engine.models.stable_diffusion import StableDiffusion
from tests.gpu.wishes import DREAMLET

Load = Callable[[str], StableDiffusion]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} finds no GPU that it can use")


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny` and `sd15` in random weights, `dreamlet` trained.

    `SD15_FOLDER` may name a folder for `sd15`, since making one takes a minute and 2.1 GB; trained weights do as well.
    """
    made: dict[str, Path] = {"dreamlet": DREAMLET}
    if "SD15_FOLDER" in os.environ:
        made["sd15"] = Path(os.environ["SD15_FOLDER"])

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("models") / name
            make_random_model(made[name], arch=name, seed=1, dtype=torch.float16 if name == "sd15" else torch.float32)
        return made[name]

    return folder


@pytest.fixture(scope="session")
def half(model_folder: Callable[[str], Path], device: torch.device) -> Load:
    """A model by name, on the GPU, in float16."""
    loaded: dict[str, StableDiffusion] = {}

    def load(name: str) -> StableDiffusion:
        if name not in loaded:
            loaded[name] = StableDiffusion.load(locate(str(model_folder(name))), device, torch.float16)
        return loaded[name]

    return load
