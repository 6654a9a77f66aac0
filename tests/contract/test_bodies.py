"""Every operation that takes a body, asked with bodies that are too large, are no request, or come from another page.

Made from the OpenAPI document, so that a new route cannot be forgotten. What `/generate` says to each wrong value is in
`test_bad_input.py`.
"""

from __future__ import annotations

import http.client
import itertools
import socket

import httpx2
import pytest

from server.access.body_limit import MAX_BODY_BYTES, MAX_UPLOAD_BYTES
from server.worker.fake_executor import FakeExecutor
from tests.contract.every_route import code_of, detail_of, documented, new_app
from tests.contract.test_bad_input import CONTENT_TYPES, NO_REQUESTS

APP = new_app()
OPERATIONS = documented(APP)
POSTS = [label for label in OPERATIONS if label.startswith("POST ")]
WITH_BODY = [label for label in POSTS if "requestBody" in OPERATIONS[label]]
OTHER_APIS = [label for label in POSTS if any(dialect.speaks(*label.split(" ")) for dialect in APP.state.dialects)]
TAKES_PICTURES = {
    *("POST /generate", "POST /v1/jobs", "POST /v1/upscale", "POST /v1/image-info"),
    *("POST /v1/images/edits", "POST /v1/images/variations"),
    *("POST /sdapi/v1/img2img", "POST /sdapi/v1/png-info"),
    *("POST /sdapi/v1/extra-single-image", "POST /sdapi/v1/extra-batch-images"),
    *("POST /", "POST /models/{model_id}", "POST /hf-inference/models/{model_id}"),
}
"""Their bodies may have 32 MiB; those of all others 1 MiB."""
LENIENT = {
    *("empty object", "no prompt", "10000 fields", "list of 100000", "every field wrong", "1000 deep lists"),
    "UTF-8 surrogate",
}
"""JSON objects: some of the APIs ignore what they do not know, and draw without a prompt."""
LONGEST = 2**18
"""Bytes of a body that is tried at every route; the longer ones are tried at `/generate`."""
JSON = "application/json"
FORM = "multipart/form-data; boundary=b0undary"
FOREIGN = [{"Origin": "https://e.example"}, {"Sec-Fetch-Site": "cross-site"}]


@pytest.fixture(scope="module")
def running(module_serve):
    return module_serve(FakeExecutor(max_images_in_flight=8))


@pytest.fixture(scope="module")
def client(running):
    with httpx2.Client(base_url=running.url, timeout=30) as client:
        yield client


def path_of(label: str) -> str:
    return label.split(" ")[1].format(job_id="0" * 16, model_id="fake", key_id="0" * 12)


def announced(running, label: str, content_type: str, num_bytes: int) -> int:
    """What is said to a request with a body of that length, none of which is sent."""
    head = f"POST {path_of(label)} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: {num_bytes}\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status


def assert_is_refused(answer: httpx2.Response, label: str) -> None:
    assert 400 <= answer.status_code < 500, answer.text[:500]
    media_type = "application/json" if label in OTHER_APIS else "application/problem+json"
    assert answer.headers["content-type"] == media_type
    assert code_of(answer)
    assert detail_of(answer)
    assert len(answer.content) < 10_000
    assert "Traceback" not in answer.text


def test_the_routes_of_other_programs_are_among_them():
    assert len(OTHER_APIS) > 20
    assert {"POST /v1/images/generations", "POST /sdapi/v1/txt2img", "POST /"} <= {*WITH_BODY} & {*OTHER_APIS}
    assert {*WITH_BODY} >= TAKES_PICTURES


@pytest.mark.parametrize("label", WITH_BODY)
def test_a_body_is_refused_by_its_announced_length(running, label):
    limit = MAX_UPLOAD_BYTES if label in TAKES_PICTURES else MAX_BODY_BYTES
    assert announced(running, label, JSON, limit + 1) == 413
    # Within the limit, it is the media type that is refused, before any of it has come.
    assert announced(running, label, "text/plain", limit) == 415


@pytest.mark.parametrize("label", sorted({*WITH_BODY} - TAKES_PICTURES))
def test_a_body_that_does_not_say_how_long_it_is_is_refused_in_the_words_of_its_api(client, label):
    chunks = itertools.repeat(b" " * 65536, MAX_BODY_BYTES // 65536 + 1)
    answer = client.post(path_of(label), content=chunks, headers={"Content-Type": JSON})
    assert answer.status_code == 413
    assert_is_refused(answer, label)


@pytest.mark.parametrize("label", WITH_BODY)
def test_what_is_no_request_is_refused_in_the_words_of_its_api(client, label):
    for name, body in NO_REQUESTS.items():
        if len(body) > LONGEST:
            continue
        answer = client.post(path_of(label), content=body, headers={"Content-Type": JSON})
        if name in LENIENT and answer.status_code < 400:
            continue
        assert_is_refused(answer, label)
    for content_type in CONTENT_TYPES:
        answer = client.post(path_of(label), content=b"no request", headers={"Content-Type": content_type})
        assert_is_refused(answer, label)
    assert client.post("/generate", json={"prompt": "a cat"}).status_code == 200


@pytest.mark.parametrize("label", OTHER_APIS)
def test_a_page_of_another_origin_can_send_nothing_but_json_that_it_must_ask_for(client, label):
    """
    What a browser sends for any page without asking first: forms, raw bytes, and nothing at all.
    """
    for foreign in FOREIGN:
        for content in ({}, {"Content-Type": FORM}, {"Content-Type": "text/plain"}, {"Content-Type": "image/png"}):
            body = b"" if not content else b"--b0undary--"
            answer = client.post(path_of(label), content=body, headers={**foreign, **content})
            assert_is_refused(answer, label)
            is_door = code_of(answer) == "foreign_page"
            assert is_door or (label in WITH_BODY and answer.status_code in {400, 415}), (answer.status_code, content)
