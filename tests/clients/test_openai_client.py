"""OpenAI's own client drives the server: pictures, edits, streams, and its exceptions for our errors."""

from __future__ import annotations

import asyncio
import base64
import importlib
import io

import httpx2
import pytest
from PIL import Image

from engine.errors import NotFiniteError
from server.worker.fake_executor import FakeExecutor
from tests.server.uploads.picture_files import png, saved

pytestmark = pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")

MODEL = "gpt-image-1"
MASK = saved(Image.new("RGBA", (64, 128), (0, 0, 0, 0)), "PNG")
DATA_URL = "data:image/png;base64," + base64.b64encode(png(128, 64)).decode()


@pytest.fixture(scope="module")
def openai():
    return importlib.import_module("openai")  # so that other tests are collected where it is not installed


@pytest.fixture(scope="module")
def running(module_serve):
    return module_serve(FakeExecutor(max_images_in_flight=8), openai_model_aliases=("gpt-image-1",))


@pytest.fixture(scope="module")
def client(openai, running):
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="none")


def last_params(running):
    return running.executor.started[-1].params


def test_pictures_are_those_of_generate(client, running):
    drawn = client.images.generate(
        prompt="a cat", model=MODEL, n=2, size="128x64", extra_body={"seed": 3, "steps": 4, "sampler": "Euler a"}
    )
    wish = {"prompt": "a cat", "num_images": 2, "width": 128, "height": 64, "seed": 3, "num_inference_steps": 4}
    ours = httpx2.post(f"{running.url}/generate", json={**wish, "sampler": "Euler a"}).json()
    assert [image.b64_json for image in drawn.data] == [image["b64"] for image in ours["images"]]
    assert (drawn.size, drawn.output_format, drawn.data[0].url) == ("128x64", "png", None)


def test_without_a_model_or_with_an_old_one_an_address_is_answered_that_needs_no_key(client):
    for model in ("dall-e-3", ""):
        [image] = client.images.generate(prompt="a cat", model=model).data
        assert image.b64_json is None
        assert image.url.startswith(str(client.base_url).removesuffix("/v1/"))
        assert image.url.endswith(".png")
        assert httpx2.get(image.url).content.startswith(b"\x89PNG")
        forged = image.url.replace("/0/", "/1/", 1)
        assert httpx2.get(forged).status_code == 404
    [image] = client.images.generate(prompt="a cat", model="dall-e-3", response_format="b64_json").data
    assert image.url is None


def test_output_compression_is_the_quality_of_the_file(openai, client, running):
    wish = {"prompt": "a cat", "model": MODEL, "size": "64x64"}
    client.images.generate(**wish, output_format="jpeg", output_compression=40)
    assert running.executor.started[-1].output_quality == 40
    client.images.edit(**wish, image=("a.png", png(64, 64)), output_format="webp", output_compression=0)
    assert running.executor.started[-1].output_quality == 0
    client.images.generate(**wish, output_compression=100)
    assert running.executor.started[-1].output_quality is None
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**wish, output_compression=40)
    assert caught.value.param == "output_compression"


def test_several_at_once_draw_each_their_own(openai, running):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none") as client:
            wishes = (client.images.generate(prompt=f"cat {seed}", model=MODEL) for seed in range(4))
            return await asyncio.gather(*wishes)

    assert len({answer.data[0].b64_json for answer in asyncio.run(ask())}) == 4


def test_a_stream_has_previews_and_then_every_picture(client):
    wish = {"prompt": "a cat", "model": MODEL, "n": 2, "extra_body": {"steps": 28, "seed": 1}}
    events = list(client.images.generate(**wish, stream=True, partial_images=1))
    kinds = [event.type.removeprefix("image_generation.") for event in events]
    assert kinds in (["partial_image", "completed", "completed"], ["completed", "completed"])
    drawn = client.images.generate(**wish)
    assert [event.b64_json for event in events[-2:]] == [image.b64_json for image in drawn.data]
    edited = list(client.images.edit(image=png(128, 64), prompt="a cat", model=MODEL, stream=True))
    assert [event.type for event in edited] == ["image_edit.completed"]


def test_an_edit_hands_on_picture_mask_and_size(client, running):
    client.images.edit(image=png(128, 64), mask=MASK, prompt="a hat", model=MODEL, extra_body={"seed": 7})
    params = last_params(running)
    assert (params.width, params.height, params.strength, params.seed) == (64, 128, 1.0, 7)
    whole = Image.open(io.BytesIO(running.executor.started[-1].inputs[params.mask.image.sha256]))
    assert whole.getextrema() == (255, 255), "transparent is what changes"
    client.images.edit(image=[png(128, 64)], prompt="a hat", model=MODEL)
    assert (last_params(running).mask, last_params(running).strength) == (None, 0.8)
    answer = httpx2.post(f"{running.url}/v1/images/edits", json={"prompt": "a", "images": [{"image_url": DATA_URL}]})
    assert answer.status_code == 200
    client.images.create_variation(image=("x", png(128, 64), "application/octet-stream"), n=2)
    params = last_params(running)
    assert (params.prompt, params.num_images, params.strength) == ("", 2, 0.6)


@pytest.mark.parametrize(
    ("wish", "error", "code", "param"),
    [
        ({"model": "nope"}, "NotFoundError", "model_not_found", "model"),
        ({"size": "63x1"}, "BadRequestError", "invalid_value", "size"),
        ({"size": "100x100"}, "BadRequestError", "invalid_value", "size"),
        ({"n": 11}, "BadRequestError", "invalid_value", "n"),
        ({"prompt": " "}, "BadRequestError", "invalid_value", "prompt"),
        ({"background": "transparent"}, "BadRequestError", "invalid_value", "background"),
        ({"extra_body": {"lora": "x"}}, "BadRequestError", "unknown_parameter", "lora"),
        ({"extra_body": {"sampler": "nope"}}, "BadRequestError", "invalid_value", "sampler"),
    ],
    ids=str,
)
def test_a_wrong_value_raises_the_clients_own_error_with_the_field(client, openai, wish, error, code, param):
    with pytest.raises(getattr(openai, error)) as caught:
        client.images.generate(**{"prompt": "a cat", "model": MODEL, **wish})
    assert (caught.value.code, caught.value.param, caught.value.type) == (code, param, "invalid_request_error")


@pytest.mark.parametrize(
    ("wish", "param"),
    [({"mask": png(128, 64)}, "mask"), ({"mask": saved(Image.new("RGBA", (64, 64)), "PNG")}, "mask")],
    ids=["without transparency", "of another size"],
)
def test_a_mask_that_cannot_be_is_refused(client, openai, wish, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(image=png(128, 64), prompt="a hat", model=MODEL, **wish)
    assert caught.value.param == param


def test_a_drawing_that_failed_is_not_repeated(openai, serve):
    running = serve(FakeExecutor())
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none") as client:
        running.call(running.executor.fail_next, NotFiniteError("the model produced NaN"))
        with pytest.raises(openai.InternalServerError) as caught:
            client.images.generate(prompt="a cat", model=MODEL)
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(running.executor.started) == 1


def test_keys_are_asked_for_in_the_clients_way(openai, serve):
    running = serve(api_key="k" * 40)
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.images.generate(prompt="a cat", model=MODEL)
        assert caught.value.code == "invalid_api_key"
        [image] = client.with_options(api_key="k" * 40).images.generate(prompt="a cat", model="dall-e-2").data
    assert httpx2.get(image.url).status_code == 200
    azure = httpx2.get(f"{running.url}/v1/models", headers={"api-key": "k" * 40})
    assert azure.status_code == 200


def test_models_are_listed_with_their_aliases(client):
    assert [model.id for model in client.models.list()] == ["fake", "gpt-image-1"]
    assert client.models.retrieve("dall-e-3").object == "model"


def test_a_page_of_another_site_cannot_send_a_form(running):
    files = {"image": png(128, 64)}
    foreign = httpx2.post(f"{running.url}/v1/images/edits", files=files, headers={"Origin": "https://e.example"})
    assert (foreign.status_code, foreign.json()["error"]["type"]) == (403, "permission_error")
    assert foreign.headers["x-error-code"] == "foreign_page"


def test_a_repeat_with_an_idempotency_key_has_the_same_picture(running):
    headers = {"Idempotency-Key": "one"}
    wish = {"prompt": "a cat", "model": MODEL}
    first, again = (
        httpx2.post(f"{running.url}/v1/images/generations", json=wish, headers=headers).json() for _ in range(2)
    )
    assert first["data"] == again["data"]
    streamed = httpx2.post(f"{running.url}/v1/images/generations", json={**wish, "stream": True}, headers=headers)
    assert first["data"][0]["b64_json"] in streamed.text
    other = httpx2.post(f"{running.url}/generate", json={"prompt": "a cat"}, headers=headers)
    assert other.json()["code"] == "idempotency_key_reused"


def test_an_api_that_is_switched_off_is_not_there(serve):
    running = serve(compat_apis=())
    answer = httpx2.post(f"{running.url}/v1/images/generations", json={"prompt": "a cat"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
