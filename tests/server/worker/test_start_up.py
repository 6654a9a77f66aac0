"""What a start costs: which libraries are imported on the way to the first picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]

FIRST_PICTURE = """
import hashlib, json, sys
from engine.params import GenerationParams
from server.executors.messages import Configure
from server.worker.engine_worker import EngineWorker  # as the engine process imports it
from server.worker.start_up import start_engine
from server.worker.image_files import encode_image
from engine.events import Failed, ImageDrawn

model_id, cache_folder = sys.argv[1:]
configuration = Configure(
    model_id=model_id, device="cpu", dtype="float32", cache_folder=cache_folder, warms_up_first=False
)
engine, info = start_engine(configuration, lambda message: None)
size = {"height": info.native_height, "width": info.native_width}
wish = GenerationParams(prompt="a cat", seed=1, sampler="DPMSolver++", noise_schedule="karras", **size)
engine.add(engine.prepare("first", wish, wants_previews=True))
drawn = []
while engine.has_work:
    for event in engine.step():
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, ImageDrawn):
            drawn.append(hashlib.sha256(encode_image(event.pixels, "png").data).hexdigest())
heavy = {"diffusers", "transformers", "accelerate", "scipy", "huggingface_hub", "sympy", "torch._dynamo"}
heavy |= {"engine.backends.conversion"}
print(json.dumps([drawn, sorted(heavy & sys.modules.keys())]))
"""


def first_picture(model_id: str, cache_folder: Path) -> tuple[str, list[str]]:
    """Its file's SHA-256, and which of the heavy modules were imported on the way to it."""
    ended = subprocess.run(
        [sys.executable, "-c", FIRST_PICTURE, model_id, str(cache_folder)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # threads that wait for each other take minutes on a busy machine
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    [drawn], imported = json.loads(ended.stdout.splitlines()[-1])
    return drawn, imported


@pytest.mark.parametrize("model_id", ["fake", "models/dreamlet"])
def test_a_second_start_draws_the_same_file_without_the_libraries_it_compares_with(tmp_path: Path, model_id: str):
    """
    The first start of all may import diffusers, for the sampler's table alone; it keeps it for the others. What is
    converted for OpenVINO then is converted in another process.
    """
    drawn, imported = first_picture(model_id, tmp_path)
    assert "diffusers" in imported
    assert not {"transformers", "engine.backends.conversion"} & set(imported)
    assert first_picture(model_id, tmp_path) == (drawn, [])
