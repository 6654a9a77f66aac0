"""Whether `scripts/download_model.py` fetches what the server reads, and tells failures in one line.

The hub is a small one on this machine; nothing leaves it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

REPOSITORY = Path(__file__).resolve().parents[2]
DREAMLET = REPOSITORY / "models" / "dreamlet"
REVISION = "0123456789abcdef0123456789abcdef01234567"
SUCCESSOR = "stable-diffusion-v1-5/stable-diffusion-v1-5"


class Hub(ThreadingHTTPServer):
    """As much of the Hugging Face hub as a download asks for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.models: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.fetched: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/").split("/")
        is_api = path[:2] == ["api", "models"]
        owner, name, *rest = path[2:] if is_api else path
        model_id = f"{owner}/{name}"
        if model_id in self.server.gated:
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif model_id not in self.server.models:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif is_api:
            self.answer_api(model_id, rest)
        else:
            self.answer_file(model_id, "/".join(rest[2:]))

    def answer_api(self, model_id: str, rest: list[str]) -> None:
        files = self.server.models[model_id]
        if rest[:1] == ["tree"]:
            listing = [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ]
            self.answer(200, json.dumps(listing).encode())
        else:
            siblings = [{"rfilename": path} for path in files]
            self.answer(200, json.dumps({"id": model_id, "sha": REVISION, "siblings": siblings}).encode())

    def answer_file(self, model_id: str, path: str) -> None:
        content = self.server.models[model_id].get(path)
        if content is None:
            self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        if self.command == "GET":
            self.server.fetched.append(path)
        self.answer(200, content, {"X-Repo-Commit": REVISION, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for header, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def repository() -> dict[str, bytes]:
    """A model as it lies on the hub, with much that the server does not read."""
    files = {str(path.relative_to(DREAMLET)): path.read_bytes() for path in DREAMLET.rglob("*") if path.is_file()}
    for part, stem in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        files[f"{part}/{stem}.fp16.safetensors"] = files[f"{part}/{stem}.safetensors"]
        files[f"{part}/{stem}.bin"] = b"pickle"
    return files | {"v1-5-pruned.ckpt": b"pickle", "safety_checker/model.safetensors": b"", "README.md": b""}


def download(cache: Path, *arguments: str, endpoint: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "download_model.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], "HF_HOME": str(cache), "HF_ENDPOINT": endpoint, **environment},
    )


def test_it_fetches_one_checkpoint_which_needs_nothing_beside_it(hub, tmp_path):
    tensors = {
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(1, 4, 1, 1),
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(1, 768),
        "first_stage_model.x": torch.zeros(1),
        "cond_stage_model.transformer.x": torch.zeros(1),
    }
    hub.models["someone/paints"] = {"paints.safetensors": save(tensors), "paints.ckpt": b"pickle"}
    folder = tmp_path / "models"
    wanted = ("--file", "paints.safetensors", "--output", str(folder))
    done = download(tmp_path, "someone/paints", *wanted, endpoint=hub.url)
    assert done.returncode == 0, done.stderr
    assert f"MODEL_ID={folder}/paints.safetensors" in done.stdout
    assert sorted(hub.fetched) == ["paints.safetensors"]
    for name, words in (("other.safetensors", "has no file other.safetensors"), ("paints.ckpt", "must end in")):
        done = download(tmp_path, "someone/paints", "--file", name, "--output", str(folder), endpoint=hub.url)
        assert done.returncode == 1
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("arguments", "suffix"), [((), ".safetensors"), (("--variant", "fp16"), ".fp16.safetensors")])
def test_it_fetches_what_the_server_reads_and_nothing_else(hub, repository, tmp_path, arguments, suffix):
    hub.models["someone/paints"] = repository
    done = download(tmp_path, "someone/paints", *arguments, endpoint=hub.url)
    assert done.returncode == 0, done.stderr
    assert "MODEL_ID=someone/paints" in done.stdout
    assert "%" in done.stderr, "no progress bar"
    assert sorted(hub.fetched) == sorted(
        [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "text_encoder/config.json",
            f"text_encoder/model{suffix}",
            "tokenizer/tokenizer.json",
            "tokenizer/tokenizer_config.json",
            "unet/config.json",
            f"unet/diffusion_pytorch_model{suffix}",
            "vae/config.json",
            f"vae/diffusion_pytorch_model{suffix}",
        ]
    )


def test_a_model_that_has_moved_is_fetched_from_its_new_place(hub, repository, tmp_path):
    hub.models[SUCCESSOR] = repository
    done = download(tmp_path, "runwayml/stable-diffusion-v1-5", endpoint=hub.url)
    assert done.returncode == 0, done.stderr
    assert f"fetching {SUCCESSOR}" in done.stdout
    assert "MODEL_ID=runwayml/stable-diffusion-v1-5" in done.stdout


def assert_one_line(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode == 1
    assert done.stderr.startswith("download_model: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_an_unknown_model_is_told(hub, tmp_path):
    assert_one_line(download(tmp_path, "no/such", endpoint=hub.url), "the hub has no model no/such")


def test_a_gated_model_is_told(hub, tmp_path):
    hub.gated.add("some/gated")
    assert_one_line(download(tmp_path, "some/gated", endpoint=hub.url), "accept its licence")


def test_a_model_without_safetensors_is_not_fetched(hub, repository, tmp_path):
    hub.models["some/pickle"] = {name: data for name, data in repository.items() if "unet/diff" not in name}
    assert_one_line(download(tmp_path, "some/pickle", endpoint=hub.url), "no unet/diffusion_pytorch_model.safetensors")
    assert hub.fetched == []


def test_a_missing_network_is_told(tmp_path):
    # Port 9 of this machine: nobody listens.
    assert_one_line(download(tmp_path, "a/b", endpoint="http://127.0.0.1:9"), "the hub cannot be reached")


def test_a_forbidden_network_is_told(tmp_path):
    done = download(tmp_path, "a/b", endpoint="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert_one_line(done, "HF_HUB_OFFLINE is set")


@pytest.mark.parametrize("model_id", ["../..", "https://example.com/a/b", "a b/c", ""])
def test_what_is_no_id_is_refused(tmp_path, model_id):
    assert_one_line(download(tmp_path, model_id, endpoint="http://127.0.0.1:9"), "it has the form OWNER/NAME")


def test_help_needs_no_network(tmp_path):
    done = download(tmp_path, "--help", endpoint="http://127.0.0.1:9")
    assert done.returncode == 0
    assert "--variant" in done.stdout
