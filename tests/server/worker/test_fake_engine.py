"""The fake engine process: it starts at once, keeps its times, and fails when it is told to."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.models.locate import ModelFolder, is_fake_engine, locate
from engine.params import GenerationParams
from server.executors.messages import Cancel, FromEngine, ImageReady, JobDone, Ping, Pong, Progress, Submit, WorkDone
from server.worker.fake_engine import HANG, POISON, FakeEngine, script_of
from tests.processes import REPOSITORY


def submit(job_id: str, **wishes: object) -> Submit:
    ordinary = {"prompt": "a cat", "seed": 7, "num_inference_steps": 5, "height": 64, "width": 64}
    return Submit(job_id, GenerationParams(**(ordinary | wishes)), "png")


class Conversation:
    """A fake engine on a thread, and all that it says."""

    def __init__(self, *, step_s: float = 0.0, max_images_in_flight: int = 4) -> None:
        self.said: list[FromEngine] = []
        self.engine = FakeEngine(self.said.append, step_s=step_s, max_images_in_flight=max_images_in_flight)
        threading.Thread(target=self.engine.run, daemon=True).start()

    def tell(self, *messages: Submit | Cancel | Ping) -> None:
        for message in messages:
            self.engine.handle(message)

    def wait_for(self, *jobs: str) -> None:
        deadline = time.monotonic() + 20
        while not set(jobs) <= {message.job_id for message in self.said if isinstance(message, JobDone)}:
            assert time.monotonic() < deadline, self.said
            time.sleep(0.002)

    def steps(self) -> list[tuple[str, int]]:
        return [(message.job_id, message.step) for message in self.said if isinstance(message, Progress)]


@pytest.mark.parametrize(
    ("model_id", "step_s", "load_s"),
    [("fake-engine", 0.02, 0), ("fake-engine:5", 0.005, 0), ("fake-engine:0:1500", 0, 1.5)],
)
def test_its_model_id_says_how_long_everything_takes(model_id: str, step_s: float, load_s: float):
    assert script_of(model_id) == (step_s, load_s)
    assert is_fake_engine(model_id)
    assert locate(model_id) == ModelFolder(model_id, None, 512, 512, pixels_per_latent=8)


@pytest.mark.parametrize("model_id", ["fake", "fake-engine:", "fake-engine:-1", "fake-engine:1:2:3", "fake-engine:x"])
def test_other_names_are_not_its(model_id: str):
    assert not is_fake_engine(model_id)


def test_its_process_imports_nothing_large():
    """
    It is to be back within a blink after each of a chaos test's kills.
    """
    told = subprocess.run(
        [sys.executable, "-c", "import sys, server.worker.fake_engine; print(*sys.modules)"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = set(told.stdout.split())
    assert "server.worker.fake_engine" in loaded
    assert not loaded & {"torch", "numpy", "PIL", "diffusers", "fastapi", "asyncio"}


def test_all_that_is_in_flight_takes_each_step_together():
    talk = Conversation(step_s=0.02)
    talk.tell(submit("a"), submit("b"), submit("c", num_images=2))
    talk.wait_for("a", "b", "c")
    assert talk.steps() == [(name, step) for step in range(1, 6) for name in ("a", "b", "c", "c")]
    steps = [message for message in talk.said if isinstance(message, WorkDone) and message.kind == "step"]
    assert len(steps) == 5
    assert all(0.02 <= step.seconds < 0.2 and step.rows == 8 for step in steps)


def test_what_does_not_fit_waits():
    talk = Conversation(max_images_in_flight=2)
    talk.tell(submit("a", num_images=2), submit("b"))
    talk.wait_for("a", "b")
    assert talk.steps() == [("a", step) for step in range(1, 6) for _ in "12"] + [("b", step) for step in range(1, 6)]


def test_a_cancel_is_heard_before_the_next_step():
    talk = Conversation(step_s=0.02)
    talk.tell(submit("long", num_inference_steps=150), submit("other", num_inference_steps=20))
    while ("long", 3) not in talk.steps():
        time.sleep(0.001)
    talk.tell(Cancel("long"), Ping(1))
    talk.wait_for("other")
    assert ("long", 6) not in talk.steps()
    after = talk.said[talk.said.index(Pong(1)) :]
    assert {message.job_id for message in after if isinstance(message, Progress)} == {"other"}
    assert not any(isinstance(message, ImageReady) and message.job_id == "long" for message in talk.said)


def test_its_pictures_show_what_was_asked():
    talk = Conversation()
    talk.tell(submit("a"), submit("same"), submit("seed", seed=8), submit("prompt", prompt="a dog"))
    talk.wait_for("a", "same", "seed", "prompt")
    files = {message.job_id: message.data for message in talk.said if isinstance(message, ImageReady)}
    assert files["a"] == files["same"]
    assert len(set(files.values())) == 3


def test_told_to_hang_it_answers_nothing_more():
    talk = Conversation()
    talk.tell(submit("a", prompt=f"please {HANG} here"))
    time.sleep(0.1)
    talk.tell(Ping(1), submit("b"))
    time.sleep(0.1)
    assert [type(message) for message in talk.said] == [WorkDone]


@pytest.mark.parametrize("prompt", ["the hanging gardens", "something poisonous", "a change"])
def test_words_that_only_resemble_the_faults_are_harmless(prompt: str):
    talk = Conversation()
    talk.tell(submit("a", prompt=prompt))
    talk.wait_for("a")


def test_poison_ends_the_process_in_the_middle_of_a_step(tmp_path: Path):
    script = f"""
from server.worker.fake_engine import FakeEngine
from server.executors.messages import Submit
from engine.params import GenerationParams

engine = FakeEngine(lambda message: print(type(message).__name__, flush=True), step_s=0.01, max_images_in_flight=4)
for name, prompt in (("a", "a cat"), ("b", "some {POISON}")):
    engine.handle(Submit(name, GenerationParams(prompt=prompt, seed=1), "png"))
engine.run()
"""
    told = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert told.returncode == 1
    assert told.stdout.split() == ["WorkDone", "WorkDone"]
