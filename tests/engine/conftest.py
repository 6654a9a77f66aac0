"""What the engine's tests share: a way to ask for pictures, and models small enough to draw in milliseconds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from engine.backends.compiled_cache import CompiledCache
from engine.models.locate import locate
from engine.models.random_model import make_random_model
from engine.models.stable_diffusion import StableDiffusion
from engine.params import GenerationParams
from tests.engine.drawing import Params, alone


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Where other processes want the same cores, threads that wait for each other make steps a hundred times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def params() -> Params:
    """A small guided request; a test states only what matters to it."""

    def make(**wishes: object) -> GenerationParams:
        ordinary = {"prompt": "a cat", "seed": 7, "num_inference_steps": 4, "height": 64, "width": 64}
        return GenerationParams(**(ordinary | wishes))

    return make


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion of random weights, with the full-size autoencoder class."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_random_model(folder, arch="tiny", seed=1)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_model_folder: Path) -> StableDiffusion:
    return StableDiffusion.load(locate(str(tiny_model_folder)), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def dreamlet() -> StableDiffusion:
    """The built-in model."""
    return StableDiffusion.load(locate("models/dreamlet"), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def on_openvino(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], StableDiffusion]:
    """The same networks by OpenVINO, read from a warm cache as a server does; a model's id -> it."""
    openvino_backend = pytest.importorskip("engine.backends.openvino_backend", exc_type=ImportError)
    cache = CompiledCache(tmp_path_factory.mktemp("openvino"))

    @functools.cache
    def load(model_id: str) -> StableDiffusion:
        def once() -> StableDiffusion:
            backend = openvino_backend.OpenVinoBackend(1, cache)
            return StableDiffusion.load(locate(model_id), torch.device("cpu"), torch.float32, backend)

        once()
        return once()

    return load


@pytest.fixture(scope="session")
def tiny_openvino(tiny_model_folder: Path, on_openvino: Callable[[str], StableDiffusion]) -> StableDiffusion:
    return on_openvino(str(tiny_model_folder))


@pytest.fixture(scope="session")
def dreamlet_openvino(on_openvino: Callable[[str], StableDiffusion]) -> StableDiffusion:
    return on_openvino("models/dreamlet")


@pytest.fixture
def mixed(params: Params) -> list[GenerationParams]:
    """Twelve requests that differ in everything that may differ."""
    samplers = [("DPMSolver++", "karras"), ("Euler", "default"), ("Euler a", "default"), ("DDIM", "default")]
    return [
        params(
            prompt=f"picture {i}",
            negative_prompt=f"not {i}",
            seed=i,
            sampler=samplers[i % 4][0],
            noise_schedule=samplers[i % 4][1],
            num_inference_steps=3 + i % 5,
            guidance_scale=(1.0, 4.0, 7.5)[i % 3],
            height=(64, 72)[i % 2],
        )
        for i in range(12)
    ]


@pytest.fixture
def lonely(mixed: list[GenerationParams]) -> dict[tuple[str, int], bytes]:
    return {(str(index), 0): alone(request) for index, request in enumerate(mixed)}
