"""Whether each benchmark runs, on tiny counts: what it measures here is worth nothing, that it can be measured is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from benchmarks import against_diffusers, contention, full_size, model_calls, three_prompts
from engine.models.random_model import make_random_model

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 120.0
"""Far beyond what they take, for machines on which much else runs."""


@pytest.fixture(scope="module")
def started() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The scripts that need no weights, as commands, all at once: they mostly wait for imports."""
    arguments = {
        "border_cost": ["--repeats=3", "--waiting=5"],
        "cold_start": ["--model=fake", "--repeats=1"],
        "engines": ["--repeats=3", "--jobs=4"],
        "http_overhead": ["--repeats=3"],
        "memory": ["--model=fake", "--pictures=1", "--burst=3"],
        "submit_latency": ["--repeats=3", "--jobs=50"],
        "other_apis": ["--repeats=3"],
        "model_switches": ["--switches=6", "--backend=torch"],
        "two_models": ["--jobs=4", "--rounds=1"],
    }
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{name}", *options],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for name, options in arguments.items()
    }
    try:
        yield processes
    finally:
        for process in processes.values():
            with contextlib.suppress(ProcessLookupError):  # it has ended, and so have its servers
                os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=TIMEOUT_S)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_random_model(folder, arch="tiny", seed=3)
    return folder


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[str, dict[str, Any]]]]:
    """Run a script's `main` in this process, which has imported torch and diffusers already."""

    def run(script: ModuleType, *options: str) -> tuple[str, dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", [script.__name__, *options])
        if hasattr(script, "in_fresh_process"):
            monkeypatch.setattr(script, "in_fresh_process", lambda _policy, function, *args: function(*args))
        script.main()
        return told(capsys.readouterr().out)

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield run
    torch.set_num_threads(threads)


def finished(process: subprocess.Popen[str]) -> tuple[str, dict[str, Any]]:
    stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, stderr
    return told(stdout)


def told(printed: str) -> tuple[str, dict[str, Any]]:
    """Everything that was printed, and the JSON document of its last line."""
    return printed, json.loads(printed.splitlines()[-1])


def test_against_diffusers_compares_the_same_pictures(started, run_here, tiny_model):
    """While the commands are under way."""
    options = [f"--model={tiny_model}", "--size=64", "--steps=2", "--requests=2", "--repeats=1"]
    _, document = run_here(against_diffusers, *options)
    runs = document["results"]["unset"]
    assert runs["max_pixel_difference"].keys() == {"diffusers, a call each", "diffusers, one list"}
    assert max(runs["max_pixel_difference"].values()) <= 2
    assert runs["threads"] == 1
    assert {len(rounds) for rounds in runs["all_finished_s"].values()} == {1}
    [ours_mean], [ours_all] = runs["mean_completion_s"]["our engine"], runs["all_finished_s"]["our engine"]
    assert ours_mean < ours_all, "two pictures on a CPU are finished one after the other"


def test_three_prompts_prints_the_specifications_table(started, run_here, tiny_model):
    """While the commands are under way."""
    printed, document = run_here(three_prompts, f"--model={tiny_model}", "--device=cpu", "--size=64", "--repeats=1")
    rows = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("|")]
    assert rows[0] == "Test"
    assert rows[2:] == ["Image 1", "Image 2", "Image 3", "Average"]
    assert len(document["results"]["prompts"]) == len(document["results"]["seconds"]) == 3
    assert all(len(rounds) == 1 for image in document["results"]["seconds"] for rounds in image.values())


def test_contention_pairs_a_picture_in_quiet_with_one_in_company(started, run_here, tiny_model):
    """While the commands are under way."""
    options = [f"--model={tiny_model}", "--size=64", "--steps=2", "--repeats=2", "--backends=torch"]
    _, document = run_here(contention, *options)
    found = document["results"]["torch"]
    assert len(found["quiet_s"]) == len(found["busy_s"]) == 2
    ratios = [busy / quiet for busy, quiet in zip(found["busy_s"], found["quiet_s"], strict=True)]
    assert found["ratio"]["median"] == pytest.approx(sum(ratios) / 2, rel=1e-3)


def test_the_full_size_is_measured_by_steps_and_memory(started, run_here):
    """With a tiny model; while the commands are under way."""
    _, document = run_here(
        full_size, "--arch=tiny", "--size=64", "--steps=2", "--repeats=1", "--contenders=torch,diffusers"
    )
    assert document["results"]["contenders"].keys() == {"torch", "diffusers"}
    assert all(found["peak_mib"] > 100 for found in document["results"]["contenders"].values())
    assert document["results"]["least_step_s"] > 0
    assert [goal["claim"] for goal in document["goals"]] == ["a step, torch / diffusers"]


def test_model_calls_of_a_crowd_are_at_most_a_third(run_here):
    printed, document = run_here(model_calls)
    assert "| alike, all at once " in printed
    assert document["results"]["alike, all at once"] == {"in_turn": 8 * 28, "together": 28}
    assert all(goal["is_met"] for goal in document["goals"])


def test_cold_start_tells_health_ready_engine_and_first_picture_in_this_order(started):
    printed, document = finished(started["cold_start"])
    ours = document["results"]["ours"]
    seconds = [ours["since_start_s"][name]["median"] for name in ("/health answers", "engine ready", "first picture")]
    assert seconds == sorted(seconds)
    parts = ours["parts_s"]
    assert {"engine: import", "picture: denoise", "sampler table, noise, HTTP"} <= parts.keys()
    assert sum(part["median"] for part in parts.values()) == pytest.approx(seconds[-1], rel=1e-3)
    assert ours["first_start"]["picture_s"] > 0
    assert "first start to its picture" in printed


def test_border_cost_tells_each_request_with_and_without_the_border(started):
    printed, document = finished(started["border_cost"])
    for kind in ("GET /v1/jobs/{id}", "POST /v1/jobs"):
        assert all(document["results"][f"{kind}, {whose}"]["min"] > 0 for whose in ("whole", "bare"))
    assert [goal["claim"] for goal in document["goals"]] == [
        "GET /v1/jobs/{id}, added by the border, p50",
        "POST /v1/jobs, added by the border, p50",
        "a scrape beside 5 waiting jobs, p50",
    ]
    assert "| scrape " in printed


def test_memory_tells_peaks_that_only_grow(started):
    printed, document = finished(started["memory"])
    for process in ("gateway_mb", "engine_mb"):
        peaks = [moment[process] for moment in document["results"].values()]
        assert peaks == sorted(peaks)
        assert peaks[0] > 10
    assert list(document["results"]) == ["ready", "1 pictures in turn", "3 requests at once"]
    assert "| 3 requests at once " in printed


def test_http_overhead_adds_time_to_the_engines_own(started):
    _, document = finished(started["http_overhead"])
    assert document["results"].keys() == {"64x64", "512x512"}
    for figures in document["results"].values():
        assert 0 < figures["added to phases"]["p50"] < figures["over HTTP"]["max"]
        assert figures["over HTTP"]["min"] > figures["engine's phases"]["min"]


def test_submit_latency_tells_acceptance_and_first_step_of_both_stores(started):
    _, document = finished(started["submit_latency"])
    assert list(document["results"]) == ["empty store", "50 jobs"]
    for figures in document["results"].values():
        assert 0 < figures["accepted"]["p50"] <= figures["first step"]["max"]


def test_other_apis_are_measured_beside_our_own(started):
    _, document = finished(started["other_apis"])
    assert list(document["results"]) == ["/generate", "OpenAI", "AUTOMATIC1111", "Hugging Face"]
    assert all(figures["min"] >= 5 for figures in document["results"].values()), "five steps of 1 ms"


def test_engines_tells_how_many_jobs_two_draw_and_what_http_costs(started):
    _, document = finished(started["engines"])
    results = document["results"]
    assert list(results["jobs a second"]) == ["one local", "two local", "one over HTTP", "two over HTTP"]
    assert all(jobs > 0 for jobs in results["jobs a second"].values())
    assert results["milliseconds a job"].keys() == {"one local", "one over HTTP"}


def test_model_switches_tells_memory_and_its_slope(started):
    printed, document = finished(started["model_switches"])
    assert document["results"]["slope_mib_per_100"].keys() == {"torch"}
    (first,) = document["results"]["every_20th_mib"]["torch"]
    assert 50 < first < 2000
    assert "| torch | " in printed


def test_two_models_are_compared_with_one(started):
    _, document = finished(started["two_models"])
    (one,), (two,), (wait,) = document["results"].values()
    assert one > 0
    assert 0 < wait <= two
