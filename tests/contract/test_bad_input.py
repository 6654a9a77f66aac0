"""Hostile bodies: each gets a 4xx problem document, and the server draws the same picture afterwards as before."""

from __future__ import annotations

import json
import socket

import httpx2
import pytest

from engine.params import LIMITS
from server.access.body_limit import MAX_BODY_BYTES, MAX_UPLOAD_BYTES

GOOD = {"prompt": "a cat on a mat", "seed": 42}
JSON = "application/json"


def with_field(name: str, raw: str) -> bytes:
    """A good request with one more field, its value as raw JSON."""
    return f'{{"prompt": "a cat", "{name}": {raw}}}'.encode()


HUGE = "9" * 400
NOT_NUMBERS = ['"28"', '""', "[]", "{}", "[28]", '{"a": 1}', "true", "false", "NaN", "Infinity", "-Infinity", '"NaN"']
NOT_WHOLE = ["28.0", "28.5", "1e2", "1e400", "-0.5", "0.1e-400"]
NOT_TEXT = ["1", "1.5", "true", "[]", "{}", '["a cat"]', '{"text": "a cat"}', "NaN", HUGE]
CONTROL = ["\\u0000", "\\u0007", "\\b", "\\u001b[31m", "\\u007f", "\\u0085", "\\u009b", "\\f"]
SURROGATES = ["\\ud800", "\\udfff", "a \\ud83d cat", "\\ude00\\ud83d"]

WRONG_VALUES: dict[str, list[str]] = {
    "num_inference_steps": [*NOT_NUMBERS, *NOT_WHOLE, "0", "-1", "151", "2147483648", "-9223372036854775809", HUGE],
    "height": [*NOT_NUMBERS, *NOT_WHOLE, "0", "-8", "63", "65", "511", "56", "2056", "4294967296", HUGE],
    "width": [*NOT_NUMBERS, *NOT_WHOLE, "0", "-512", "60", "513", "2049", "1e9", "-" + HUGE],
    "num_images": [*NOT_NUMBERS, "1.0", "0", "-1", "9", "1000000", HUGE],
    "seed": [*NOT_NUMBERS, "1.0", "-1", "0.5", str(LIMITS.max_seed + 1), "1e18", HUGE, "-" + HUGE],
    "guidance_scale": [
        '"7"', "[]", "{}", "true", "false", "NaN", "Infinity", "-Infinity", "-0.01", "30.01", "1e400", "-1e400", HUGE,
    ],
    "negative_prompt": [*NOT_TEXT, *(f'"{text}"' for text in (*CONTROL, *SURROGATES)), f'"{"x" * 100_000}"'],
    "sampler": [*NOT_TEXT, '""', '"Eulerr"', '"DPMSolver++ Karras Karras"', '"__class__"', '"../../etc/passwd"',
                f'"{"x" * 100_000}"', '"\\u0000"', '"\\ud800"', '"DDIM Karras"'],
    "noise_schedule": [*NOT_TEXT, '""', '"cosine"', '"KARRAS\\u0000"', '"\\ud800"', f'"{"k" * 5000}"'],
    "output_format": ["1", "true", "[]", "{}", '""', '"PNG"', '"gif"', '"svg"', '"image/png"', '"../png"', '"\\ud800"'],
    "user": ["1", "true", "[]", "{}", f'"{"u" * 65}"', '"\\ud800"'],
    "prompts": ['["a cat"]'],
    "__proto__": ["{}"],
    "x" * 5000: ["1"],
    "\\ud800": ["1"],
    "steps": ["28"],
    "cfg_scale": ["7"],
    "image_url": ['"http://169.254.169.254/latest/meta-data"'],
    "callback": ['"http://127.0.0.1:22"'],
}  # fmt: skip

WRONG_PROMPTS = [
    *NOT_TEXT, "null", '""', '" "', '"\\t\\n  "', *(f'"{text}"' for text in (*CONTROL, *SURROGATES)),
    f'"{"x" * 100_000}"', f'"{"x" * (LIMITS.max_prompt_characters + 1)}"', f'"{"猫" * 30_000}"',
    '"a' + "\\u0301" * 9000 + '"',
]  # fmt: skip

NO_REQUESTS: dict[str, bytes] = {
    "nothing": b"",
    "blank": b"  \n ",
    "null": b"null",
    "true": b"true",
    "number": b"42",
    "huge number": HUGE.encode(),
    "number of 5000 digits": b"9" * 5000,
    "string": b'"a cat"',
    "list": b"[]",
    "list of a request": json.dumps([GOOD]).encode(),
    "empty object": b"{}",
    "no prompt": b'{"seed": 1}',
    "cut off": b'{"prompt": "a c',
    "no closing brace": b'{"prompt": "a cat"',
    "two requests": b'{"prompt": "a cat"}{"prompt": "a dog"}',
    "trailing comma": b'{"prompt": "a cat",}',
    "single quotes": b"{'prompt': 'a cat'}",
    "unquoted key": b'{prompt: "a cat"}',
    "comment": b'{"prompt": "a cat" /* why */}',
    "raw newline in a string": b'{"prompt": "a\ncat"}',
    "raw null byte": b'{"prompt": "a\0cat"}',
    "not UTF-8": b'{"prompt": "\xff\xfe"}',
    "overlong UTF-8": b'{"prompt": "\xc0\xaf"}',
    "UTF-8 surrogate": b'{"prompt": "\xed\xa0\x80"}',
    "broken escape": b'{"prompt": "\\u12"}',
    "unknown escape": b'{"prompt": "\\x41"}',
    "1000 deep lists": b'{"prompt": "a cat", "x": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    "100000 deep lists": b"[" * 100_000 + b"]" * 100_000,
    "100000 deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "unclosed deep lists": b"[" * 500_000,
    "10000 fields": json.dumps({f"field{i}": i for i in range(10_000)}).encode(),
    "list of 100000": json.dumps({"prompt": list(range(100_000))}).encode(),
    "every field wrong": json.dumps(dict.fromkeys(WRONG_VALUES, "wrong")).encode(),
    "form": b"prompt=a+cat",
    "XML": b"<?xml version='1.0'?><prompt>a cat</prompt>",
    "billion laughs": b'<!DOCTYPE a [<!ENTITY b "ccc">]><a>&b;</a>',
    "YAML": b"prompt: a cat",
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05a cat\x94.",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "a PNG": b"\x89PNG\r\n\x1a\n",
    "random bytes": bytes(range(256)),
    "one byte too many": b'{"prompt": "a cat"}' + b" " * MAX_BODY_BYTES,
    "8 MB": b'{"prompt": "' + b"x" * 8 * 2**20 + b'"}',
}

CONTENT_TYPES = [
    "text/plain",
    "text/plain; charset=utf-8",
    "text/json",
    "application/x-www-form-urlencoded",
    "application/xml",
    "application/octet-stream",
    "image/png",
    "application/jsonp",
    "application/problem+json",
    "json",
    "",
    "/",
    "application/json, text/plain",
    "application",
    "💥".encode(),
    b"\xff\xfe",
]

HOSTILE = [
    *(pytest.param(with_field(name, raw), id=f"{name[:20]}={raw[:20]}-{len(raw)}")
      for name, values in WRONG_VALUES.items() for raw in values),
    *(pytest.param(f'{{"prompt": {raw}}}'.encode(), id=f"prompt={raw[:20]}-{len(raw)}") for raw in WRONG_PROMPTS),
    *(pytest.param(body, id=name) for name, body in NO_REQUESTS.items()),
]  # fmt: skip


@pytest.fixture(scope="module")
def client(server):
    with httpx2.Client(base_url=server.url, timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def good_bytes(client):
    return client.post("/generate", json=GOOD).content


def assert_is_refused(answer: httpx2.Response) -> dict[str, object]:
    assert 400 <= answer.status_code < 500, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail", "instance", "code", "request_id"} <= problem.keys()
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert len(answer.content) < 10_000, "a problem document repeats no more than it must"
    assert "Traceback" not in answer.text
    for entry in problem.get("errors", []):
        assert entry.keys() == {"field", "rule", "value"}
        assert len(str(entry["value"])) <= 100
        assert len(entry["field"]) <= 100
    return problem


def test_there_are_at_least_two_hundred_hostile_bodies_and_all_differ():
    bodies = [parameters.values[0] for parameters in HOSTILE]
    assert len(set(bodies)) == len(bodies) >= 200


@pytest.mark.parametrize("body", HOSTILE)
def test_a_hostile_body_is_refused_and_the_next_picture_is_as_ever(client, server, good_bytes, body):
    drawn = len(server.executor.started)
    problem = assert_is_refused(client.post("/generate", content=body, headers={"Content-Type": JSON}))
    assert problem["code"] in {"invalid_request", "malformed_body", "upload_too_large"}
    assert len(server.executor.started) == drawn
    assert client.post("/generate", json=GOOD).content == good_bytes


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_a_body_that_is_declared_as_neither_json_nor_a_form_is_refused(client, good_bytes, content_type):
    answer = client.post("/generate", content=json.dumps(GOOD).encode(), headers={"Content-Type": content_type})
    assert assert_is_refused(answer)["code"] == "unsupported_media_type"
    assert client.post("/generate", json=GOOD).content == good_bytes


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=x", "multipart/form-data"])
def test_a_form_that_is_none_is_refused(client, good_bytes, content_type):
    answer = client.post("/generate", content=json.dumps(GOOD).encode(), headers={"Content-Type": content_type})
    assert assert_is_refused(answer)["code"] == "malformed_body"
    assert client.post("/generate", json=GOOD).content == good_bytes


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/json;"])
def test_json_by_its_usual_names_is_taken(client, good_bytes, content_type):
    answer = client.post("/generate", content=json.dumps(GOOD).encode(), headers={"Content-Type": content_type})
    assert answer.content == good_bytes


def test_a_body_without_or_with_two_content_types_is_refused(client):
    bare = client.build_request("POST", "/generate", content=json.dumps(GOOD).encode())
    assert assert_is_refused(client.send(bare))["code"] == "unsupported_media_type"
    twice = client.post(
        "/generate", content=json.dumps(GOOD).encode(), headers=[("Content-Type", JSON), ("Content-Type", "text/plain")]
    )
    assert assert_is_refused(twice)["code"] == "unsupported_media_type"


def test_a_body_too_large_that_does_not_say_so_is_refused(client, good_bytes):
    chunks = (b"x" * 65536 for _ in range(MAX_UPLOAD_BYTES // 65536 + 1))
    answer = client.post("/generate", content=chunks, headers={"Content-Type": JSON})
    assert answer.status_code == 413
    assert_is_refused(answer)
    assert client.post("/generate", json=GOOD).content == good_bytes


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/generate", 405),
        ("PUT", "/generate", 405),
        ("DELETE", "/health", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/static/nothing.js", 404),
        ("GET", "/static/%2e%2e/main.py", 404),
        ("GET", "/static/..%2f..%2fpyproject.toml", 404),
        ("POST", "/generate/", 404),
        ("GET", "/redoc", 404),
        ("GET", "/%00", 404),
        ("GET", "/" + "x" * 3000, 404),
    ],
)
def test_what_the_framework_refuses_is_a_problem_document_too(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert_is_refused(answer)
    assert status != 405 or answer.headers["allow"]


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_not_http_is_answered_with_400_or_hung_up_on(client, server, good_bytes, raw):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(raw)
        answer = connection.recv(4096)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert client.post("/generate", json=GOOD).content == good_bytes


def test_a_problem_names_field_rule_and_value(client):
    answer = client.post("/generate", json={"prompt": "a cat", "width": 63, "steps": 28, "seed": "1"})
    assert answer.json()["detail"] == "width must be greater than or equal to 64, not 63 (and 2 more)"
    assert answer.json()["errors"] == [
        {"field": "width", "rule": "must be greater than or equal to 64", "value": 63},
        {"field": "seed", "rule": "must be an integer", "value": "1"},
        {"field": "steps", "rule": "is not a field of this request", "value": 28},
    ]


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"mask_invert": 1}, "mask_invert must be true or false, not 1"),
        ({"size_ids": [1, 2]}, "size_ids must have at least 6 items"),
        ({"size_ids": "all"}, "size_ids must be a list, not 'all'"),
        ({"hires": {"scale": 0.5}}, "hires.scale must be greater than or equal to 1, not 0.5"),
        ({"steps": 28}, "steps is not a field of this request"),
        ({"sampler": "x" * 40}, None),
    ],
)
def test_the_detail_of_a_problem_reads_as_a_sentence_and_repeats_no_long_text(client, fields, detail):
    said = client.post("/generate", json={"prompt": "a cat", **fields}).json()["detail"]
    assert said == detail if detail else "x" * 40 not in said


def test_a_pair_that_cannot_be_names_those_that_can(client):
    answer = client.post("/generate", json={"prompt": "a cat", "sampler": "DDIM", "noise_schedule": "karras"})
    [entry] = answer.json()["errors"]
    assert entry == {
        "field": "noise_schedule",
        "rule": "must be one of default, leading, trailing, linspace with the sampler DDIM",
        "value": "karras",
    }


def test_the_last_seed_leaves_room_for_every_picture(client):
    wish = {"prompt": "a cat", "seed": LIMITS.max_seed}
    assert client.post("/generate", json=wish).status_code == 200
    assert_is_refused(client.post("/generate", json={**wish, "num_images": 2}))
