"""Whether the GPU's benchmark runs, on a CPU: what it measures here is worth nothing, that it can be measured is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.device.clock import Marks, seconds_per_call
from benchmarks.device.contenders import fitting, make_requests
from benchmarks.device.limits import PictureFlop
from engine.models.random_model import make_random_model

REPOSITORY = Path(__file__).parents[2]
CPU = torch.device("cpu")


def test_every_part_is_measured_on_a_cpu_too():
    options = "--device=cpu --arch=tiny --steps=2 --calls=2 --repeats=1 --requests=1,3 --rows=1,2,32 --matrix-size=64"
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *options.split()],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout.splitlines()[-1])
    results = document["results"]
    assert results["device"]["name"] == "CPU"
    assert results["limit"]["floor_s"] > 0
    assert [point["rows"] for point in results["parts"]["rows"]] == [1, 2, 32]
    assert results["parts"]["chosen_rows"] == [2, 2, 2]
    assert [step["num_images"] for step in results["parts"]["steps"]] == [1, 16]
    assert set(results["latency"]) == {"engine, 2 rows", "diffusers"}
    assert [(point["requests"], point["who"]) for point in results["throughput"]] == [
        (count, who) for count in (1, 3) for who in ("engine", "diffusers")
    ]
    assert all(point["pictures_per_s"] > 0 and point["p95_s"] >= point["mean_s"] for point in results["throughput"])
    assert [goal["limit"] for goal in document["goals"]] == [0.02, 1.0]


def test_a_picture_of_stable_diffusion_takes_the_operations_that_the_documents_name(tmp_path: Path):
    """Counted without weights: 800.3 GFLOP a row, 2514.5 a decode, 47.3 TFLOP a picture of 28 guided steps."""
    make_random_model(tmp_path, arch="tiny")
    full_size = {
        "unet": {
            "_class_name": "UNet2DConditionModel",
            "sample_size": 64,
            "block_out_channels": [320, 640, 1280, 1280],
            "layers_per_block": 2,
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
            "in_channels": 4,
        },
        "vae": {
            "_class_name": "AutoencoderKL",
            "latent_channels": 4,
            "block_out_channels": [128, 256, 512, 512],
            "layers_per_block": 2,
            "down_block_types": 4 * ["DownEncoderBlock2D"],
            "up_block_types": 4 * ["UpDecoderBlock2D"],
        },
    }
    for part, config in full_size.items():
        (tmp_path / part / "config.json").write_text(json.dumps(config))
    text_encoder = tmp_path / "text_encoder" / "config.json"
    text_encoder.write_text(json.dumps(json.loads(text_encoder.read_text()) | {"hidden_size": 768}))
    flop = PictureFlop(tmp_path, height=512, width=512)
    assert flop.unet_row == pytest.approx(800.3e9, rel=1e-3)
    assert flop.decode == pytest.approx(2514.5e9, rel=1e-3)
    assert flop.picture(28) == pytest.approx(47.33e12, rel=1e-3)


def test_marks_measure_from_each_to_the_next():
    marks = Marks(CPU)
    for _ in range(3):
        marks.mark()
    assert len(marks.seconds()) == 2
    assert all(seconds >= 0 for seconds in marks.seconds())


def test_warming_up_is_not_timed():
    calls: list[int] = []
    seconds_per_call(CPU, lambda: calls.append(1), calls=3)
    assert len(calls) == 5


def test_who_runs_out_of_memory_draws_no_pictures_from_then_on():
    tries: list[int] = []

    def contender(requests):
        tries.append(len(requests))
        raise torch.OutOfMemoryError

    drawn = fitting(contender)
    requests = make_requests(2, num_inference_steps=1, height=64, width=64)
    assert drawn(requests).finished_s == []
    assert drawn(requests).finished_s == []
    assert tries == [2]
