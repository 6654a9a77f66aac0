"""Sampler tables on disk: the same bits as a fresh one, never those of something else, and never in a request's way."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine import table_store
from engine.errors import InvalidParamsError
from engine.journey import Journey, Route
from engine.journey_cache import JourneyCache
from engine.models.fake import SCHEDULER_CONFIG
from engine.samplers import SAMPLERS
from engine.table_store import TableStore
from tests.engine.sampler_table import route

DPM = route(SAMPLERS["DPMSolver++"], "karras", 28, 0)


def bits(journey: Journey) -> tuple[object, ...]:
    """Everything in a journey, minus zero apart from zero."""
    tensors = (journey.timesteps, journey.input_scales, journey.matrices)
    return (
        *((tensor.dtype, tuple(tensor.shape), tensor.numpy().tobytes()) for tensor in tensors),
        journey.draws,
        journey.initial_noise_scale.hex(),
        tuple(share.hex() for share in journey.entry_blend),
    )


def a_journey() -> Journey:
    """One call, one slot."""
    one = torch.zeros(1)
    return Journey(one, one, torch.zeros(1, 1, 3), torch.zeros(1, 2), (False,), 1.0, (1.0, 0.0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "sampler_tables"


@pytest.fixture
def no_probing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever probes from now on fails."""

    def probed(*_: object) -> None:
        raise AssertionError("probed")

    monkeypatch.setattr("engine.journey_cache.make_scheduler", probed)


def got(folder: Path, wanted: Route = DPM, config: dict[str, object] = SCHEDULER_CONFIG) -> Journey:
    """As a new process gets it."""
    return JourneyCache(config, store=TableStore(folder)).get(wanted)


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS.keys())
def test_a_table_from_the_disk_has_the_bits_of_a_fresh_one(folder: Path, sampler, monkeypatch: pytest.MonkeyPatch):
    routes = [route(sampler, schedule, 7, begin) for schedule in sampler.noise_schedules[:2] for begin in (0, 2)]
    fresh = [bits(JourneyCache(SCHEDULER_CONFIG).get(wanted)) for wanted in routes]
    for wanted in routes:
        got(folder, wanted)
    monkeypatch.setattr("engine.journey_cache.make_scheduler", None)
    assert [bits(got(folder, wanted)) for wanted in routes] == fresh


def test_a_process_that_finds_its_table_imports_no_diffusers(folder: Path):
    got(folder)
    program = (
        "import sys; from pathlib import Path\n"
        "from engine.journey_cache import JourneyCache; from engine.journey import Route\n"
        "from engine.models.fake import SCHEDULER_CONFIG; from engine.samplers import SAMPLERS\n"
        "from engine.table_store import TableStore\n"
        "route = Route(sampler=SAMPLERS['DPMSolver++'], noise_schedule='karras', num_inference_steps=28)\n"
        "cache = JourneyCache(SCHEDULER_CONFIG, store=TableStore(Path(sys.argv[1])))\n"
        "print(cache.get(route).num_calls, sorted({'diffusers', 'transformers', 'scipy'} & sys.modules.keys()))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True, timeout=120
    )
    assert run.stdout == "28 []\n", run.stderr


@pytest.mark.usefixtures("no_probing")
@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("sampler", route(SAMPLERS["DPM++ 3M"], "karras", 28, 0)),
        ("sampler's options", replace(DPM, sampler=replace(DPM.sampler, options={"solver_order": 1}))),
        ("noise schedule", replace(DPM, noise_schedule="exponential")),
        ("steps", replace(DPM, num_inference_steps=27)),
        ("begin", replace(DPM, begin=1)),
        ("eta", replace(DPM, eta=0.5)),
        ("model", DPM),
    ],
)
def test_every_part_of_a_route_and_of_the_model_has_a_table_of_its_own(folder: Path, name: str, changed: Route):
    """
    Nothing that a table depends on may be left out of its key.
    """
    journey = Journey(
        torch.zeros(1), torch.zeros(1), torch.zeros(1, 1, 3), torch.zeros(1, 2), (False,), 1.0, (1.0, 0.0)
    )
    TableStore(folder).write(SCHEDULER_CONFIG, DPM, journey)
    assert bits(got(folder)) == bits(journey)
    config = {**SCHEDULER_CONFIG, "beta_end": 0.013} if name == "model" else SCHEDULER_CONFIG
    with pytest.raises(AssertionError, match="probed"):
        got(folder, changed, config)


@pytest.mark.usefixtures("no_probing")
@pytest.mark.parametrize("maker", ["engine", *table_store._LIBRARIES, "libc", "machine", "torch_cpu", "numpy_cpu"])
def test_a_table_of_other_makers_is_probed_anew(folder: Path, maker: str, monkeypatch: pytest.MonkeyPatch):
    """
    Another version of a library or of our own code, another processor: the last bits may differ.
    """
    journey = Journey(
        torch.zeros(1), torch.zeros(1), torch.zeros(1, 1, 3), torch.zeros(1, 2), (False,), 1.0, (1.0, 0.0)
    )
    TableStore(folder).write(SCHEDULER_CONFIG, DPM, journey)
    others = {**table_store._made_by(), maker: "another"}
    assert others.keys() == table_store._made_by().keys()
    monkeypatch.setattr(table_store, "_made_by", lambda: others)
    with pytest.raises(AssertionError, match="probed"):
        got(folder)


def test_the_table_of_another_route_is_not_believed(folder: Path, caplog: pytest.LogCaptureFixture):
    """
    Whatever a file is called, it says itself what it is a table of.
    """
    got(folder)
    [ours] = folder.iterdir()
    data = ours.read_bytes()
    ours.unlink()
    other = replace(DPM, num_inference_steps=20)
    expected = bits(got(folder, other))
    [its] = folder.iterdir()
    its.write_bytes(data)
    assert bits(got(folder, other)) == expected
    assert "it is the table of something else" in caplog.text


def _one_digit_changed(data: bytes) -> bytes:
    place = data.rindex(b"0.")
    return data[:place] + b"1" + data[place + 1 :]


def _with_its_digest(document: bytes) -> bytes:
    return hashlib.sha256(document).hexdigest().encode() + b"\n" + document


@pytest.mark.parametrize(
    "damage",
    [
        _one_digit_changed,
        lambda data: data[: len(data) // 2],
        lambda _: b"",
        lambda data: data.replace(b'"timesteps"', b'"tImesteps"'),
        lambda _: b"\xff" * 100,
        lambda data: data + b" " * table_store.MAX_FILE_BYTES,
        lambda _: _with_its_digest(b"[1, 2]"),
        lambda _: _with_its_digest(b"{}"),
    ],
    ids=["a digit", "half a file", "empty", "a name", "no text", "too large", "a list", "an empty object"],
)
def test_a_damaged_table_is_probed_again_and_mended(folder: Path, caplog: pytest.LogCaptureFixture, damage):
    expected = bits(got(folder))
    [file] = folder.iterdir()
    whole = file.read_bytes()
    damaged = damage(whole)
    assert damaged != whole
    file.write_bytes(damaged)
    assert bits(got(folder)) == expected
    assert f"a sampler table on disk is damaged, probing it again: {file}" in caplog.text
    assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_made_costs_no_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    expected = bits(JourneyCache(SCHEDULER_CONFIG).get(DPM))
    assert bits(got(blocked / "tables")) == expected
    assert f"a sampler table cannot be kept in {blocked}" in caplog.text


def test_a_full_disk_costs_no_picture_and_leaves_nothing_half(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert bits(got(folder)) == bits(JourneyCache(SCHEDULER_CONFIG).get(DPM))
    assert "a sampler table cannot be kept" in caplog.text
    assert "No space left on device" in caplog.text
    assert not list(folder.iterdir())


@pytest.mark.usefixtures("no_probing")
def test_a_table_in_a_folder_that_is_only_read_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch):
    journey = Journey(
        torch.zeros(1), torch.zeros(1), torch.zeros(1, 1, 3), torch.zeros(1, 2), (False,), 1.0, (1.0, 0.0)
    )
    TableStore(folder).write(SCHEDULER_CONFIG, DPM, journey)

    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", read_only)
    assert bits(got(folder)) == bits(journey)


def test_a_refusal_is_not_kept(folder: Path):
    with pytest.raises(InvalidParamsError, match="num_inference_steps must suit"):
        got(folder, route(SAMPLERS["LCM"], "default", 60, 0))
    assert not folder.exists()


def test_the_store_has_a_limit_and_forgets_what_was_used_longest_ago(folder: Path):
    journey = JourneyCache(SCHEDULER_CONFIG).get(DPM)
    store = TableStore(folder)
    store.write(SCHEDULER_CONFIG, DPM, journey)
    [file] = folder.iterdir()
    store = TableStore(folder, max_bytes=round(3.5 * file.stat().st_size))
    routes = [replace(DPM, eta=share) for share in (0.1, 0.2, 0.3, 0.4)]
    left_over = folder / ".unfinished-x"
    left_over.write_bytes(b"x")
    os.utime(left_over, ns=(0, 0))
    for age, wanted in enumerate(routes):
        store.write(SCHEDULER_CONFIG, wanted, journey)
        for path in folder.iterdir():
            stat = path.stat()
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - 10**9 * (1 + age)))
        assert store.read(SCHEDULER_CONFIG, routes[0]) is not None  # used again and again
    assert not left_over.exists()
    assert store.read(SCHEDULER_CONFIG, DPM) is None
    assert store.read(SCHEDULER_CONFIG, routes[1]) is None
    assert all(store.read(SCHEDULER_CONFIG, wanted) is not None for wanted in (routes[0], routes[2], routes[3]))


def test_an_engine_with_a_store_logs_nothing_of_it(folder: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="engine"):
        got(folder)
        got(folder)
    assert not caplog.records
