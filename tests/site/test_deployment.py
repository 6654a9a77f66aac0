"""What systemd, Caddy and Docker are told of the site."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from django.urls import reverse

from newdreamflow.config.site_settings import SiteSettings
from tests.deploy.unit_file import values_of
from tests.site.production_site import REPOSITORY

DEPLOY = REPOSITORY / "deploy"


KINDS_OF_UNIT = {".service", ".socket", ".timer", ".path", ".target", ".mount", ".slice"}


UNITS = sorted(path for path in DEPLOY.rglob("*") if path.suffix in KINDS_OF_UNIT)

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def told_by_systemd(folder, unit, *arguments):
    """Status and words of `systemd-analyze` about a unit, with all of ours as installed, but for the program."""
    for path in UNITS:
        text = path.read_text().replace("/opt/semantic-bit/.venv/bin/python", sys.executable)
        (folder / path.name).write_text(text)
    told = subprocess.run(
        ["systemd-analyze", *arguments, str(folder / unit.name)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return told.returncode, told.stdout + told.stderr


@needs_systemd_analyze
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_has_nothing_to_say_against_a_unit(tmp_path, unit):
    assert told_by_systemd(tmp_path, unit, "verify", "--man=no") == (0, "")


@needs_systemd_analyze
@pytest.mark.parametrize(
    "unit", [unit for unit in UNITS if unit.name.startswith("newdreamflow") and unit.suffix == ".service"],
    ids=lambda path: path.name,
)  # fmt: skip
def test_systemd_finds_a_service_of_the_site_strict(tmp_path, unit):
    status, words = told_by_systemd(tmp_path, unit, "security", "--offline=true", "--threshold=12", "--no-pager")
    assert status == 0, words


def test_every_timer_starts_a_service_that_is_there():
    # Systemd itself does not look before it is time.
    names = {unit.name for unit in UNITS}
    timers = [unit for unit in UNITS if unit.suffix == ".timer"]
    assert [timer.name for timer in timers] == ["newdreamflow-tidy.timer"]
    for timer in timers:
        assert {*(values_of(timer, "Unit") or [timer.with_suffix(".service").name])} <= names


@pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed")
def test_caddy_understands_its_file(tmp_path):
    told = subprocess.run(
        ["caddy", "validate", "--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile.site")],
        env={**os.environ, "NEWDREAMFLOW_HOST": "dreams.example.org", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told.returncode == 0, told.stderr


def settings_that_are_read():
    """Their names in the environment."""
    return {name.upper() for name in SiteSettings.model_fields}


def test_every_setting_is_documented_and_nothing_else_is():
    page = (REPOSITORY / "docs" / "site.md").read_text()
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", page, flags=re.MULTILINE)) == settings_that_are_read()


@pytest.mark.parametrize("name", ["site.env", "compose.site.env.example"])
def test_examples_name_settings_that_are_read(name):
    text = (DEPLOY / "env" / name).read_text()
    assert set(re.findall(r"^(?:# )?([A-Z_]+)=", text, flags=re.MULTILINE)) <= settings_that_are_read()


@pytest.mark.django_db
def test_the_policy_lets_no_page_of_ours_run_what_is_written_into_it(client, staff_user):
    client.force_login(staff_user)
    for page in ("accounts:account", "accounts:password-change", "staff:overview"):
        body = client.get(reverse(page)).content.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style| style=| on[a-z]+=", body)
