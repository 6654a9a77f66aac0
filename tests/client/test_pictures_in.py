"""Pictures that callers hand in: paths, bytes and PIL pictures, for drawing, enlarging and reading."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from semantic_bit_client import AsyncClient, Client, InvalidRequest
from semantic_bit_client.calls import upscale

from tests.client.test_dream import run  # noqa: F401 -- a fixture
from tests.server.uploads.picture_files import pixels_of, png

SMALL = {"num_inference_steps": 2, "seed": 7}
PICTURE = png(70, 100)
PIL_PICTURE = Image.fromarray(pixels_of(70, 100))


@pytest.fixture(scope="module")
def client(server):
    with Client(server.url) as client:
        yield client


def test_a_path_bytes_and_a_pil_picture_are_the_same_picture(server, client, tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(PICTURE)
    drawn = [client.generate("a cat", image=image, **SMALL) for image in (path, str(path), PICTURE, PIL_PICTURE)]
    assert len({picture.bytes for picture in drawn}) == 1
    params = server.executor.started[-1].params
    assert (params.image.width, params.image.height, params.width, params.height) == (100, 70, 96, 64)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "YCbCr", "HSV", "F", "I;16"])
def test_a_pil_picture_of_any_mode_is_taken(client, mode):
    pixels = Image.fromarray(pixels_of(64, 64, 1).astype(np.uint16)) if mode == "I;16" else PIL_PICTURE.convert(mode)
    assert client.generate("a cat", image=pixels, **SMALL).media_type == "image/png"


async def test_every_wish_about_pictures_is_handed_on(server):
    wish = {
        "image": PICTURE, "mask": PIL_PICTURE.convert("L"), "strength": 0.5, "resize": "fill", "mask_invert": True,
        "mask_blur": 4, "mask_area": "masked", "mask_padding": 16, "masked_content": "noise", "variation_seed": 9,
        "variation_strength": 0.25, "width": 128, "height": 64, "image_metadata": "none",
    }  # fmt: skip
    async with AsyncClient(server.url) as client:
        await client.generate("a cat", **wish, **SMALL)
        job = server.executor.started[-1]
        await client.generate("a cat", image=PICTURE, expand={"left": 32}, **SMALL)
        grown = server.executor.started[-1].params
        await client.generate("a cat", hires={"scale": 2, "upscaler": "lanczos"}, width=64, height=64, **SMALL)
        hires = server.executor.started[-1].params.hires
    params, mask = job.params, job.params.mask
    assert (params.strength, params.resize, params.variation_seed, params.variation_strength) == (0.5, "fill", 9, 0.25)
    assert (mask.invert, mask.blur, mask.area, mask.padding, mask.content) == (True, 4, "masked", 16, "noise")
    assert job.image_metadata == "none"
    assert (grown.expand.left, grown.width) == (32, 128)
    assert (hires.width, hires.upscaler) == (128, "lanczos")


def test_a_picture_is_enlarged(client):
    assert client.upscale(PICTURE, scale=1.5).media_type == "image/png"
    params = client.upscale(PIL_PICTURE, idempotency_key="larger")
    assert client.upscale(PIL_PICTURE, idempotency_key="larger").job_id == params.job_id
    with pytest.raises(TypeError, match="'sharpness'"):
        upscale(PICTURE, {"sharpness": 1}, None)


def test_a_drawn_picture_says_how_to_draw_it_again(client):
    picture = client.generate("a cat, ink", negative_prompt="snow", width=64, height=64, **SMALL)
    info = client.image_info(picture.bytes)
    assert info.parameters.startswith("a cat, ink\nNegative prompt: snow\nSteps: 2,")
    assert client.generate(**info.request).bytes == picture.bytes
    over = client.image_info(client.generate("a cat", image=PICTURE, **SMALL).bytes)
    assert (over.inputs["image"].width, over.inputs["image"].height) == (100, 70)
    assert client.image_info(PIL_PICTURE).request is None


@pytest.mark.parametrize("image", [b"no picture", PICTURE[:50]])
def test_what_is_no_picture_is_an_invalid_request(client, image):
    with pytest.raises(InvalidRequest, match="image must be a"):
        client.generate("a cat", image=image, **SMALL)


def test_what_cannot_be_read_is_never_sent(client, tmp_path):
    with pytest.raises(FileNotFoundError):
        client.generate("a cat", image=tmp_path / "none.png")
    with pytest.raises(ValueError, match="an empty file"):
        client.generate("a cat", image=b"")
    with pytest.raises(TypeError, match="a path, bytes or a PIL picture, not int"):
        client.generate("a cat", image=7)


def test_the_command_draws_over_a_picture(server, run):  # noqa: F811 -- the fixture
    Path("cat.png").write_bytes(PICTURE)
    code, out, _ = run(
        server.url, "a dog", "--image", "cat.png", "--mask", "cat.png", "--strength", "1", "-o", "dog.png"
    )
    assert (code, out.startswith("dog.png (seed ")) == (0, True)
    params = server.executor.started[-1].params
    assert (params.strength, params.mask.image.width) == (1, 100)
    assert run(server.url, "a dog", "--hires", "--size", "64", "--steps", "2")[0] == 0
    assert server.executor.started[-1].params.hires.width == 128
    assert run(server.url, "a dog", "--hires", "1.5", "--size", "64", "--steps", "2")[0] == 0
    assert server.executor.started[-1].params.hires.width == 96


def test_the_command_says_how_a_picture_was_drawn_and_enlarges_it(server, run):  # noqa: F811 -- the fixture
    assert run(server.url, "a cat", "-o", "cat.png", "--seed", "7")[0] == 0
    code, out, _ = run(server.url, "info", "cat.png")
    assert (code, out.splitlines()[0]) == (0, "a cat")
    assert '"seed": 7' in run(server.url, "info", "cat.png", "--json")[1]
    assert run(server.url, "upscale", "cat.png", "--scale", "3")[:2] == (0, "cat-large.png")
    with Image.open(io.BytesIO(Path("cat-large.png").read_bytes())) as large:
        assert large.format == "PNG"
    assert run(server.url, "upscale", "cat.png", "-o", "cat.webp")[:2] == (0, "cat.webp")
    Path("plain.png").write_bytes(PICTURE)
    assert run(server.url, "info", "plain.png")[1] == "plain.png does not say how it was drawn"


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["a cat", "--image", "none.png"], 2, "none.png is not a file"),
        (["a cat", "--mask", "none.png"], 2, "--mask needs --image"),
        (["info", "none.png"], 1, "none.png"),
        (["info", "text.png"], 2, "must be a PNG, JPEG or WebP file"),
        (["upscale", "text.png", "--scale", "9"], 2, "must be a PNG, JPEG or WebP file"),
        (["upscale", "empty.png"], 2, "an empty file"),
        (["upscale", "text.png", "-o", "-"], 2, "-o must be a file"),
    ],
)
def test_the_command_refuses_what_is_no_picture(server, run, arguments, code, reason):  # noqa: F811 -- the fixture
    Path("text.png").write_text("no picture")
    Path("empty.png").touch()
    found, out, err = run(server.url, *arguments)
    assert (found, out) == (code, "")
    assert reason in err


def test_one_word_alone_is_a_prompt(server, run):  # noqa: F811 -- the fixture
    assert run(server.url, "info")[0] == 0
    assert server.executor.started[-1].params.prompt == "info"
