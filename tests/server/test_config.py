"""Settings: where they come from, what they refuse, and that a refusal is one line."""

from __future__ import annotations

import os

import pytest
from pydantic import ValidationError

from server.config import Settings, StartError
from server.settings_file import load_settings, misspelt_names, unknown_names


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch, tmp_path):
    """No setting of the machine that runs the tests, and an empty working directory."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


SPECIFICATION = """
HOST=0.0.0.0
PORT=8000
RELOAD=false
MODEL_ID=runwayml/stable-diffusion-v1-5
DEVICE=cuda
TORCH_DTYPE=float16
DEFAULT_STEPS=28
DEFAULT_GUIDANCE_SCALE=7.0
DEFAULT_HEIGHT=512
DEFAULT_WIDTH=512
SCHEDULER_TYPE=DPMSolver++
USE_KARRAS_SIGMAS=true
OFFLINE_MODE=true
LOCAL_FILES_ONLY=true
MAX_CONCURRENT_REQUESTS=2
REQUEST_TIMEOUT=60
"""


def test_the_specifications_file_is_read_as_it_stands(tmp_path):
    (tmp_path / ".env").write_text(SPECIFICATION)
    settings = load_settings()
    assert settings.model_id == "runwayml/stable-diffusion-v1-5"
    assert (settings.device, settings.torch_dtype) == ("cuda", "float16")
    assert (settings.default_height, settings.default_width, settings.default_steps) == (512, 512, 28)
    assert (settings.sampler, settings.noise_schedule) == ("DPMSolver++", "karras")
    assert (settings.max_concurrent_requests, settings.request_timeout) == (2, 60.0)
    assert misspelt_names() == {}


def test_without_anything_the_built_in_model_is_served_on_loopback():
    settings = load_settings()
    assert (settings.host, settings.port, settings.model_id) == ("127.0.0.1", 8000, "models/dreamlet")
    assert (settings.device, settings.torch_dtype) == ("auto", "auto")
    assert settings.default_height is settings.default_width is settings.max_concurrent_requests is None


def test_the_environment_wins_over_the_file(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("PORT=1111\nDEFAULT_STEPS=11\n")
    monkeypatch.setenv("PORT", "2222")
    settings = load_settings()
    assert (settings.port, settings.default_steps) == (2222, 11)


def test_an_empty_value_means_unset(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("DEFAULT_HEIGHT=\nMAX_CONCURRENT_REQUESTS=\n")
    monkeypatch.setenv("PORT", "")
    settings = load_settings()
    assert settings.default_height is None
    assert settings.max_concurrent_requests is None
    assert settings.port == 8000


def test_settings_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().port = 1


@pytest.mark.parametrize(
    ("scheduler_type", "use_karras_sigmas", "expected"),
    [
        ("DPMSolver++", "true", ("DPMSolver++", "karras")),
        ("DPMSolver++", "false", ("DPMSolver++", "default")),
        ("dpm++ 2m karras", "false", ("DPMSolver++", "karras")),
        ("EulerAncestralDiscreteScheduler", "true", ("Euler a", "default")),
    ],
)
def test_a_sampler_may_be_named_as_people_know_it(monkeypatch, scheduler_type, use_karras_sigmas, expected):
    monkeypatch.setenv("SCHEDULER_TYPE", scheduler_type)
    monkeypatch.setenv("USE_KARRAS_SIGMAS", use_karras_sigmas)
    settings = load_settings()
    assert (settings.sampler, settings.noise_schedule) == expected


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("PORT", "http", "must be an integer"),
        ("PORT", "70000", "must be less than or equal to 65535"),
        ("RELOAD", "maybe", "must be true or false"),
        ("DEVICE", "tpu", "must be auto, cpu, cuda or cuda:N"),
        ("DEVICE", "cuda:x", "must be auto, cpu, cuda or cuda:N"),
        ("TORCH_DTYPE", "int8", "must be 'auto', 'float32', 'float16' or 'bfloat16'"),
        ("DEFAULT_STEPS", "0", "must be greater than or equal to 1"),
        ("DEFAULT_STEPS", "28.5", "must be an integer"),
        ("DEFAULT_GUIDANCE_SCALE", "nan", "must be a finite number"),
        ("DEFAULT_HEIGHT", "63", "must be greater than or equal to 64"),
        ("DEFAULT_WIDTH", "8192", "must be less than or equal to 2048"),
        ("SCHEDULER_TYPE", "Eulerr", "must be one of DPMSolver++, DPM++ 3M"),
        ("OFFLINE_MODE", "false", "must be true: the server never downloads; `python scripts/download_model.py ID`"),
        ("LOCAL_FILES_ONLY", "0", "must be true: the server never downloads"),
        ("MAX_CONCURRENT_REQUESTS", "0", "must be greater than or equal to 1"),
        ("REQUEST_TIMEOUT", "-1", "must be greater than 0"),
        ("REQUEST_TIMEOUT", "inf", "must be"),
        ("MAX_QUEUED_REQUESTS", "-1", "must be greater than or equal to 0"),
        ("ROWS_PER_CALL", "two", "must be an integer"),
        ("LOG_LEVEL", "loud", "must be 'debug'"),
        ("LOG_FORMAT", "xml", "must be 'auto'"),
    ],
)
def test_a_wrong_value_is_told_as_name_rule_and_value_in_one_line(monkeypatch, name, value, rule):
    monkeypatch.setenv(name, value)
    with pytest.raises(StartError) as caught:
        load_settings()
    line = str(caught.value)
    assert line.startswith(f"{name} {rule}")
    assert line.endswith(f"not {value!r}")
    assert "\n" not in line


def test_several_wrong_values_are_told_together(monkeypatch):
    monkeypatch.setenv("PORT", "x")
    monkeypatch.setenv("DEVICE", "y")
    with pytest.raises(StartError, match="PORT must be an integer, not 'x'; DEVICE must be auto"):
        load_settings()


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / ".env").write_bytes(b"MODEL_ID=\xff\xfe\n")
    with pytest.raises(StartError, match=r"^\.env cannot be read"):
        load_settings()


def test_a_name_that_looks_like_ours_is_found_and_others_are_let_be(tmp_path):
    (tmp_path / ".env").write_text("MODEL_IDD=x\nDEFAULT_STEP=3\nPATH_TO_MY_DOG=1\nport=8001\n")
    assert misspelt_names() == {"MODEL_IDD": "MODEL_ID", "DEFAULT_STEP": "DEFAULT_STEPS"}
    assert load_settings().port == 8001


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252"])
def test_a_file_in_any_encoding_is_read_or_refused_in_one_line(tmp_path, encoding):
    text = "PORT=8001\n# für alle\n"
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    (tmp_path / ".env").write_bytes(mark + text.encode(encoding))
    if not encoding.startswith("utf-8"):
        with pytest.raises(StartError, match=r"^\.env .*must be text in UTF-8"):
            load_settings()
    else:
        assert load_settings().port == 8001
        assert unknown_names() == {}


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
@pytest.mark.parametrize("change", [str.lower, str.upper, str.title, lambda name: f"x{name}", lambda name: name + "_x"])
def test_every_name_is_taken_in_any_letter_case_and_any_other_is_warned_about(tmp_path, name, change):
    (tmp_path / ".env").write_text(f"{change(name)}=\nSITE_X=1\n")
    assert list(unknown_names()) == ([] if change(name).lower() == name else [change(name)])


def test_the_hubs_cache_may_be_named_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", "/from/the/environment")
    monkeypatch.setenv("HF_HOME", "")  # given back when the test ends
    monkeypatch.delenv("HF_HOME")
    (tmp_path / ".env").write_text("HF_HOME=/models/hub\nHF_HUB_CACHE=/elsewhere\n")
    load_settings()
    assert (os.environ["HF_HOME"], os.environ["HF_HUB_CACHE"]) == ("/models/hub", "/from/the/environment")
    assert unknown_names() == {}


@pytest.mark.parametrize("value", ["0123456789abcdef0123456789abcde", "0123456789abcdef 0123456789abcdefé", " " * 40])
def test_a_wrong_api_key_is_told_without_its_value(monkeypatch, value):
    monkeypatch.setenv("API_KEY", value)
    with pytest.raises(StartError) as caught:
        load_settings()
    assert str(caught.value) == (
        "API_KEY must have 32 characters or more, printable ASCII, without leading or trailing spaces"
    )


def test_an_api_key_is_never_shown(monkeypatch):
    monkeypatch.setenv("API_KEY", "correct horse battery staple, and two more")
    settings = load_settings()
    assert settings.api_key.get_secret_value() == "correct horse battery staple, and two more"
    assert "staple" not in repr(settings) + str(settings) + settings.model_dump_json() + repr(settings.model_dump())
