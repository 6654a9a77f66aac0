"""`POST /generate` on its good days: pictures, headers, JSON, negotiation."""

from __future__ import annotations

import asyncio
import base64

import httpx2
import pytest

from server.errors import ClientGoneError
from server.routes.hang_up import until_hang_up

PROMPT = {"prompt": "a cat on a mat, digital art"}


@pytest.fixture(scope="module")
def client(server):
    with httpx2.Client(base_url=server.url) as client:
        yield client


def test_a_prompt_alone_gives_a_png_and_says_how_to_draw_it_again(client):
    answer = client.post("/generate", json=PROMPT)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.content.startswith(b"\x89PNG\r\n")
    assert 0 <= int(answer.headers["x-seed"]) < 2**32
    assert answer.headers["x-model-id"] == "fake"
    assert answer.headers["x-sampler"] == "DPMSolver++"
    assert answer.headers["x-noise-schedule"] == "karras"
    assert answer.headers["x-prompt-truncated"] == "false"
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = client.post("/generate", json={**PROMPT, "seed": int(answer.headers["x-seed"])})
    assert again.content == answer.content


def test_server_timing_names_every_phase_in_milliseconds(client):
    timing = client.post("/generate", json=PROMPT).headers["server-timing"]
    names, durations = zip(*(entry.split(";dur=") for entry in timing.split(", ")), strict=True)
    assert names == ("queue", "encode", "denoise", "decode", "png")
    assert all(float(duration) >= 0 for duration in durations)


def test_two_requests_without_a_seed_get_different_ones(client):
    seeds = {client.post("/generate", json=PROMPT).headers["x-seed"] for _ in range(5)}
    assert len(seeds) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a dog"},
        {"negative_prompt": "snow"},
        {"num_inference_steps": 5},
        {"guidance_scale": 3},
        {"height": 256},
        {"width": 256},
        {"seed": 8},
        {"sampler": "Euler"},
        {"noise_schedule": "default"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_wish_reaches_the_engine(client, change):
    wish = {**PROMPT, "seed": 7}
    assert client.post("/generate", json=wish | change).content != client.post("/generate", json=wish).content


def test_null_is_the_same_as_left_out_and_defaults_are_the_specifications(client):
    bare = client.post("/generate", json={**PROMPT, "seed": 1})
    nulls = dict.fromkeys(("negative_prompt", "height", "width", "sampler", "noise_schedule", "output_format", "user"))
    assert client.post("/generate", json={**PROMPT, "seed": 1, **nulls}).content == bare.content
    spelled_out = {"num_inference_steps": 28, "guidance_scale": 7.0, "height": 512, "width": 512, "num_images": 1}
    assert client.post("/generate", json={**PROMPT, "seed": 1, **spelled_out}).content == bare.content


def test_several_pictures_are_json_with_one_seed_each(client):
    answer = client.post("/generate", json={**PROMPT, "seed": 10, "num_images": 3, "sampler": "euler a"})
    assert answer.status_code == 200
    told = answer.json()
    assert [image["seed"] for image in told["images"]] == [10, 11, 12]
    assert told["model"] == "fake"
    assert (told["sampler"], told["noise_schedule"]) == ("Euler a", "default")
    assert told["prompt_truncated"] is False
    assert told["work_units"] == 3.0
    assert told["media_type"] == "image/png"
    for image in told["images"]:
        alone = client.post("/generate", json={**PROMPT, "seed": image["seed"], "sampler": "Euler a"})
        assert base64.b64decode(image["b64"]) == alone.content


@pytest.mark.parametrize(
    ("accept", "body", "expected"),
    [
        ("*/*", {}, "image/png"),
        ("", {}, "image/png"),
        ("image/*", {}, "image/png"),
        ("application/json", {}, "application/json"),
        ("application/json;q=0.5, image/png", {}, "image/png"),
        ("application/json, image/png;q=0.5", {}, "application/json"),
        ("image/webp", {}, "image/webp"),
        ("image/avif,image/webp,image/*;q=0.8", {}, "image/webp"),
        ("image/*", {"output_format": "jpeg"}, "image/jpeg"),
        ("*/*", {"output_format": "webp"}, "image/webp"),
        ("*/*;q=0.1, application/*;q=0", {}, "image/png"),
    ],
)
def test_the_answer_is_what_the_client_prefers(client, accept, body, expected):
    answer = client.post("/generate", json={**PROMPT, **body}, headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == expected


@pytest.mark.parametrize(
    ("accept", "body"),
    [
        ("text/html", {}),
        ("image/webp", {"output_format": "png"}),
        ("image/png", {"num_images": 2}),
        ("image/png;q=0", {"output_format": "png"}),
        ("*/*;q=abc", {}),
    ],
)
def test_nothing_acceptable_is_406_and_draws_nothing(client, server, accept, body):
    drawn = len(server.executor.started)
    answer = client.post("/generate", json={**PROMPT, **body}, headers={"Accept": accept})
    assert answer.status_code == 406
    assert answer.json()["code"] == "not_acceptable"
    assert len(server.executor.started) == drawn


def test_a_prompt_longer_than_the_encoder_reads_is_drawn_and_told(client):
    answer = client.post("/generate", json={"prompt": "a cat " * 100})
    assert answer.headers["x-prompt-truncated"] == "true"


def test_a_picture_is_kept_as_a_job(client):
    answer = client.post("/generate", json=PROMPT)
    job = client.get(f"/v1/jobs/{answer.headers['x-job-id']}").json()
    assert (job["status"], job["params"]["seed"]) == ("done", int(answer.headers["x-seed"]))
    assert client.get(job["images"][0]["url"]).content == answer.content


def test_the_callers_request_id_comes_back_and_a_strange_one_is_replaced(client):
    assert client.get("/livez", headers={"X-Request-Id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    for strange in ("a b", "x" * 65, "ä".encode(), '"><script>'):
        theirs = client.get("/livez", headers={"X-Request-Id": strange}).headers["x-request-id"]
        assert len(theirs) == 32
        assert theirs.isalnum()


def test_default_size_and_settings_follow_the_configuration(serve):
    running = serve(default_height=256, default_width=384, default_steps=3, scheduler_type="Euler")
    httpx2.post(f"{running.url}/generate", json=PROMPT).raise_for_status()
    params = running.executor.started[0].params
    assert (params.height, params.width, params.num_inference_steps) == (256, 384, 3)
    assert (params.sampler, params.noise_schedule) == ("Euler", "karras")


def test_a_sampler_without_karras_levels_gets_its_own(serve):
    running = serve(use_karras_sigmas=False)
    httpx2.post(f"{running.url}/generate", json=PROMPT).raise_for_status()
    httpx2.post(f"{running.url}/generate", json={**PROMPT, "sampler": "DPM++ 2M Karras"}).raise_for_status()
    assert [job.params.noise_schedule for job in running.executor.started] == ["default", "karras"]


@pytest.mark.parametrize("what_becomes", ["its job was cancelled", "its job goes on because it has an Idempotency-Key"])
async def test_a_hang_up_says_what_becomes_of_the_job(what_becomes):
    class Gone:
        async def receive(self):
            return {"type": "http.disconnect"}

    with pytest.raises(ClientGoneError, match=f"^the client disconnected; {what_becomes}$"):
        await until_hang_up(Gone(), asyncio.sleep(10), what_becomes)
