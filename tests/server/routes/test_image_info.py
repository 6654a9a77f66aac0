"""`POST /v1/image-info`: what a picture's file says comes back as a request that draws it again."""

from __future__ import annotations

import base64
import io
import random
import zlib

import httpx2
import numpy as np
import pytest
from PIL import Image

from engine.params import GenerationParams
from server.picture_info.file_info import file_info
from server.picture_info.provenance import XMP
from server.worker.exif import exif_of, text_of_file
from server.worker.fake_executor import FakeExecutor
from server.worker.image_files import encode_image
from server.worker.xmp import source_type_of_file
from tests.server.uploads.picture_files import PNG_SIGNATURE, bomb, chunk, form_of, png, saved

FORM = {"Content-Type": "multipart/form-data; boundary=b0undary"}
TEXT = "a cat\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 3, Size: 512x768"
REQUEST = {
    "prompt": "a cat", "negative_prompt": "blurry", "num_inference_steps": 20, "sampler": "Euler a",
    "guidance_scale": 7.0, "seed": 3, "width": 512, "height": 768,
}  # fmt: skip
NOTHING = {"parameters": None, "request": None, "inputs": {}, "unknown": {}, "digital_source_type": None}


@pytest.fixture(scope="module")
def running(module_serve):
    return module_serve(FakeExecutor(max_images_in_flight=8), model_id="fake")


@pytest.fixture(scope="module")
def client(running):
    with httpx2.Client(base_url=running.url, timeout=60) as client:
        yield client


def with_chunk(kind: bytes, data: bytes) -> bytes:
    file = png()
    return file[:33] + chunk(kind, data) + file[33:]


def with_exif(picture_format: str, text: str = TEXT) -> bytes:
    return saved(Image.new("RGB", (64, 64)), picture_format, exif=exif_of(text))


def form(file: bytes) -> bytes:
    """A form with the picture alone."""
    head = b'--b0undary\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\n'
    return head + file + b"\r\n--b0undary--\r\n"


def read(client, file: bytes, media_type: str = "image/png"):
    return client.post("/v1/image-info", content=file, headers={"Content-Type": media_type})


FILES = {
    "tEXt": with_chunk(b"tEXt", b"parameters\0" + TEXT.encode()),
    "iTXt": with_chunk(b"iTXt", b"parameters\0\0\0en\0Parameter\0" + TEXT.encode()),
    "compressed iTXt": with_chunk(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(TEXT.encode())),
    "zTXt": with_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(TEXT.encode())),
    "PNG with EXIF": with_chunk(b"eXIf", exif_of(TEXT)[6:]),
    "JPEG": with_exif("JPEG"),
    "WebP": with_exif("WEBP"),
}


@pytest.mark.parametrize("file", FILES.values(), ids=FILES.keys())
def test_a_text_is_read_wherever_files_have_it(client, file):
    answer = read(client, file)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {**NOTHING, "parameters": TEXT, "request": REQUEST}


def test_a_picture_comes_as_it_is_in_a_form_or_in_json(client):
    file = FILES["tEXt"]
    answers = [
        read(client, file),
        client.post("/v1/image-info", content=form(file), headers=FORM),
        client.post("/v1/image-info", json={"image": base64.b64encode(file).decode()}),
        client.post("/v1/image-info", json={"image": "data:image/png;base64," + base64.b64encode(file).decode()}),
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert all(answer.json() == answers[0].json() for answer in answers)


@pytest.mark.parametrize("output_format", ["png", "webp", "jpeg"])
def test_a_drawn_picture_draws_itself_again(client, output_format):
    wish = {
        "prompt": "a cat, 猫: ink\n\nand paper", "negative_prompt": "blurry", "num_inference_steps": 4, "seed": 7,
        "num_images": 2, "sampler": "DDIM", "noise_schedule": "trailing", "eta": 0.25, "output_format": output_format,
        "hires": {"scale": 2, "prompt": "a large cat"},
    }  # fmt: skip
    files = [base64.b64decode(image["b64"]) for image in client.post("/generate", json=wish).json()["images"]]
    for seed, file in zip((7, 8), files, strict=True):
        info = read(client, file).json()
        assert info["request"]["seed"] == seed
        assert info["unknown"] == {"Model": "fake"}
        again = client.post("/generate", json={**info["request"], "output_format": output_format})
        assert again.content == file, "and so does that which comes of it"


@pytest.mark.parametrize("output_format", ["png", "webp", "jpeg"])
@pytest.mark.parametrize("prompt", ["a cat", "猫, ink"])
def test_what_the_real_encoder_writes_is_read_back(client, output_format, prompt):
    """The engine of this file's server writes PNG files only."""
    params = GenerationParams(prompt=prompt, seed=7, num_images=2, prompt_syntax="weighted")
    pixels = np.random.default_rng(3).integers(0, 256, (64, 96, 3), np.uint8)
    info = file_info(params, 1, "dreams", "full", "0123456789")
    file = encode_image(pixels, output_format, info)
    found = read(client, file.data, file.media_type).json()
    assert found["parameters"] == info.text
    assert (found["request"]["prompt"], found["request"]["seed"]) == (prompt, 8)
    assert found["unknown"] == {"Model": "dreams", "Model hash": "0123456789"}
    assert found["digital_source_type"] == "trainedAlgorithmicMedia"
    with Image.open(io.BytesIO(file.data)) as image:
        assert b"trainedAlgorithmicMedia" in str(image.info["xmp"]).encode(), "other programs find it too"
    bare = encode_image(pixels, output_format)
    assert read(client, bare.data, bare.media_type).json() == NOTHING


@pytest.mark.parametrize(
    ("xmp", "expected"),
    [
        (b'<a x:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"/>', "digitalCapture"),
        (b"<Iptc4xmpExt:DigitalSourceType> digitalArt </Iptc4xmpExt:DigitalSourceType>", "digitalArt"),
        (b"<x:DigitalSourceType rdf:resource='https://cv.iptc.org/a/b/negativeFilm'/>", "negativeFilm"),
        (b"<x:DigitalSourceType/>", None),
        (b"DigitalSourceType=" + b" " * 60_000, None),
        (b"DigitalSourceType" * 3_000, None),
    ],
    ids=range(6),
)  # fmt: skip
def test_the_source_of_other_programs_files_is_read(xmp, expected):
    for picture_format in ("JPEG", "WEBP"):
        assert source_type_of_file(saved(Image.new("RGB", (16, 16)), picture_format, xmp=xmp)) == expected
    assert source_type_of_file(with_chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp)) == expected


def test_a_picture_names_what_it_was_drawn_over(client):
    wish = {"prompt": "a cat", "num_inference_steps": 4, "image": base64.b64encode(png(70, 100)).decode()}
    answer = client.post("/generate", json={**wish, "strength": 0.5})
    job = client.get(f"/v1/jobs/{answer.headers['x-job-id']}").json()
    info = read(client, answer.content).json()
    assert info["inputs"] == {"image": job["params"]["image"]}
    again = client.post("/generate", json={**info["request"], "image": wish["image"]})
    assert again.content == answer.content


def test_a_file_says_nothing_if_that_is_asked_for(client):
    wish = {"prompt": "a cat", "num_inference_steps": 1, "seed": 7}
    full, none = (client.post("/generate", json={**wish, "image_metadata": name}).content for name in ("full", "none"))
    assert full == client.post("/generate", json=wish).content
    assert full.count(XMP) == full.count(b"parameters\0") == 1
    assert (none.count(XMP), none.count(b"parameters")) == (0, 0)
    assert read(client, none).json() == NOTHING


@pytest.mark.parametrize("picture_format", ["PNG", "JPEG", "WEBP"])
def test_a_picture_without_information_is_no_request(client, picture_format):
    assert read(client, saved(Image.new("RGB", (64, 64)), picture_format)).json() == NOTHING


@pytest.mark.parametrize(
    ("file", "media_type", "status", "code"),
    [
        (b"GIF89a", "image/png", 415, "unsupported_image"),
        (b"", "image/png", 415, "unsupported_image"),
        (png(), "text/plain", 415, "unsupported_media_type"),
        (bytes(2**24 + 1), "image/png", 413, "upload_too_large"),
        (b"{}", "application/json", 422, "invalid_request"),
        (b"[]", "application/json", 422, "invalid_request"),
        (b'{"image": 3}', "application/json", 422, "invalid_request"),
        (b'{"image": "http://example.org/x.png"}', "application/json", 422, "invalid_request"),
        (b'{"image": "", "prompt": "x"}', "application/json", 422, "invalid_request"),
        (b'{"image": ', "application/json", 400, "malformed_body"),
        (form_of({}, {"image": png()}), FORM["Content-Type"], 422, "invalid_request"),
        (form(png())[:-9], FORM["Content-Type"], 400, "malformed_body"),
    ],
)
def test_what_is_no_picture_is_refused(client, file, media_type, status, code):
    answer = read(client, file, media_type)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_a_form_of_a_foreign_page_is_refused(client):
    headers = {**FORM, "Origin": "https://evil.example"}
    answer = client.post("/v1/image-info", content=form(png()), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_page")


def test_hostile_files_are_read_in_bounds():
    """Bombs, lies, and thousands of changed bytes: a text or none, never an error."""
    chance = random.Random(3)
    compressed = zlib.compress(bytes(2**27))
    files = [
        *(
            bomb(60_000, 1),
            PNG_SIGNATURE,
            b"\xff\xd8\xff",
            b"RIFF\0\0\0\0WEBP",
            b"RIFF\xff\xff\xff\xffWEBPEXIF\xff\xff\xff\xff",
        ),
        with_chunk(b"zTXt", b"parameters\0\0" + compressed),
        with_chunk(b"iTXt", b"parameters\0\1\0\0\0" + compressed),
        with_chunk(b"tEXt", b"parameters\0" + b"x" * 8 * 2**20),
        with_chunk(b"eXIf", b"MM\0*" + b"\xff" * 60_000),
        with_exif("JPEG")[:-600],
    ]
    assert {text_of_file(file) for file in files[:-1]} == {None}
    assert {source_type_of_file(file) for file in files} == {None}
    for file in FILES.values():
        for _ in range(300):
            changed = bytearray(file)
            for _ in range(chance.randint(1, 8)):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            text = text_of_file(bytes(changed[: chance.randint(8, len(changed))]))
            assert text is None or len(text.encode()) <= 2**16
