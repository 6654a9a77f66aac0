"""webuiapi, a client of AUTOMATIC1111's API, drives the server: pictures, masks, hires, extras, progress, interrupt."""

from __future__ import annotations

import asyncio
import base64
import importlib
import io
import json
import threading

import httpx2
import pytest
from PIL import Image

from server.store.record import JobQuery
from server.worker.fake_executor import FakeExecutor
from tests.server.uploads.picture_files import pixels_of, png


@pytest.fixture(scope="module")
def webuiapi():
    return importlib.import_module("webuiapi")  # so that other tests are collected where it is not installed


@pytest.fixture(scope="module")
def running(module_serve):
    return module_serve(FakeExecutor(max_images_in_flight=8))


@pytest.fixture(scope="module")
def api(webuiapi, running):
    return webuiapi.WebUIApi(host="127.0.0.1", port=running.port)


@pytest.fixture
def picture():
    return Image.fromarray(pixels_of(64, 128))


def same_pixels(picture: Image.Image, file: bytes) -> bool:
    return picture.tobytes() == Image.open(io.BytesIO(file)).tobytes()


def test_pictures_are_those_of_generate(api, running):
    drawn = api.txt2img(
        prompt="a cat", negative_prompt="fog", seed=7, steps=4, cfg_scale=5, width=128, height=64, batch_size=2
    )
    wish = {
        "prompt": "a cat",
        "negative_prompt": "fog",
        "width": 128,
        "height": 64,
        "seed": 7,
        "num_inference_steps": 4,
    }
    wish |= {"guidance_scale": 5, "sampler": "Euler a", "noise_schedule": "default"}
    ours = [httpx2.post(f"{running.url}/generate", json=wish | {"seed": seed}).content for seed in (7, 8)]
    assert all(same_pixels(image, file) for image, file in zip(drawn.images, ours, strict=True))
    info = drawn.info
    assert (info["all_seeds"], info["sampler_name"], info["width"], info["steps"]) == ([7, 8], "Euler a", 128, 4)
    assert info["infotexts"][0].startswith("a cat\nNegative prompt: fog\nSteps: 4, Sampler: Euler a, ")
    assert drawn.parameters["prompt"] == "a cat"


def test_an_empty_prompt_draws_and_the_seed_is_named(api, running):
    drawn = api.txt2img()
    assert running.executor.started[-1].params.prompt == ""
    assert drawn.info["seed"] == running.executor.started[-1].params.seed >= 0


def test_old_labels_name_their_scheduler(api, running):
    for label, scheduler, expected in (
        ("DPM++ 2M Karras", "automatic", ("DPMSolver++", "karras")),
        ("DPM++ 2M SDE", "Automatic", ("DPM++ 2M SDE", "exponential")),
        ("k_dpmpp_2m", None, ("DPMSolver++", "karras")),
        ("Euler", "SGM Uniform", ("Euler", "trailing")),
        ("PLMS", "automatic", ("PNDM", "default")),
        ("Restart", None, ("Restart", "karras")),
        ("DPM++ 2S a", "Automatic", ("DPM++ 2S a", "karras")),
        ("k_dpmpp_2m_sde_heun", None, ("DPM++ 2M SDE Heun", "exponential")),
        ("IPNDM_V", "Karras", ("IPNDM V", "karras")),
    ):
        api.txt2img(prompt="a cat", sampler_name=label, scheduler=scheduler, steps=2)
        params = running.executor.started[-1].params
        assert (params.sampler, params.noise_schedule) == expected


def test_an_image_and_a_mask_are_handed_on(api, running, picture):
    api.img2img(images=[picture], prompt="a hat", denoising_strength=0.5, width=128, height=64, steps=4)
    params = running.executor.started[-1].params
    assert (params.strength, params.mask, params.width) == (0.5, None, 128)
    mask = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    mask.paste((0, 0, 0, 255), (0, 0, 64, 64))
    api.img2img(
        images=[picture], mask_image=mask, inpainting_fill=1, inpaint_full_res=False, mask_blur=2, width=128, height=64
    )
    job = running.executor.started[-1]
    assert (job.params.mask.area, job.params.mask.content, job.params.mask.blur) == ("whole", "original", 2)
    grey = Image.open(io.BytesIO(job.inputs[job.params.mask.image.sha256]))
    assert (grey.getpixel((0, 0)), grey.getpixel((127, 0))) == (255, 0), "alpha counts"


def test_hires_enlarges_and_draws_on(api, running):
    api.txt2img(prompt="a cat", steps=4, width=128, height=64, enable_hr=True, hr_scale=2, denoising_strength=0.6,
                hr_upscaler=importlib.import_module("webuiapi").HiResUpscaler.Latent)  # fmt: skip
    hires = running.executor.started[-1].params.hires
    assert (hires.width, hires.height, hires.steps, hires.strength, hires.upscaler) == (256, 128, 4, 0.6, "latent")


def test_extras_enlarge_and_png_info_reads(api, running, picture):
    assert len(api.extra_single_image(picture, upscaler_1="Lanczos", upscaling_resize=2).images) == 1
    params = running.executor.started[-1].params
    assert (params.width, params.height, params.upscaler) == (256, 128, "lanczos")
    assert len(api.extra_batch_images([picture, picture.rotate(180)], upscaler_1="Lanczos").images) == 2
    assert api.png_info(picture).info == ""
    text = "a cat\nSteps: 4, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512"
    picture.info["parameters"] = text
    read = api.png_info(picture)
    assert read.info == text
    assert read.parameters["Size-1"] == "512"


def test_lists_and_options_are_as_the_client_reads_them(api):
    assert api.get_options()["sd_model_checkpoint"] == api.get_sd_models()[0]["title"]
    assert api.util_get_current_model() == "fake"
    assert "DPM++ 2M" in api.util_get_sampler_names()
    assert "karras" in api.util_get_scheduler_names()
    whole = api.get_options()
    api.set_options({**whole, "send_seed": False})
    assert api.get_options() == {**whole, "send_seed": False}
    with_defaults = api.get_upscalers()
    assert [entry["name"] for entry in with_defaults][:2] == ["None", "Lanczos"]
    assert api.get_scripts() == {"txt2img": [], "img2img": []}
    for get in (api.get_loras, api.get_sd_vae, api.get_hypernetworks, api.get_face_restorers, api.get_embeddings):
        get()
    assert api.get_memory()["cuda"]
    assert api.get_cmd_flags() == {}


def test_idle_is_exactly_nothing(api):
    state = api.get_progress()
    assert (state["progress"], state["state"]["job_count"], state["state"]["job"]) == (0, 0, "")


async def _records(running):
    store = running.app.state.service.generator.storage.store
    query = JobQuery(key_id=None, limit=10)
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(store.page(query), running.loop))


def test_an_interrupted_call_is_answered_with_a_picture(webuiapi, serve):
    executor = FakeExecutor(step_s=0.05, max_images_in_flight=8)
    running = serve(executor, api_key="k" * 40)
    keyed = {"X-API-Key": "k" * 40}
    api = webuiapi.WebUIApi(host="127.0.0.1", port=running.port, username="any", password="k" * 40)
    found = []
    waiting = threading.Thread(target=lambda: found.append(api.txt2img(prompt="a cat", steps=150, width=64, height=64)))
    waiting.start()
    state = api.get_progress()
    while not state["current_image"]:
        assert waiting.is_alive()
        state = api.get_progress()
    assert 0 < state["progress"] < 1
    assert state["state"]["sampling_steps"] == 150
    api.interrupt()
    waiting.join(60)
    [result] = found
    [image] = result.images
    assert image.size == (8, 8), "what the engine decoded; an enlarged preview would be 64x64"
    assert api.get_progress()["progress"] == 0
    job = httpx2.get(f"{running.url}/v1/jobs", headers=keyed).json()["jobs"][0]
    assert job["status"] == "done"
    assert len(job["images"]) == 1
    [kept] = [record for record in asyncio.run(_records(running)) if record.id == job["id"]]
    assert kept.outcome.is_interrupted, "it is written down"
    usage = httpx2.get(f"{running.url}/v1/usage", headers=keyed).json()
    assert 0 < usage["total"]["work_units"] < executor.started[0].params.work_units


def began(client, path="/sdapi/v1/txt2img", **body):
    """A call that waits for its pictures, and has taken steps: what ends it, and where its answer will be."""
    found = []
    waiting = threading.Thread(target=lambda: found.append(client.post(path, json={"prompt": "a cat", **body})))
    waiting.start()
    while not (state := client.get("/sdapi/v1/progress").json())["progress"]:
        assert waiting.is_alive()
    assert state["state"]["skipped"] is False
    return waiting, found


def test_an_interrupt_ends_every_batch_and_a_skip_the_present_one(serve):
    running = serve(FakeExecutor(step_s=0.02, max_images_in_flight=2))
    wish = {"steps": 40, "width": 64, "height": 64, "seed": 5, "batch_size": 2, "n_iter": 2}
    with httpx2.Client(base_url=running.url, timeout=60) as client:
        waiting, found = began(client, **wish)
        client.post("/sdapi/v1/interrupt")
        waiting.join(60)
        waiting, skipped = began(client, **wish)
        assert client.post("/sdapi/v1/skip").json() is None
        waiting.join(60)
        usage = client.get("/v1/jobs").json()["jobs"]
        whole = client.post("/sdapi/v1/txt2img", json={"prompt": "a cat", **wish}).json()
    ended, skipped = found[0].json(), skipped[0].json()
    assert json.loads(ended["info"])["all_seeds"] == [5, 6], "the second batch had not begun"
    assert len(ended["images"]) == 2
    assert json.loads(skipped["info"])["all_seeds"] == [5, 6, 7, 8]
    assert skipped["images"][2:] == whole["images"][2:], "drawn to their end"
    assert not set(skipped["images"][:2]) & set(whole["images"])
    assert [job["status"] for job in usage] == ["done", "done"]


def test_a_skip_before_the_first_step_skips_nothing(serve):
    running = serve()
    running.call(running.executor.hang)
    with httpx2.Client(base_url=running.url, timeout=60) as client:
        body = {"prompt": "a cat", "width": 64, "height": 64, "seed": 5, "steps": 4}
        found = []
        waiting = threading.Thread(target=lambda: found.append(client.post("/sdapi/v1/txt2img", json=body).json()))
        waiting.start()
        while not client.get("/sdapi/v1/progress").json()["state"]["job_count"]:
            assert waiting.is_alive()
        client.post("/sdapi/v1/skip")
        running.call(running.executor.wake)
        waiting.join(60)
        assert found[0]["images"] == client.post("/sdapi/v1/txt2img", json=body).json()["images"]


def test_what_cannot_be_done_is_refused_by_name(webuiapi, api, picture):
    unit = webuiapi.ControlNetUnit(image=picture)
    for wish, said in (
        ({"prompt": "a cat <lora:ink:1>"}, "'ink'"),
        ({"styles": ["comic"]}, "styles"),
        ({"sampler_name": "Restart 9"}, "sampler_name"),
        ({"scheduler": "KL Optimal"}, "scheduler"),
        ({"width": 100}, "width"),
        ({"script_name": "sd upscale"}, "'sd upscale' not found"),
        ({"alwayson_scripts": {"ControlNet": {"args": [unit.to_dict()]}}}, "'ControlNet' not found"),
        ({"override_settings": {"sd_model_checkpoint": "nope"}}, "sd_model_checkpoint"),
        ({"override_settings": {"CLIP_stop_at_last_layers": "many"}}, "CLIP_stop_at_last_layers"),
        ({"batch_size": 10, "n_iter": 7}, "batch_size * n_iter"),
    ):
        with pytest.raises(RuntimeError) as caught:
            api.txt2img(**{"prompt": "a cat", **wish})
        status, text = caught.value.args
        assert status == 422, text
        assert said in json.loads(text)["detail"]


def test_lenient_where_it_does_no_harm(running):
    body = {"prompt": "a cat", "steps": "4", "seed": "", "width": 64.0, "height": "64", "auth": "user:secret"}
    body |= {"url": "http://x", "restore_faces": True, "sampler_name": None, "n_iter": 2, "batch_size": 2}
    answer = httpx2.post(f"{running.url}/sdapi/v1/txt2img?x=1", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-ignored-parameters"] == "restore_faces, auth, url"
    assert "secret" not in answer.text
    assert len(answer.json()["images"]) == 4
    assert all("," not in image for image in answer.json()["images"])
    assert json.loads(answer.json()["info"])["extra_generation_params"] == {"Ignored": "restore_faces, auth, url"}
    assert httpx2.post(f"{running.url}/sdapi/v1/txt2img", json={**body, "send_images": False}).json()["images"] == []
    many = httpx2.post(f"{running.url}/sdapi/v1/txt2img", json={"steps": 1, "batch_size": 8, "n_iter": 8}).json()
    assert len(set(many["images"])) == 64


def test_there_is_no_picture_without_an_image(running):
    answer = httpx2.post(f"{running.url}/sdapi/v1/img2img", json={"prompt": "a cat"})
    assert (answer.status_code, answer.json()["detail"]) == (404, "Init image not found")
    address = httpx2.post(f"{running.url}/sdapi/v1/img2img", json={"init_images": ["http://127.0.0.1/x.png"]})
    assert address.status_code == 422
    assert "not fetched" in address.json()["detail"]


def test_a_page_of_another_site_can_end_nothing(running):
    for path in ("/sdapi/v1/interrupt", "/sdapi/v1/skip", "/sdapi/v1/unload-checkpoint"):
        answer = httpx2.post(f"{running.url}{path}", headers={"Origin": "https://e.example"})
        assert (answer.status_code, answer.headers["x-error-code"]) == (403, "foreign_page")


def test_the_key_is_the_password(serve):
    running = serve(api_key="k" * 40)
    with httpx2.Client(base_url=running.url) as client:
        for header in ("Basic", "Basic dW5kZWZpbmVk", "Basic Og==", ""):
            answer = client.get("/sdapi/v1/options", headers={"Authorization": header} if header else {})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Basic ")
            assert answer.json()["error"] == "HTTPException"
        assert client.get("/sdapi/v1/options", auth=("user", "k" * 40)).status_code == 200
        assert client.get("/v1/queue", auth=("user", "k" * 40)).status_code == 401, "our own API is as it was"


def test_a_task_is_followed_by_its_name(serve):
    running = serve(FakeExecutor(step_s=0.05))
    with httpx2.Client(base_url=running.url, timeout=60) as client:
        idle = client.post("/internal/progress", json={"id_task": "task(1)"}).json()
        assert (idle["active"], idle["completed"]) == (False, True)
        body = {"prompt": "a cat", "steps": 100, "force_task_id": "task(1)", "width": 64, "height": 64}
        waiting = threading.Thread(target=client.post, args=("/sdapi/v1/txt2img",), kwargs={"json": body})
        waiting.start()
        while not (state := client.post("/internal/progress", json={"id_task": "task(1)"}).json())["live_preview"]:
            assert waiting.is_alive()
        assert state["live_preview"].startswith("data:image/")
        assert client.get("/internal/pending-tasks").json() == {"size": 1, "tasks": ["task(1)"]}
        client.post("/sdapi/v1/interrupt")
        waiting.join(60)


def test_a_picture_in_a_body_may_be_raw_base64(running):
    raw = base64.b64encode(png(64, 64)).decode()
    body = {"init_images": [raw], "width": 64, "height": 64, "denoising_strength": 0}
    assert httpx2.post(f"{running.url}/sdapi/v1/img2img", json=body).status_code == 200


def test_a_call_that_waits_its_turn_is_interrupted_too(serve):
    running = serve(FakeExecutor(load_s=60))
    found = []
    with httpx2.Client(base_url=running.url, timeout=60) as client:
        body = {"prompt": "a cat", "width": 64, "height": 64}
        waiting = threading.Thread(target=lambda: found.append(client.post("/sdapi/v1/txt2img", json=body)))
        waiting.start()
        while not (state := client.get("/sdapi/v1/progress").json())["textinfo"]:
            assert waiting.is_alive()
        assert (state["progress"], state["textinfo"], state["state"]["job_count"]) == (0, "In queue: 1/1", 1)
        client.post("/sdapi/v1/interrupt")
        waiting.join(60)
    [answer] = found
    assert answer.status_code == 200
    [image] = answer.json()["images"]
    assert Image.open(io.BytesIO(base64.b64decode(image))).size == (64, 64)


def test_nobody_ends_the_calls_of_another_key(serve):
    running = serve(FakeExecutor(step_s=0.05), api_key="k" * 40)
    other = running.app.state.service.keys
    made = asyncio.run_coroutine_threadsafe(other.create("other", ["generate", "read"], expires_s=None), running.loop)
    text = made.result(60)[1]
    found = []
    with httpx2.Client(base_url=running.url, timeout=60) as client:
        mine, theirs = {"X-API-Key": "k" * 40}, {"X-API-Key": text}
        body = {"prompt": "a cat", "steps": 20, "width": 64, "height": 64, "seed": 1}
        waiting = threading.Thread(
            target=lambda: found.append(client.post("/sdapi/v1/txt2img", json=body, headers=mine))
        )
        waiting.start()
        while not client.get("/sdapi/v1/progress", headers=mine).json()["progress"]:
            assert waiting.is_alive()
        assert client.get("/sdapi/v1/progress", headers=theirs).json()["progress"] == 0
        client.post("/sdapi/v1/interrupt", headers=theirs)
        waiting.join(60)
        wish = {"prompt": "a cat", "num_inference_steps": 20, "width": 64, "height": 64, "seed": 1}
        whole = client.post("/generate", json=wish, headers=mine)
    [image] = found[0].json()["images"]
    assert base64.b64decode(image) == whole.content, "drawn to its end"


def test_options_are_of_one_key_and_an_override_of_one_request(serve):
    running = serve()
    with httpx2.Client(base_url=f"{running.url}/sdapi/v1") as client:
        body = {"prompt": "a cat", "steps": 1, "override_settings": {"CLIP_stop_at_last_layers": 3}}
        info = json.loads(client.post("/txt2img", json=body).json()["info"])
        assert (info["clip_skip"], running.executor.started[-1].params.clip_skip) == (3, 2)
        assert client.post("/options", json={"CLIP_stop_at_last_layers": 2}).status_code == 200
        client.post("/txt2img", json={"prompt": "a cat", "steps": 1})
        assert running.executor.started[-1].params.clip_skip == 1
        assert client.post("/options", json={"sd_model_checkpoint": "nope"}).status_code == 422


def test_options_are_kept_when_the_server_restarts(serve, tmp_path):
    wishes = {"CLIP_stop_at_last_layers": 2, "samples_format": "jpg", "send_seed": False}
    for is_second in (False, True):
        running = serve(data_dir=str(tmp_path))
        with httpx2.Client(base_url=f"{running.url}/sdapi/v1") as client:
            if not is_second:
                client.post("/options", json=wishes)
            assert client.get("/options").json().items() >= wishes.items()
            info = json.loads(client.post("/txt2img", json={"prompt": "a cat", "steps": 1}).json()["info"])
            assert info["clip_skip"] == 2
        running.stop()


@pytest.mark.parametrize(
    "wrong",
    [
        {"CLIP_stop_at_last_layers": 0},
        {"CLIP_stop_at_last_layers": "2"},
        {"samples_format": "gif"},
        {"samples_format": 1},
        {"sd_vae": "other.pt"},
        {"eta_ddim": 2},
        {"send_seed": "yes"},
        {"show_progress_every_n_steps": []},
    ],
    ids=str,
)
def test_an_option_that_cannot_be_is_refused_by_name_and_none_is_kept(running, wrong):
    before = httpx2.get(f"{running.url}/sdapi/v1/options").json()
    answer = httpx2.post(f"{running.url}/sdapi/v1/options", json={"return_grid": True, **wrong})
    assert answer.status_code == 422
    assert next(iter(wrong)) in answer.json()["detail"]
    assert httpx2.get(f"{running.url}/sdapi/v1/options").json() == before
