"""Networks that left the device wait in host memory, by use, and draw the same when they are back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.backends.base import NetworkFiles
from engine.backends.kept_networks import KeptNetworks
from engine.engine import Engine
from engine.models.locate import locate
from engine.models.random_model import make_random_model
from engine.models.stable_diffusion import StableDiffusion
from tests.engine.drawing import Params, add_all, images, run
from tests.engine.rehearsed_gpu import DEVICE, RehearsedGpu, rehearsed_gpu

CPU = torch.device("cpu")


class Files:
    """Networks of 400 bytes in files, and how often each is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reads: list[str] = []

    def network(self, name: str) -> NetworkFiles:
        path = self.folder / name
        if not path.exists():
            path.write_bytes(name.encode())

        def load() -> torch.nn.Module:
            self.reads.append(name)
            return torch.nn.Linear(10, 10, bias=False)

        return NetworkFiles(name=name, config={}, weights=path, load=load)


def test_what_left_longest_ago_is_read_from_its_file_again(tmp_path: Path):
    files, kept = Files(tmp_path), KeptNetworks(CPU, budget_bytes=800)
    for model in "abc":
        kept.backend_for(model).functions(files.network(model), {"forward": lambda _: ...})
    for model in "abc":
        kept.leave(model)
    assert kept.num_bytes == 800
    for model in "cba":
        kept.backend_for(model).functions(files.network(model), {"forward": lambda _: ...})
    assert files.reads == ["a", "b", "c", "a"]
    assert kept.num_bytes == 0
    kept.leave("nobody")


def test_nothing_is_kept_that_does_not_fit_and_a_file_that_has_changed_is_read(tmp_path: Path):
    files = Files(tmp_path)
    for budget, reads in ((399, ["a", "a", "a"]), (400, ["a", "a"])):
        files.reads.clear()
        kept = KeptNetworks(CPU, budget_bytes=budget)
        for step in range(3):
            if step == 2:
                os.utime(tmp_path / "a", ns=(1, budget))
            kept.backend_for("a").functions(files.network("a"), {"forward": lambda _: ...})
            kept.leave("a")
        assert files.reads == reads


@pytest.fixture
def gpu() -> Iterator[RehearsedGpu]:
    with rehearsed_gpu() as gpu:
        yield gpu


def test_a_model_draws_the_same_after_it_has_waited_in_host_memory(gpu: RehearsedGpu, tmp_path: Path, params: Params):
    make_random_model(tmp_path / "model", seed=3)
    kept = KeptNetworks(DEVICE, budget_bytes=2**30)
    drawn = []
    for step in range(2):
        with torch.inference_mode():
            model = StableDiffusion.load(
                locate(str(tmp_path / "model")), DEVICE, torch.float16, kept.backend_for("model")
            )
        if step == 1:
            assert kept.num_bytes == 0
        engine = Engine(model)
        add_all(engine, [params()])
        drawn.append(images(run(engine)))
        del engine, model
        kept.leave("model")
        for name in ("unet", "vae", "text_encoder"):  # what is in host memory needs no file
            path = next((tmp_path / "model" / name).glob("*.safetensors"))
            stat = path.stat()
            path.write_bytes(bytes(stat.st_size))
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert drawn[0] == drawn[1]
    assert len(gpu.operations) > 100
