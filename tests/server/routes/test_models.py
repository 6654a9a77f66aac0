"""Several models over HTTP: their names, what each defaults to, and that a request names nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
import torch
from safetensors.torch import save_file
from structlog.testing import capture_logs

from engine.models.random_model import make_random_model

SIDE_FILE = """
[defaults]
num_inference_steps = 6
guidance_scale = 1
sampler = "LCM"
noise_schedule = "default"
"""


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, and what is none."""
    folder = tmp_path_factory.mktemp("models")
    make_random_model(folder / "quick", seed=1)
    (folder / "quick.toml").write_text(SIDE_FILE)
    make_random_model(folder / "xl", arch="tiny-xl")
    shutil.copytree(folder / "quick", folder / "a name with spaces")
    shutil.copytree(folder / "quick", folder / "damaged")
    (folder / "damaged" / "unet" / "config.json").write_text("{")
    (folder / "notes.txt").write_text("no model")
    (folder / "torn.safetensors").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def embeddings_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One textual inversion for each family, and what is none."""
    folder = tmp_path_factory.mktemp("embeddings")
    save_file({"emb_params": torch.ones(3, 32)}, folder / "glow.safetensors")
    save_file({"clip_l": torch.ones(2, 32), "clip_g": torch.ones(2, 48)}, folder / "glow-xl.safetensors")
    (folder / "torn.safetensors").write_bytes(b"")
    (folder / "old.pt").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def client(module_serve: Callable, models_dir: Path, embeddings_dir: Path):
    with capture_logs() as lines:
        running = module_serve(models_dir=models_dir, embeddings_dir=embeddings_dir)
    left_out = {Path(line["path"]).name for line in lines if line["event"] == "a model is left out"}
    assert left_out == {"a name with spaces", "damaged", "torn.safetensors"}
    with httpx2.Client(base_url=running.url, timeout=60) as client:
        yield client


def test_the_models_are_listed_with_what_each_defaults_to(client: httpx2.Client):
    default, *others = (entry for entry in client.get("/v1/models").json()["data"] if entry["family"] != "")
    assert default["is_default"]
    assert default["width"] == client.get("/").json()["defaults"]["width"]
    found = {entry["id"]: entry for entry in others}
    assert found.keys() == {"quick", "xl"}
    assert {name: entry["is_default"] for name, entry in found.items()} == {"quick": False, "xl": False}
    wanted = {"num_inference_steps": 6, "guidance_scale": 1.0, "sampler": "LCM", "width": 64, "size_multiple": 8}
    assert {name: found["quick"][name] for name in wanted} == wanted
    assert found["xl"]["family"] == "Stable Diffusion XL"


def test_textual_inversions_are_listed_with_the_models_that_can_use_them(client: httpx2.Client):
    found = {entry["id"]: entry["embeddings"] for entry in client.get("/v1/models").json()["data"]}
    assert found == {**found, "quick": ["glow"], "xl": ["glow-xl"]}
    listed = client.get("/sdapi/v1/embeddings").json()
    shapes = {name: (entry["shape"], entry["vectors"]) for name, entry in listed["skipped"].items()}
    assert shapes == {"glow": (32, 3), "glow-xl": (80, 2), "torn": (0, 0)}
    assert listed["loaded"] == {}  # the default model is the fake one, which has no text encoder


def test_the_default_model_s_textual_inversions_are_loaded(serve: Callable, models_dir: Path, embeddings_dir: Path):
    running = serve(model_id=str(models_dir / "quick"), embeddings_dir=embeddings_dir)
    listed = httpx2.get(f"{running.url}/sdapi/v1/embeddings").json()
    nothing = dict.fromkeys(("step", "sd_checkpoint", "sd_checkpoint_name"))
    assert listed["loaded"] == {"glow": {**nothing, "shape": 32, "vectors": 3}}
    assert listed["skipped"].keys() == {"glow-xl", "torn"}


def test_a_request_gets_the_defaults_of_the_model_that_it_names(client: httpx2.Client):
    answer = client.post("/generate", json={"prompt": "a cat", "model": "quick", "seed": 1})
    assert answer.status_code == 200
    assert answer.headers["X-Model-Id"] == "quick"
    job = client.get(f"/v1/jobs/{answer.headers['X-Job-Id']}").json()
    assert job["model"] == "quick"
    assert (job["params"]["num_inference_steps"], job["params"]["sampler"], job["params"]["width"]) == (6, "LCM", 64)
    document = client.post(
        "/generate", json={"prompt": "a cat", "model": "quick"}, headers={"Accept": "application/json"}
    )
    assert document.json()["model"] == "quick"
    named = client.get("/v1/models").json()["data"][0]["id"]
    assert client.post("/generate", json={"prompt": "a cat", "model": named}).headers["X-Model-Id"] == named


@pytest.mark.parametrize("name", ["other", "../quick", "quick.safetensors", "/etc/passwd", "", "damaged"])
def test_a_name_that_is_not_listed_is_refused(client: httpx2.Client, name: str):
    answer = client.post("/generate", json={"prompt": "a cat", "model": name})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["field"], error["rule"]) == ("model", "must be one of the names that GET /v1/models lists")


def test_a1111_s_clients_choose_a_model_for_good_or_for_one_request(client: httpx2.Client):
    """As an option of the key, which an override leaves as it was."""
    api = "/sdapi/v1"
    titles = [entry["title"] for entry in client.get(f"{api}/sd-models").json()]
    assert titles == [entry["id"] for entry in client.get("/v1/models").json()["data"]]
    default = client.get(f"{api}/options").json()["sd_model_checkpoint"]
    assert default == titles[0]

    def drawn(**body: object) -> tuple[str, dict]:
        answer = client.post(f"{api}/txt2img", json={"prompt": "a cat", **body})
        assert answer.status_code == 200, answer.text
        return answer.headers["X-Model-Id"], json.loads(answer.json()["info"])

    override = {"sd_model_checkpoint": "quick"}
    model, info = drawn(override_settings=override)
    assert (model, info["sd_model_name"], info["steps"], info["width"]) == ("quick", "quick", 6, 64)
    assert "Model: quick" in info["infotexts"][0]
    assert drawn()[0] == default
    assert client.post(f"{api}/options", json={"sd_model_checkpoint": "xl"}).status_code == 200
    assert client.get(f"{api}/options").json()["sd_model_checkpoint"] == "xl"
    assert client.get(f"{api}/embeddings").json()["loaded"].keys() == {"glow-xl"}
    assert (drawn()[0], drawn(override_settings=override)[0]) == ("xl", "quick")
    assert client.post(f"{api}/options", json={"sd_model_checkpoint": default}).status_code == 200
    assert drawn()[0] == default
    for body in ({"override_settings": {"sd_model_checkpoint": "other"}}, {"override_settings": {"sd_vae": "x.pt"}}):
        assert client.post(f"{api}/txt2img", json=body).status_code == 422
    assert client.post(f"{api}/options", json={"sd_model_checkpoint": "../quick"}).status_code == 422


def test_hugging_face_s_clients_name_models_in_the_address(client: httpx2.Client):
    for path, expected in (("models/quick", 200), ("hf-inference/models/xl", 200), ("models/other", 404)):
        answer = client.post(f"/{path}", json={"inputs": "a cat"})
        assert answer.status_code == expected, answer.text
        if expected == 200:
            assert answer.headers["X-Model-Id"] == path.rpartition("/")[2]


def test_openai_s_clients_name_models_too(client: httpx2.Client):
    for name, expected in (("quick", 200), ("dall-e-3", 200), ("other", 404)):
        answer = client.post("/v1/images/generations", json={"prompt": "a cat", "model": name, "size": "64x64"})
        assert answer.status_code == expected, answer.text
    wanted = "must be one of fake, quick, xl (or a dall-e-* or gpt-image-* name)"
    assert wanted in answer.json()["error"]["message"]
    assert client.get("/v1/models/quick").json()["sampler"] == "LCM"
