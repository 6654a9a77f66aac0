"""What A1111's own tests ask over HTTP, asked of the built-in model; and the pictures are looked at.

Source of the cases: `test/test_txt2img.py`, `test_img2img.py`, `test_extras.py` and `test_utils.py` of
stable-diffusion-webui 1.10.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator

import httpx2
import numpy as np
import pytest
from PIL import Image

from tests.processes import ServerProcess, server_process
from tests.server.uploads.picture_files import saved

SMALL = {"prompt": "a red ball", "steps": 3, "width": 64, "height": 64, "seed": 1}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with server_process(tmp_path_factory.mktemp("server"), MODEL_ID="models/dreamlet") as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="module")
def ask(server):
    with httpx2.Client(base_url=f"{server.url}/sdapi/v1", timeout=120) as client:

        def ask(path: str, **body):
            answer = client.post(path, json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        yield ask


@pytest.fixture(scope="module")
def get(server):
    return lambda path: httpx2.get(f"{server.url}/sdapi/v1/{path}", timeout=60).json()


def pixels(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).astype(int)


def text_of(picture: np.ndarray) -> str:
    return base64.b64encode(saved(Image.fromarray(picture.astype(np.uint8)), "PNG")).decode()


def drawn(ask, path: str = "txt2img", **changes) -> np.ndarray:
    [image] = ask(path, **{**SMALL, **changes})["images"]
    return pixels(image)


@pytest.fixture(scope="module")
def plain(ask):
    return drawn(ask)


def differ(one: np.ndarray, other: np.ndarray) -> bool:
    return np.abs(one - other).max() > 8


def test_simple(plain):
    assert plain.shape == (64, 64, 3)
    assert plain.std() > 3, "not a flat area"


@pytest.mark.parametrize(
    "changes",
    [
        {"negative_prompt": "red"},
        {
            "prompt": "a red ball AND a blue sea"
        },  # a weight alone moves the built-in model by 1 of 255: it norms its text
        {"sampler_name": "PLMS"},
        {"sampler_name": "DDIM"},
        {"sampler_name": "UniPC"},
        {"seed": 2},
        {"subseed": 5, "subseed_strength": 0.5},
        {"cfg_scale": 2},
    ],
    ids=str,
)
def test_every_wish_shows(ask, plain, changes):
    assert differ(drawn(ask, **changes), plain)


@pytest.mark.parametrize("changes", [{"tiling": True}, {"restore_faces": True}, {"save_images": True}], ids=str)
def test_what_has_no_effect_has_none(ask, plain, changes):
    assert not differ(drawn(ask, **changes), plain)


def test_not_square(ask):
    assert drawn(ask, width=64, height=128).shape == (128, 64, 3)


def test_hires(ask):
    assert drawn(ask, enable_hr=True, hr_scale=2, denoising_strength=0.5).shape == (128, 128, 3)
    assert drawn(ask, enable_hr=True, hr_resize_x=96, hr_upscaler="Lanczos").shape == (96, 96, 3)


@pytest.mark.parametrize("changes", [{"n_iter": 2}, {"batch_size": 2}], ids=str)
def test_two_pictures_have_their_own_seeds(ask, plain, changes):
    answer = ask("txt2img", **SMALL, **changes)
    first, second = map(pixels, answer["images"])
    assert not differ(first, plain)
    assert not differ(second, drawn(ask, seed=2))
    assert json.loads(answer["info"])["all_seeds"] == [1, 2]


def test_image_to_image_keeps_what_it_is_told_to_keep(ask):
    image = np.full((64, 64, 3), 200)
    image[:, :32] = (30, 60, 200)
    given = {"init_images": [text_of(image)], "denoising_strength": 0.75}
    whole = drawn(ask, "img2img", **given)
    assert differ(whole, image)
    mask = np.zeros((64, 64), int)
    mask[:32] = 255
    masked = {**given, "mask": text_of(mask), "mask_blur": 0, "inpainting_fill": 1, "inpaint_full_res": False}
    top = drawn(ask, "img2img", **masked)
    assert np.array_equal(top[32:], image[32:])
    assert differ(top[:32], image[:32])
    bottom = drawn(ask, "img2img", **masked, inpainting_mask_invert=1)
    assert np.array_equal(bottom[:32], image[:32])
    assert differ(bottom[32:], image[32:])
    near = drawn(ask, "img2img", **{**masked, "inpaint_full_res": True, "inpaint_full_res_padding": 0})
    assert np.array_equal(near[32:], image[32:])


def test_an_interrupt_shows_the_state_that_was_reached(ask, get):
    """Decoded: nearer to the finished picture than the preview of that moment is, which has a pixel for each 8x8."""
    wish = {**SMALL, "width": 128, "height": 128, "steps": 150}
    found = []
    waiting = threading.Thread(target=lambda: found.append(ask("txt2img", **wish)))
    waiting.start()
    state = get("progress")
    while state["progress"] < 0.5 or state["current_image"] is None:
        assert waiting.is_alive()
        state = get("progress")
    ask("interrupt")
    waiting.join(60)
    preview = Image.open(io.BytesIO(base64.b64decode(state["current_image"]))).convert("RGB").resize((128, 128))
    early, whole = pixels(found[0]["images"][0]), drawn(ask, **wish)
    assert early.shape == (128, 128, 3)
    assert differ(early, whole), "it took fewer steps"
    assert np.abs(early - whole).mean() < np.abs(np.asarray(preview).astype(int) - whole).mean()


def test_formats(ask, get):
    for name, kind in (("jpg", "JPEG"), ("webp", "WEBP"), ("png", "PNG")):
        [image] = ask("txt2img", **SMALL, override_settings={"samples_format": name})["images"]
        assert Image.open(io.BytesIO(base64.b64decode(image))).format == kind
    assert get("options")["samples_format"] == "png", "an override is of its request alone"


def test_a_picture_says_what_info_says(ask):
    answer = ask("txt2img", **SMALL, sampler_name="Euler a")
    read = ask("png-info", image=answer["images"][0])
    assert read["info"] == json.loads(answer["info"])["infotexts"][0]
    assert (read["parameters"]["Prompt"], read["parameters"]["Sampler"]) == ("a red ball", "Euler a")
    again = ask("txt2img", infotext=read["info"], steps=3)
    assert again["images"] == answer["images"]


def test_extras(ask, plain):
    image = text_of(plain)
    assert np.array_equal(pixels(ask("extra-single-image", image=image)["image"]), plain), "None leaves it as it is"
    assert pixels(ask("extra-single-image", image=image, upscaler_1="Lanczos")["image"]).shape == (128, 128, 3)
    to = {"resize_mode": 1, "upscaling_resize_w": 96, "upscaling_resize_h": 96, "upscaler_1": "Lanczos"}
    assert pixels(ask("extra-single-image", image=image, **to)["image"]).shape == (96, 96, 3)


@pytest.mark.parametrize("entry", ["samplers", "schedulers"])
def test_all_that_is_listed_draws(ask, get, entry):
    names = [found["name"] for found in get(entry)]
    assert len(names) >= 9
    for name in names:
        wish = {"sampler_name": name} if entry == "samplers" else {"sampler_name": "DPM++ 2M", "scheduler": name}
        assert drawn(ask, **wish, steps=2).shape == (64, 64, 3)
