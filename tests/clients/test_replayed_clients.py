"""What programs send that cannot be installed here, or bring too much: their requests as their sources write them.

LangChain and litellm are packages, but with seventy dependencies between them, which conflict with ours; what they send
follows the sources of langchain-community 0.4.2 and litellm 1.110.2. (`make test-clients` drives the server with the
packages themselves.) The others are not on PyPI.
"""

from __future__ import annotations

import base64
import json
import threading
from typing import Any

import httpx2
import pytest

from server.worker.fake_executor import FakeExecutor
from tests.server.uploads.picture_files import png


@pytest.fixture(scope="module")
def running(module_serve):
    return module_serve(FakeExecutor(max_images_in_flight=8))


@pytest.fixture(scope="module")
def client(running):
    with httpx2.Client(base_url=running.url, timeout=60) as client:
        yield client


GENERATIONS: list[tuple[str, dict[str, Any], str]] = [
    ("Open WebUI", {"model": "gpt-image-1", "prompt": "a cat", "n": 1, "size": "512x512"}, "b64_json"),
    ("Open WebUI with another model", {"model": "fake", "prompt": "a cat", "n": 2, "size": "512x512",
                                       "response_format": "b64_json"}, "b64_json"),
    ("LibreChat's image tools", {"model": "gpt-image-1", "prompt": "a cat", "n": 1, "background": "auto",
                                 "quality": "auto", "size": "auto", "output_format": "png"}, "b64_json"),
    ("LibreChat's DALL-E 3", {"model": "dall-e-3", "prompt": "a cat", "quality": "standard", "style": "vivid",
                              "size": "1024x1024", "n": 1}, "url"),
    ("Nextcloud", {"prompt": "a cat", "size": "512x512", "n": 2, "model": "fake"}, "b64_json"),
    ("n8n", {"prompt": "a cat", "model": "gpt-image-1", "n": 1, "size": "1024x1024", "quality": "medium"}, "b64_json"),
    ("n8n with an older name", {"prompt": "a cat", "model": "dall-e-2", "n": 1, "size": "512x512",
                                "response_format": "b64_json"}, "b64_json"),
    ("Home Assistant", {"model": "fake", "prompt": "a cat", "response_format": "b64_json"}, "b64_json"),
    ("LangChain", {"prompt": "a cat", "model": "dall-e-2", "n": 1, "size": "1024x1024"}, "url"),
    ("litellm", {"model": "fake", "prompt": "a cat", "n": 1, "size": "512x512"}, "b64_json"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "key"), [case[1:] for case in GENERATIONS], ids=[case[0] for case in GENERATIONS])
def test_a_generation_is_answered_as_its_program_reads_it(client, body, key):
    headers = {"Authorization": "Bearer none", "Accept": "application/json"}
    answer = client.post("/v1/images/generations?api-version=2025-04-01", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    entries = answer.json()["data"]
    assert [entry.keys() for entry in entries] == [{key}] * body.get("n", 1)
    for entry in entries:
        file = base64.b64decode(entry[key]) if key == "b64_json" else httpx2.get(entry[key]).content
        assert file.startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["image", "image[]"])
def test_an_edit_as_open_webui_librechat_and_litellm_send_it(client, running, name):
    fields = {"model": "gpt-image-1", "prompt": "a hat", "n": "1", "size": "128x64"}
    files = {name: ("image.png", png(64, 128), "application/octet-stream")}
    answer = client.post("/v1/images/edits", data=fields, files=files)
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0].keys() == {"b64_json"}
    assert running.executor.started[-1].params.width == 128


def test_open_webui_with_a1111(client):
    headers = {"authorization": "Basic " + base64.b64encode(b"").decode() + "Og=="}
    options = client.get("/sdapi/v1/options", headers=headers).json()
    models = client.get("/sdapi/v1/sd-models", headers=headers).json()
    assert options["sd_model_checkpoint"] in [model["title"] for model in models]
    assert client.post("/sdapi/v1/options", json=options, headers=headers).status_code == 200
    body = {"prompt": "a cat", "batch_size": 2, "width": 512, "height": 512, "steps": 4, "negative_prompt": "fog"}
    answer = client.post("/sdapi/v1/txt2img", json=body, headers=headers).json()
    assert len(answer["images"]) == 2
    assert answer["info"]


def test_sillytavern(client, running):
    for path in ("samplers", "schedulers", "sd-models", "upscalers", "latent-upscale-modes", "sd-vae", "options"):
        assert client.get(f"/sdapi/v1/{path}").status_code == 200, path
    body = {
        "url": "http://127.0.0.1:7860",
        "auth": "user:password",
        "prompt": "a cat",
        "negative_prompt": "fog",
        "sampler_name": "DPM++ 2M Karras",
        "scheduler": "karras",
        "steps": 20,
        "cfg_scale": 7,
        "width": 512,
        "height": 512,
        "restore_faces": False,
        "enable_hr": False,
        "hr_upscaler": "Latent",
        "hr_scale": 2,
        "denoising_strength": 0.7,
        "hr_second_pass_steps": 0,
        "seed": -1,
        "override_settings": {"CLIP_stop_at_last_layers": 1},
        "override_settings_restore_afterwards": True,
        "clip_skip": 1,
        "save_images": True,
        "send_images": True,
        "do_not_save_grid": False,
        "do_not_save_samples": False,
    }
    answer = client.post("/sdapi/v1/txt2img", json=body, headers={"Authorization": "Basic Og=="})
    assert answer.status_code == 200, answer.text
    assert "password" not in answer.text
    assert base64.b64decode(answer.json()["images"][0]).startswith(b"\x89PNG")
    assert client.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0


def test_sillytavern_that_goes_away_leaves_nothing_running(serve):
    running = serve(FakeExecutor(step_s=0.05))
    with httpx2.Client(base_url=running.url, timeout=60) as client:
        gone = threading.Event()

        def begin_and_go():
            with httpx2.Client(base_url=running.url, timeout=0.5) as impatient, pytest.raises(httpx2.TimeoutException):
                impatient.post("/sdapi/v1/txt2img", json={"prompt": "a cat", "steps": 150})
            gone.set()

        threading.Thread(target=begin_and_go).start()
        assert gone.wait(60)
        assert client.post("/sdapi/v1/interrupt").json() == {}
        while client.get("/v1/queue").json()["running"]:
            pass
        assert client.get("/sdapi/v1/progress").json()["progress"] == 0


def test_librechat_with_a1111(client):
    body = {"prompt": "a cat", "negative_prompt": "fog", "cfg_scale": 4.5, "steps": 22, "width": 512, "height": 512}
    answer = client.post("/sdapi/v1/txt2img", json=body).json()
    info = json.loads(answer["info"])
    assert "," not in answer["images"][0]
    assert info["infotexts"][0].startswith("a cat\nNegative prompt: fog\nSteps: 22")
    assert (info["seed"] >= 0, info["width"], info["height"]) == (True, 512, 512)
    read = client.post("/sdapi/v1/png-info", json={"image": f"data:image/png;base64,{answer['images'][0]}"})
    assert read.status_code == 200
