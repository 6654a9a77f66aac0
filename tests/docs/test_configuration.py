"""Every setting is in `.env.example` and in `docs/configuration.md`, with its true default, and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dotenv import dotenv_values

from server.config import Settings

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = (REPOSITORY / ".env.example").read_text()
PAGE = (REPOSITORY / "docs" / "configuration.md").read_text()

SETTINGS = {name.upper(): field for name, field in Settings.model_fields.items()}
ROWS = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]*) \|", PAGE, flags=re.MULTILINE))


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_in_the_example_once_and_commented_out(name):
    assert len(re.findall(rf"^# ?{name}=", EXAMPLE, flags=re.MULTILINE)) == 1


def test_the_example_holds_nothing_else_and_sets_nothing(tmp_path):
    assert set(re.findall(r"^# ?([A-Z_]+)=", EXAMPLE, flags=re.MULTILINE)) == SETTINGS.keys()
    assert dotenv_values(REPOSITORY / ".env.example") == {}


def test_the_example_works_when_everything_in_it_is_switched_on(tmp_path):
    switched_on = tmp_path / ".env"
    switched_on.write_text(re.sub(r"^# ?([A-Z_]+=)", r"\1", EXAMPLE, flags=re.MULTILINE))
    settings = Settings(_env_file=switched_on)
    assert settings.model_id == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert settings.device == "cuda"


def test_every_setting_is_documented_and_nothing_else_is():
    assert ROWS.keys() == SETTINGS.keys()


@pytest.mark.parametrize("name", SETTINGS)
def test_the_documented_default_is_the_true_one(name):
    default = SETTINGS[name].default
    documented = ROWS[name].strip().strip("`")
    if default is None:
        assert documented == "unset"
    elif isinstance(default, tuple):
        assert documented == ",".join(default)
    elif isinstance(default, bool):
        assert documented == str(default).lower()
    else:
        assert type(default)(documented) == default


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_says_what_it_means_where_it_is_declared(name):
    assert SETTINGS[name].description
