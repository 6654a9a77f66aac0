"""huggingface_hub's InferenceClient drives the server: text to image, image to image, and its errors."""

from __future__ import annotations

import httpx2
import pytest
from huggingface_hub import InferenceClient, constants
from huggingface_hub.errors import HfHubHTTPError

from server.worker.fake_executor import FakeExecutor
from tests.server.uploads.picture_files import png

KEY = "k" * 40


@pytest.fixture(scope="module")
def running(module_serve):
    return module_serve(FakeExecutor(), api_key=KEY)


@pytest.fixture(autouse=True)
def _online(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # else the client refuses even this machine


@pytest.fixture(params=["", "/models/fake"])
def client(running, request):
    return InferenceClient(model=running.url + request.param, token=KEY, timeout=60)


def test_a_text_is_drawn_as_generate_draws_it(client, running):
    drawn = client.text_to_image(
        "a cat",
        negative_prompt="fog",
        height=64,
        width=128,
        num_inference_steps=4,
        guidance_scale=5,
        scheduler="EulerAncestralDiscreteScheduler",
        seed=7,
    )
    params = running.executor.started[-1].params
    assert (params.prompt, params.negative_prompt, params.width, params.height) == ("a cat", "fog", 128, 64)
    assert (params.num_inference_steps, params.guidance_scale, params.sampler, params.seed) == (4, 5, "Euler a", 7)
    assert drawn.size == (8, 8), "the fake engine's"
    client.text_to_image("a cat", extra_body={"noise_schedule": "trailing"})
    assert running.executor.started[-1].params.noise_schedule == "trailing"


def test_a_picture_is_drawn_over_as_a_body_and_in_json(client, running):
    client.image_to_image(png(64, 128), prompt="a hat", num_inference_steps=5)
    params = running.executor.started[-1].params
    assert (params.prompt, params.width, params.height, params.strength) == ("a hat", 128, 64, 0.8)
    client.image_to_image(png(64, 128), target_size={"width": 64, "height": 64}, strength=0.5)
    params = running.executor.started[-1].params
    assert (params.width, params.height, params.strength) == (64, 64, 0.5)
    client.image_to_image(png(64, 64))
    assert running.executor.started[-1].params.image.width == 64


@pytest.mark.parametrize(
    ("wish", "said"),
    [({"extra_body": {"lora": "x"}}, "lora"), ({"width": 100}, "width"), ({"scheduler": "Nope"}, "scheduler")],
    ids=str,
)
def test_the_clients_error_names_the_parameter(client, wish, said):
    with pytest.raises(HfHubHTTPError) as caught:
        client.text_to_image("a cat", **wish)
    assert caught.value.response.status_code == 400
    assert said in caught.value.response.json()["error"]


def test_keys_models_and_pages_of_others_are_refused(running):
    with httpx2.Client(base_url=running.url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        wish = {"inputs": "a cat"}
        assert client.post("/models/other", json=wish).status_code == 404
        assert client.post("/", json=wish, headers={"Authorization": "Bearer nope"}).json().keys() == {"error"}
        raw = {"content": png(64, 64), "headers": {"Content-Type": "image/png"}}
        assert client.post("/hf-inference/models/fake", **raw).headers["content-type"] == "image/png"
        raw["headers"] |= {"Origin": "https://e.example"}
        assert client.post("/", **raw).headers["x-error-code"] == "foreign_page"
        webp = client.post("/", json={**wish, "options": {"use_cache": False}}, headers={"Accept": "image/webp"})
        assert webp.headers["content-type"] == "image/webp"
        assert client.post("/", content=b'{"inputs": ', headers={"Content-Type": "application/json"}).status_code == 400
        assert client.get("/models/fake/health").json() == {"status": "ok"}
