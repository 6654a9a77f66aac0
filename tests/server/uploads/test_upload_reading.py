"""A request with pictures is taken apart: JSON with base64, or a form; and what breaks a rule is named."""

from __future__ import annotations

import base64
import json
import textwrap

import numpy as np
import pytest

from server.worker.picture_reading import read_picture
from server.worker.upload_messages import MAX_FILE_BYTES, NoRoom, NotJson, ReadUpload, Refused, Upload
from server.worker.upload_reading import read_upload
from tests.server.uploads.picture_files import bomb, form_of, png

FIELDS = {"image": "picture", "mask": "mask"}
FORM = "multipart/form-data; boundary=b0undary"
REQUEST = {"prompt": "a cat", "seed": 7}
PICTURE = png()
TEXT = base64.b64encode(PICTURE).decode()


@pytest.fixture
def read(tmp_path):
    def read(body: bytes | dict, content_type: str = "application/json"):
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        return read_upload(body, ReadUpload(content_type, FIELDS, str(tmp_path)))

    return read


@pytest.fixture
def refused(read, tmp_path):
    def refused(*arguments, **options):
        answer = read(*arguments, **options)
        assert isinstance(answer, Refused), answer
        assert list(tmp_path.iterdir()) == [], "nothing is left"
        return answer

    return refused


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"data:image/png;base64,{TEXT}",
        f"data:application/octet-stream;name=x;BASE64,{TEXT}",
        "\n".join(textwrap.wrap(TEXT, 76)) + "\r\n",
        f"  {TEXT}\n",
    ],
    ids=["plain", "data URL", "data URL of any type", "in lines", "with blanks"],
)
def test_json_holds_a_picture_as_base64(read, tmp_path, text):
    answer = read({**REQUEST, "image": text})
    assert isinstance(answer, Upload)
    assert json.loads(answer.rest) == REQUEST
    [(field, file)] = answer.pictures.items()
    assert (field, file.width, file.height) == ("image", 4, 6)
    written = (tmp_path / file.name).read_bytes()
    assert file.num_bytes == len(written)
    np.testing.assert_array_equal(read_picture(written, "picture"), read_picture(PICTURE, "picture"))
    assert (tmp_path / file.name).stat().st_mode & 0o077 == 0


def test_a_form_holds_pictures_as_files(read, tmp_path):
    answer = read(form_of(REQUEST, {"image": PICTURE, "mask": png(seed=1)}), FORM)
    assert json.loads(answer.rest) == REQUEST
    assert answer.pictures.keys() == {"image", "mask"}
    assert read_picture((tmp_path / answer.pictures["mask"].name).read_bytes(), "mask").shape == (6, 4)


def test_the_same_pixels_have_the_same_name_however_they_came(read):
    in_json = read({**REQUEST, "image": TEXT}).pictures["image"]
    in_form = read(form_of(REQUEST, {"image": PICTURE}), FORM).pictures["image"]
    as_mask = read({**REQUEST, "mask": TEXT}).pictures["mask"]
    assert in_json.sha256 == in_form.sha256 != as_mask.sha256


def test_a_form_may_hold_its_pictures_in_the_json_and_leave_a_file_field_empty(read):
    answer = read(form_of({**REQUEST, "image": TEXT}, {"mask": b""}), FORM)
    assert answer.pictures.keys() == {"image"}


def test_what_is_no_text_stays_in_the_request_for_the_schema_to_refuse(read):
    assert json.loads(read({**REQUEST, "image": 5, "mask": None}).rest) == {**REQUEST, "image": 5, "mask": None}
    assert json.loads(read(b"[1, 2]").rest) == [1, 2]


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://example.org/cat.png",
        "HTTPS://example.org/cat.png",
        "file:///etc/passwd",
        "ftp://example.org/cat.png",
        " gopher://example.org/",
        "blob:https://example.org/3f",
    ],
)
def test_an_address_is_refused_and_not_fetched(refused, address):
    answer = refused({**REQUEST, "image": address})
    assert (answer.why, answer.field, answer.value) == ("invalid", "image", None)
    assert "addresses are not fetched" in answer.rule


@pytest.mark.parametrize("text", ["cat.png", "/etc/passwd", "data:image/png,raw", "data:,", TEXT[:-1], TEXT + "=", "é"])
def test_what_is_no_base64_is_refused(refused, text):
    answer = refused({**REQUEST, "image": text})
    assert (answer.why, answer.field) == ("invalid", "image")
    assert "base64" in answer.rule


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"hello", PICTURE[:40]])
def test_what_is_no_picture_is_unsupported(refused, data):
    answer = refused({**REQUEST, "image": base64.b64encode(data).decode()})
    assert (answer.why, answer.field) == ("unsupported", "image")


def test_a_second_picture_that_is_refused_leaves_nothing_of_the_first(refused):
    answer = refused(form_of(REQUEST, {"image": PICTURE, "mask": bomb(60_000, 1)}), FORM)
    assert (answer.why, answer.field, answer.value) == ("invalid", "mask", "60000x1")


def test_files_and_requests_that_are_too_large_are_refused(refused):
    large = bytes(MAX_FILE_BYTES + 1)
    answers = [
        refused(form_of(REQUEST, {"image": large}), FORM),
        refused({**REQUEST, "image": base64.b64encode(large).decode()}),
        refused({**REQUEST, "image": TEXT, "negative_prompt": "x" * 2**20}),
        refused(form_of({**REQUEST, "negative_prompt": "x" * 2**20}, {"image": PICTURE}), FORM),
    ]
    assert [(answer.why, answer.field) for answer in answers] == [
        ("too_large", "image"),
        ("too_large", "image"),
        ("too_large", None),
        ("too_large", None),
    ]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form_of(REQUEST, {"image": PICTURE})[:-20], FORM),
        (form_of(REQUEST, {"image": PICTURE})[:200], FORM),
        (form_of(REQUEST, {"image": PICTURE}), "multipart/form-data; boundary=another"),
        (form_of(REQUEST, {}), "multipart/form-data"),
        (form_of(REQUEST, {}), "multipart/form-data; boundary=" + "b" * 71),
        (b"", FORM),
        (b"\r\n" * 1000, FORM),
        (form_of(REQUEST, {}).replace(b'name="request"', b'nom="request"'), FORM),
        (form_of(REQUEST, {}).replace(b"--b0undary--", form_of(REQUEST, {})), FORM),
        (form_of(REQUEST, {}).replace(b"Content-Type", b"X" * 10_000), FORM),
        (b'{"prompt": "a", "prompt": "b"}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b'{"prompt": "\xff"}', "application/json"),
    ],
    ids=range(13),
)
def test_a_malformed_body_is_refused(refused, body, content_type):
    assert refused(body, content_type).why == "malformed"


def test_json_that_cannot_be_parsed_says_where(read):
    assert read(b'{"prompt": }') == NotJson("Expecting value", 11)


@pytest.mark.parametrize("name", ["photo", "", "request/image", "__proto__"])
def test_a_part_that_is_no_field_is_refused(refused, name):
    body = form_of(REQUEST, {"image": PICTURE}).replace(b'name="image"', f'name="{name}"'.encode())
    answer = refused(body, FORM)
    assert (answer.why, answer.field) in {("invalid", name), ("malformed", None)}


def test_a_form_without_a_request_and_a_field_given_twice_are_refused(refused):
    assert refused(form_of(REQUEST, {"image": PICTURE}).replace(b'"request"', b'"mask"'), FORM).field == "request"
    twice = refused(form_of({**REQUEST, "image": TEXT}, {"image": PICTURE}), FORM)
    assert twice.rule == "must be sent once, in the JSON or as a part"


def test_more_parts_than_there_may_be_are_refused(refused):
    body = form_of(REQUEST, {f"image{number}": PICTURE for number in range(9)})
    assert refused(body, FORM).why == "too_large"


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_request(tmp_path):
    body = json.dumps({**REQUEST, "image": TEXT}).encode()
    answer = read_upload(body, ReadUpload("application/json", FIELDS, str(tmp_path / "missing")))
    assert isinstance(answer, NoRoom)
