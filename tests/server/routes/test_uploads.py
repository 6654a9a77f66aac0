"""Requests with pictures over HTTP: what is accepted becomes a job with pictures, what is refused leaves nothing."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import socket
from pathlib import Path

import httpx2
import pytest

from server.access.body_limit import MAX_BODY_BYTES, MAX_UPLOAD_BYTES
from server.store.input_files import is_whole_png
from server.worker.fake_executor import FakeExecutor
from tests.chaos.gateway import until
from tests.server.uploads.picture_files import bomb, form_of, png

FORM = {"Content-Type": "multipart/form-data; boundary=b0undary"}
WISH = {"prompt": "a cat", "num_inference_steps": 4, "seed": 7}
PICTURE = png(70, 100)
TEXT = base64.b64encode(PICTURE).decode()


@pytest.fixture(scope="module")
def running(module_serve, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    running = module_serve(FakeExecutor(max_images_in_flight=8), data_dir=str(folder))
    running.inputs = folder / "server" / "inputs"
    return running


@pytest.fixture(scope="module")
def client(running):
    with httpx2.Client(base_url=running.url, timeout=60) as client:
        yield client


def ended(client, job_id: str) -> dict:
    return until(lambda: (job := client.get(f"/v1/jobs/{job_id}").json())["finished_at"] and job, 60, "ended")


def newest_job(client) -> list[str]:
    """Of all that were ever accepted, waiting or not."""
    return [job["id"] for job in client.get("/v1/jobs", params={"limit": 1}).json()["jobs"]]


def problem(answer, status: int, code: str) -> dict:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    return answer.json()


@pytest.fixture
def nothing_left(running, client):
    """What is refused leaves no file, and no job.

    Jobs of tests before may still wait, begin and end meanwhile, and files of their refused requests may still go.
    """
    files, newest = set(running.inputs.iterdir()), newest_job(client)
    yield
    until(lambda: set(running.inputs.iterdir()) <= files, 60, "without what was refused")
    assert newest_job(client) == newest


# --- what is accepted -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/generate", "/v1/jobs"])
def test_a_picture_in_json_or_in_a_form_is_the_same_job_and_reaches_the_engine(client, running, path):
    requests = [
        {"json": {**WISH, "image": TEXT}},
        {"content": form_of(WISH, {"image": PICTURE}), "headers": FORM},
    ]
    answers = [client.post(path, **request) for request in requests]
    assert {answer.status_code for answer in answers} <= {200, 202}
    ids = [answer.headers.get("x-job-id") or answer.json()["id"] for answer in answers]
    jobs = [ended(client, job_id) for job_id in ids]
    assert [job["status"] for job in jobs] == ["done", "done"]
    assert jobs[0]["params"] == jobs[1]["params"]
    image = jobs[0]["params"]["image"]
    assert (image["width"], image["height"]) == (100, 70)
    assert TEXT not in json.dumps(jobs)
    pictures = [client.get(job["images"][0]["url"]).content for job in jobs]
    assert pictures[0] == pictures[1]
    started = [job for job in running.executor.started if job.id in ids]
    assert len(started) == 2
    for job in started:
        [(sha256, file)] = job.inputs.items()
        assert sha256 == image["sha256"]
        assert is_whole_png(file)


def test_a_size_that_is_left_out_is_the_pictures_own_rounded_down(client):
    job = client.post("/v1/jobs", json={**WISH, "image": TEXT}).json()
    assert (job["params"]["width"], job["params"]["height"]) == (96, 64)
    grown = {"expand": {"left": 32, "top": 16}, "mask_blur": 4}
    job = client.post("/v1/jobs", json={**WISH, "image": TEXT, **grown}).json()
    assert (job["params"]["width"], job["params"]["height"]) == (128, 80)
    assert (job["params"]["strength"], job["params"]["expand"]["blur"]) == (1.0, 4)


def test_everything_that_can_be_said_of_pictures_is_in_the_job(client):
    wish = {
        **WISH, "image": TEXT, "mask": TEXT, "strength": 0.5, "resize": "fill", "mask_invert": True, "mask_blur": 4,
        "mask_area": "masked", "mask_padding": 16, "masked_content": "noise", "variation_seed": 9,
        "variation_strength": 0.25, "width": 128, "height": 128,
    }  # fmt: skip
    params = client.post("/v1/jobs", json=wish).json()["params"]
    assert (params["strength"], params["resize"], params["variation_seed"]) == (0.5, "fill", 9)
    mask = {name: params["mask"][name] for name in ("invert", "blur", "area", "padding", "content")}
    assert mask == {"invert": True, "blur": 4, "area": "masked", "padding": 16, "content": "noise"}
    assert params["mask"]["image"]["sha256"] != params["image"]["sha256"], "a mask is grey"


def test_a_hires_fix_is_filled_in(client):
    wish = {**WISH, "width": 128, "height": 64, "hires": {"scale": 1.6}}
    hires = client.post("/v1/jobs", json=wish).json()["params"]["hires"]
    assert (hires["width"], hires["height"], hires["steps"], hires["strength"]) == (200, 96, 2, 0.7)


def test_a_text_request_says_what_it_said_before(client):
    params = client.post("/v1/jobs", json=WISH).json()["params"]
    assert (params["image"], params["mask"], params["expand"], params["hires"]) == (None,) * 4


def test_a_picture_is_enlarged_as_a_job_of_its_own(client):
    answer = client.post("/v1/upscale", content=form_of({"scale": 1.5}, {"image": PICTURE}), headers=FORM)
    assert answer.status_code == 202, answer.text
    job = ended(client, answer.json()["id"])
    assert job["status"] == "done"
    assert (job["params"]["width"], job["params"]["height"]) == (150, 105)
    assert job["params"]["upscaler"] == "lanczos"
    refused = client.post("/v1/upscale", json={"image": base64.b64encode(png(4, 2000)).decode(), "scale": 3})
    assert problem(refused, 422, "invalid_request")["errors"][0]["field"] == "scale"


def test_a_retry_is_compared_by_what_is_in_its_picture(client):
    headers = {"Idempotency-Key": "picture-1"}
    first = client.post("/v1/jobs", json={**WISH, "image": TEXT}, headers=headers)
    form = client.post("/v1/jobs", content=form_of(WISH, {"image": PICTURE}), headers={**headers, **FORM})
    assert (form.status_code, form.json()["id"]) == (200, first.json()["id"])
    other = {**WISH, "image": base64.b64encode(png(70, 100, seed=1)).decode()}
    problem(client.post("/v1/jobs", json=other, headers=headers), 422, "idempotency_key_reused")


def test_a_large_request_without_a_length_is_taken(client):
    large = form_of(WISH, {"image": png(1300, 1300)})
    assert len(large) > 4 * MAX_BODY_BYTES
    chunks = (large[at : at + 65536] for at in range(0, len(large), 65536))
    answer = client.post("/v1/jobs", content=chunks, headers=FORM)
    assert answer.status_code == 202, answer.text
    in_json = {**WISH, "image": base64.b64encode(png(1300, 1300)).decode()}
    again = client.post("/v1/jobs", json=in_json)
    assert again.json()["params"]["image"] == answer.json()["params"]["image"]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"image": "https://example.org/cat.png"}, "image"),
        ({"image": "not base64!"}, "image"),
        ({"image": 5}, "image"),
        ({"image": [TEXT]}, "image"),
        ({"mask": TEXT}, "mask"),
        ({"image": TEXT, "mask": base64.b64encode(png(8, 8)).decode()}, "mask"),
        ({"image": base64.b64encode(bomb(60_000, 1)).decode()}, "image"),
        ({"image": TEXT, "strength": 0.1}, "strength"),
        ({"strength": 0.5}, "strength"),
        ({"image": TEXT, "strength": "0.5"}, "strength"),
        ({"image": TEXT, "resize": "zoom"}, "resize"),
        ({"image": TEXT, "mask_blur": 4}, "mask_blur"),
        ({"image": TEXT, "mask_padding": 4}, "mask_padding"),
        ({"image": TEXT, "mask_invert": True}, "mask_invert"),
        ({"image": TEXT, "expand": {"left": 7}}, "expand.left"),
        ({"image": TEXT, "expand": {"left": 7}, "width": None}, "expand.left"),
        ({"image": TEXT, "expand": {"left": 2048}, "width": None}, "expand"),
        ({"image": base64.b64encode(png(1, 64)).decode(), "width": None, "height": None}, "image"),
        ({"image": TEXT, "expand": {}}, "expand"),
        ({"image": TEXT, "mask": TEXT, "expand": {"left": 8}}, "expand"),
        ({"variation_strength": 0.5}, "variation_strength"),
        ({"hires": {}}, "hires.scale"),
        ({"hires": {"scale": 2, "width": 512, "height": 512}}, "hires.scale"),
        ({"hires": {"scale": 2, "sampler": "Eulerr"}}, "hires.sampler"),
        ({"hires": {"scale": 2}, "image": TEXT}, "hires"),
        ({"hires": {"scale": 2, "steps": "4"}}, "hires.steps"),
    ],
)
def test_a_wrong_value_is_named_by_its_field(client, nothing_left, wish, field):
    document = problem(
        client.post("/v1/jobs", json={**WISH, "width": 96, "height": 64, **wish}), 422, "invalid_request"
    )
    assert document["errors"][0]["field"] == field
    assert TEXT[:40] not in json.dumps(document)


@pytest.mark.parametrize("path", ["/generate", "/v1/jobs", "/v1/upscale"])
@pytest.mark.parametrize("data", [b"GIF89a", b"hello", PICTURE[:50], b""])
def test_what_is_no_picture_is_415_with_its_field(client, nothing_left, path, data):
    request = {} if path == "/v1/upscale" else WISH
    document = problem(
        client.post(path, json={**request, "image": base64.b64encode(data).decode()}), 415, "unsupported_image"
    )
    assert document["errors"][0]["field"] == "image"


def test_what_is_too_large_is_413(client, nothing_left):
    announced = client.post("/v1/jobs", content=bytes(MAX_UPLOAD_BYTES + 1), headers=FORM)
    problem(announced, 413, "upload_too_large")
    without = client.post("/v1/jobs", json={"prompt": "x" * 2 * MAX_BODY_BYTES})
    problem(without, 413, "upload_too_large")
    file = form_of(WISH, {"image": bytes(2**24 + 1)})
    document = problem(client.post("/v1/jobs", content=file, headers=FORM), 413, "upload_too_large")
    assert document["errors"][0]["field"] == "image"


def test_other_routes_take_no_more_than_before(client):
    job_id = "0" * 16
    answer = client.post(f"/v1/jobs/{job_id}/cancel", content=bytes(MAX_BODY_BYTES + 1))
    problem(answer, 413, "content_too_large")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_a_form_of_a_foreign_page_is_refused(client, nothing_left, origin):
    body = form_of(WISH, {"image": PICTURE})
    problem(client.post("/v1/jobs", content=body, headers={**FORM, "Origin": origin}), 403, "foreign_page")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_browser_that_says_whose_page_it_is_is_believed(client, running, nothing_left, site):
    headers = {**FORM, "Origin": running.url, "Sec-Fetch-Site": site}
    problem(client.post("/v1/jobs", content=form_of(WISH, {"image": PICTURE}), headers=headers), 403, "foreign_page")


def test_a_form_of_the_servers_own_page_is_taken(client, running):
    for headers in ({"Origin": running.url}, {"Origin": "https://proxied.example", "Sec-Fetch-Site": "same-origin"}):
        answer = client.post("/v1/jobs", content=form_of(WISH, {"image": PICTURE}), headers={**FORM, **headers})
        assert answer.status_code == 202


def test_a_form_of_an_origin_that_the_operator_names_is_taken(serve):
    running = serve(cors_origins=("https://dreams.example",))
    headers = {**FORM, "Origin": "https://dreams.example", "Sec-Fetch-Site": "cross-site"}
    body = form_of(WISH, {"image": PICTURE})
    assert httpx2.post(f"{running.url}/v1/jobs", content=body, headers=headers, timeout=60).status_code == 202


def test_a_key_that_may_not_draw_is_refused_before_its_body_has_come(serve):
    """Of 30 MiB, a hundred bytes are sent: were the rest waited for, no answer would come."""
    running = serve()
    keys = running.app.state.service.keys
    made = asyncio.run_coroutine_threadsafe(keys.create("watcher", ["read"], expires_s=None), running.loop)
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\nX-API-Key: {made.result(60)[1]}\r\n"
        f"Content-Type: {FORM['Content-Type']}\r\nContent-Length: {30 * 2**20}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", running.port), timeout=60) as connection:
        connection.sendall(head.encode() + form_of(WISH, {"image": PICTURE})[:100])
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert (answer.status, json.load(answer)["code"]) == (403, "insufficient_scope")


def test_as_many_bytes_of_uploads_as_may_be_are_taken_and_then_503(running, client, monkeypatch):
    spool = running.app.state.service.uploads._spool
    with monkeypatch.context() as narrow:
        narrow.setattr(spool, "_max_bytes", len(PICTURE))
        answer = client.post("/v1/jobs", content=form_of(WISH, {"image": PICTURE}), headers=FORM)
        assert problem(answer, 503, "too_many_uploads")["retry_after"] == 5
    assert spool.num_bytes == 0


def test_a_disk_without_room_refuses_an_upload_and_nothing_is_left(running, client, nothing_left, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("server.uploads.spool.tempfile.TemporaryFile", full)
        answer = client.post("/v1/jobs", content=form_of(WISH, {"image": PICTURE}), headers=FORM)
        problem(answer, 503, "store_unavailable")
    until(lambda: client.get("/v1/queue").json()["accepting"], 60, "accepting")


def test_inputs_lie_where_only_the_server_reads_them(running):
    for path in (running.inputs, *running.inputs.glob("*.png")):
        assert Path(path).stat().st_mode & 0o077 == 0
