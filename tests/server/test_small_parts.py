"""Parts that are easier to ask directly: the fake engine, the headers Accept and Prefer, the log set-up."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import subprocess
import sys
import zlib

import httpx2
import pytest
import structlog

from engine.params import Expand, GenerationParams, Hires, InputImage, MaskWish
from engine.prompts.prompt import ChosenTexts
from server.routes.negotiation import preferred, preferred_wait_s
from server.worker.fake_pictures import fake_png


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "image/png"),
        ("*/*", "image/png"),
        ("application/json;q=1.0, */*;q=0.1", "application/json"),
        ("image/png;q=0.1, image/*;q=0.9, application/json;q=0.5", "application/json"),
        ("IMAGE/PNG", "image/png"),
        ("image/png;q=2", None),
        ("text/html", None),
        (",,;;,", None),
        ("*/*;q=0", None),
    ],
)
def test_the_most_specific_range_decides_and_the_servers_order_breaks_ties(accept, expected):
    assert preferred(accept, ["image/png", "application/json"]) == expected


@pytest.mark.parametrize(
    ("prefer", "expected"),
    [
        ([], None),
        (["wait=5"], 5.0),
        (["respond-async, Wait = 10"], 10.0),
        (["respond-async", 'wait="0"'], 0.0),
        (["wait=3; x=1, wait=4"], 3.0),
        (["wait=-1"], None),
        (["wait=1e9"], None),
        (["waiting=5"], None),
    ],
)
def test_how_long_a_client_waits_is_read_and_nonsense_is_ignored(prefer, expected):
    assert preferred_wait_s(prefer) == expected


def test_a_fake_picture_is_a_valid_png():
    wish = {"prompt": "a cat", "seed": 1}
    data = fake_png(GenerationParams(**wish))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    (length,) = struct.unpack(">I", data[33:37])
    assert data[37:41] == b"IDAT"
    assert len(zlib.decompress(data[41 : 41 + length])) == 8 * (8 * 3 + 1)
    assert fake_png(GenerationParams(**wish)) == data


IMAGE = InputImage(sha256="0" * 64, width=64, height=64)
OTHER_WISHES = {
    "prompt": "a dog",
    "negative_prompt": "fog",
    "num_inference_steps": 7,
    "guidance_scale": 3.0,
    "prompt_syntax": "weighted",
    "emphasis": "no_norm",
    "clip_skip": 1,
    "chosen_texts": (ChosenTexts(prompt="a dog"),),
    "guidance_rescale": 0.5,
    "guidance_start": 0.25,
    "guidance_end": 0.75,
    "height": 256,
    "width": 256,
    "seed": 2,
    "sampler": "TCD",
    "noise_schedule": "leading",
    "eta": 0.5,
    "model": "another",
    "size_ids": (1024, 768, 0, 16, 512, 640),
    "image": IMAGE,
    "strength": 0.5,
    "resize": "crop",
    "mask": MaskWish(image=IMAGE),
    "expand": Expand(left=8),
    "variation_seed": 9,
    "variation_strength": 0.5,
    "hires": Hires(width=1024, height=1024, steps=4, strength=0.5),
    "upscaler": "lanczos",
}


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(GenerationParams)])
def test_a_fake_picture_depends_on_every_field_of_the_request(name):
    """A field that is added has to be added here."""
    if name == "num_images":
        pytest.skip("picture i of many is drawn as if it was asked for alone")
    usual = GenerationParams(prompt="a cat", seed=1, sampler="DDIM", noise_schedule="default")
    if name in {"strength", "resize", "mask", "expand", "upscaler"}:
        usual = dataclasses.replace(usual, image=IMAGE)
    if name == "variation_strength":
        usual = dataclasses.replace(usual, variation_seed=1)
    other = {name: OTHER_WISHES[name]} | ({"noise_schedule": "default"} if name == "sampler" else {})
    changed = dataclasses.replace(usual, **other)
    assert fake_png(changed) != fake_png(usual)


def test_one_line_a_request_with_what_was_drawn_and_never_the_prompt(serve):
    with structlog.testing.capture_logs() as lines:
        running = serve()
        with httpx2.Client(base_url=running.url) as client:
            client.post("/generate", json={"prompt": "my secret dream", "seed": 5, "num_inference_steps": 3})
            client.post("/generate", json={"prompt": "my secret dream\u0000", "seed": 5})
            client.post("/generate", json={"prompt": ["my secret dream"]})
            client.get("/my%20secret?prompt=secret-dream")
        running.stop()
    assert "secret dream" not in json.dumps(lines)
    assert "secret-dream" not in json.dumps(lines)
    drawn, *refused = [line for line in lines if line["event"] == "request"]
    assert (drawn["method"], drawn["path"], drawn["status"]) == ("POST", "/generate", 200)
    assert (drawn["seed"], drawn["steps"], drawn["size"], drawn["sampler"]) == (5, 3, "512x512", "DPMSolver++")
    assert drawn["server_timing"].keys() == {"queue", "encode", "denoise", "decode", "png"}
    assert drawn["duration_ms"] >= drawn["server_timing"]["queue"]
    assert [(line["status"], line["code"]) for line in refused] == [
        (422, "invalid_request"), (422, "invalid_request"), (404, "not_found"),
    ]  # fmt: skip


def test_requests_to_engines_elsewhere_are_not_logged_one_by_one():
    source = (
        "import logging\n"
        "from server.log_format import configure_logging\n"
        "configure_logging('info', 'json')\n"
        "logging.getLogger('httpx2').info('HTTP Request: GET /engine/v1/info')\n"
        "logging.getLogger('httpx2').warning('a warning')\n"
    )
    written = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stderr
    assert "a warning" in written
    assert "HTTP Request" not in written


@pytest.mark.parametrize("log_format", ["json", "pretty"])
def test_our_lines_and_other_peoples_share_one_format(log_format):
    program = (
        "import logging, structlog\n"
        "from server.log_format import configure_logging\n"
        f"configure_logging('info', {log_format!r})\n"
        "structlog.get_logger('server').info('ours', seed=1)\n"
        "structlog.get_logger('server').debug('too much')\n"
        "logging.getLogger('uvicorn.error').warning('theirs %d', 2)\n"
        "logging.getLogger('uvicorn.access').info('not this')\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        text=True,
        timeout=20,
        env={**os.environ, "NO_COLOR": "1"},
    )
    ours, theirs = finished.stderr.splitlines()
    if log_format == "json":
        assert json.loads(ours).items() >= {"event": "ours", "seed": 1, "level": "info", "logger": "server"}.items()
        assert json.loads(theirs).items() >= {"event": "theirs 2", "level": "warning"}.items()
    else:
        assert "ours" in ours
        assert "seed" in ours
        assert "theirs 2" in theirs
