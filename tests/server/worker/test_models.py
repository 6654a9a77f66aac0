"""One engine process that draws with several models: their pictures are those of each alone, whatever leaves memory."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.backends.torch_backend import TorchBackend
from engine.engine import Engine
from engine.models.loading import load_text_encoder, load_unet, load_vae
from engine.models.random_model import make_random_model
from engine.models.sizes import memory_bytes
from engine.params import GenerationParams
from engine.shelf import Shelf
from server.executors.messages import (
    Cancel,
    Configure,
    FromEngine,
    ImageReady,
    JobDone,
    JobFailed,
    ModelsChanged,
    Submit,
)
from server.worker.engine_worker import EngineWorker
from server.worker.models import shelf_of
from server.worker.start_up import start_engine

PATIENCE_S = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("default", "second", "third")):
        make_random_model(folder / name, seed=seed)
    make_random_model(folder / "xl", arch="tiny-xl")
    make_random_model(folder / "gone", seed=9)
    (folder / "embeddings").mkdir()
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    save_file({"emb_params": vectors}, folder / "embeddings" / "glow.safetensors")
    (folder / "gone" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    return folder


class Process:
    """An engine process, but for the process."""

    def __init__(self, folder: Path, budget_bytes: int | None) -> None:
        names = ("second", "third", "xl", "gone")
        configuration = Configure(
            model_id=str(folder / "default"),
            device="cpu",
            dtype="float32",
            backend="torch",
            rows_per_call=4,
            model_name="default",
            models={name: str(folder / name) for name in names},
            device_memory_bytes=budget_bytes,
            embeddings_folder=str(folder / "embeddings"),
        )
        engine, self.info = start_engine(configuration, lambda _: None)
        self.shelf: Shelf[Engine] = shelf_of(configuration, engine, self.info)
        self.told: list[ModelsChanged] = []
        self.said: queue.SimpleQueue[FromEngine] = queue.SimpleQueue()
        self.worker = EngineWorker(engine, self.said.put, shelf=self.shelf)
        self._thread = threading.Thread(target=self.worker.run, daemon=True)
        self._thread.start()

    def ask(self, job_id: str, model: str, **wishes: object) -> None:
        ordinary = {"prompt": "a cat", "seed": 7, "num_inference_steps": 3, "height": 64, "width": 64}
        self.worker.handle(Submit(job_id, GenerationParams(model=model, **(ordinary | wishes)), "png"))

    def ends(self, number: int) -> dict[str, bytes | JobFailed]:
        """What becomes of so many jobs: a file, or why there is none."""
        found: dict[str, bytes | JobFailed] = {}
        num_ended = 0
        while num_ended < number:
            message = self.said.get(timeout=PATIENCE_S)
            if isinstance(message, ModelsChanged):
                self.told.append(message)
            elif isinstance(message, ImageReady):
                found[message.job_id] = message.data
            elif isinstance(message, JobFailed):
                found[message.job_id] = message
            num_ended += isinstance(message, JobDone | JobFailed)
        return found

    def stop(self) -> None:
        self.worker.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


@pytest.fixture
def process(request: pytest.FixtureRequest, folder: Path) -> Iterator[Process]:
    """Of a budget that holds so many models of the usual size."""
    size = memory_bytes(folder / "default", 4)
    process = Process(folder, None if request.param is None else request.param * size + 1)
    yield process
    process.stop()


def drawn(process: Process) -> dict[str, bytes]:
    """One picture with each of three models, alone."""
    files: dict[str, bytes] = {}
    for name in ("", "second", "third"):
        process.ask(f"alone {name}", name)
        file = process.ends(1)[f"alone {name}"]
        assert isinstance(file, bytes), file
        files[name] = file
    return files


@pytest.mark.parametrize("process", [1, 2, None], indirect=True, ids=["room for one", "room for two", "no limit"])
def test_pictures_are_those_of_each_model_alone_whatever_leaves_memory(process: Process):
    alone = drawn(process)
    assert len(set(alone.values())) == 3
    told = process.told[-1]
    assert told.resident == tuple(process.shelf.resident)
    assert told.resident[-1] == "third"
    assert told.sizes[""] == told.sizes["second"] < told.sizes["xl"]
    assert told.load_seconds.keys() == {"second", "third"}
    order = ["second", "", "third", "second", "third", "", ""]
    for index, name in enumerate(order):
        process.ask(str(index), name)
    together = process.ends(len(order))
    assert [together[str(index)] == alone[name] for index, name in enumerate(order)] == [True] * len(order)


@pytest.mark.parametrize("process", [1], indirect=True)
def test_what_is_cancelled_or_cannot_be_drawn_lets_its_model_go(process: Process):
    process.ask("long", "second", num_inference_steps=150, height=256, width=256)
    process.ask("next", "third")
    process.worker.handle(Cancel("long"))
    assert isinstance(process.ends(1)["next"], bytes)
    process.ask("odd", "third", height=68)
    process.ask("unknown", "nowhere")
    process.ask("too large", "xl")
    process.ask("last", "")
    ends = process.ends(4)
    assert isinstance(ends["last"], bytes)
    words = {job_id: end.message for job_id, end in ends.items() if isinstance(end, JobFailed)}
    assert words["odd"] == "height must be a multiple of 8, not 68"
    assert words["unknown"].startswith("model must be one of the names that GET /v1/models lists")
    assert words["too large"].startswith("the model xl needs")


@pytest.mark.parametrize("process", [None], indirect=True)
def test_a_model_whose_files_are_damaged_fails_its_own_jobs_only(process: Process):
    process.ask("lost", "gone")
    process.ask("drawn", "")
    ends = process.ends(2)
    assert isinstance(ends["drawn"], bytes)
    assert isinstance(ends["lost"], JobFailed)
    assert "diffusion_pytorch_model.safetensors is damaged" in ends["lost"].message


def test_all_models_run_on_one_backend_with_as_many_threads(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """OpenVINO leaves torch one thread, which is not what the next model may use."""
    chosen: list[tuple[object, ...]] = []

    def choose(*arguments: object) -> TorchBackend:
        chosen.append(arguments)
        return TorchBackend()

    monkeypatch.setattr("server.worker.models.choose_backend", choose)
    process = Process(folder, None)
    for name in ("second", "third"):
        process.ask(name, name)
        assert isinstance(process.ends(1)[name], bytes)
    process.stop()
    assert [(arguments[0], arguments[-1]) for arguments in chosen] == [("torch", process.info.num_threads)]
    assert process.info.num_threads


def test_the_size_of_a_model_is_that_of_its_weights(folder: Path):
    loads = (load_unet, load_vae, load_text_encoder, functools.partial(load_text_encoder, part="text_encoder_2"))
    networks = [load(folder / "xl", torch.float32, torch.device("cpu")) for load in loads]
    held = sum(parameter.nbytes for network in networks for parameter in network.parameters())
    assert memory_bytes(folder / "xl", 4) == held


@pytest.mark.parametrize("process", [1], indirect=True)
def test_every_model_reads_textual_inversions_also_when_it_is_loaded_again(process: Process):
    drawn: dict[str, list[bytes | JobFailed]] = {}
    for turn in range(2):
        for model in ("", "second"):
            for prompt in ("a glow cat", "a gliw cat"):
                name = f"{model} {prompt}"
                process.ask(f"{name} {turn}", model, prompt=prompt, prompt_syntax="weighted")
                drawn.setdefault(name, []).append(process.ends(1)[f"{name} {turn}"])
    assert all(isinstance(first, bytes) and first == again for first, again in drawn.values())
    assert len({first for first, _ in drawn.values()}) == 4


@pytest.mark.parametrize("process", [None], indirect=True)
def test_a_textual_inversion_for_another_model_is_refused_by_name(process: Process):
    process.ask("0", "xl", prompt="a cat", negative_prompt="glow", prompt_syntax="weighted")
    refused = process.ends(1)["0"]
    assert isinstance(refused, JobFailed)
    assert refused.message.startswith(
        "negative_prompt must not name the textual inversion glow: its vectors have 32 numbers, those of this model's "
        "text encoders"
    )
