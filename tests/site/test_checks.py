"""What `manage.py check` says about the way to the GPU server; and that it never says the key."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from tests.processes import REPOSITORY
from tests.site.whole_site import environment_of

KEY = "sb_live_12345678_abcdefghijklmnopqrstuvwxyz"
HERE = "http://127.0.0.1:8000"
ELSEWHERE = "https://gpu.example.org"


@pytest.fixture
def checked(settings):
    """`manage.py check` with these two settings: all that it says."""

    def check(url, key):
        settings.GPU_SERVER_URL, settings.GPU_SERVER_API_KEY = url, key
        told = io.StringIO()
        try:
            call_command("check", stdout=told, stderr=told)
        except SystemCheckError as error:
            told.write(str(error))
        return told.getvalue()

    return check


def findings_in(told):
    return set(re.findall(r"\((dreams\.\w+)\)", told))


@pytest.mark.parametrize(
    ("url", "key"),
    [
        (HERE, ""), (HERE, KEY), (f"{HERE}/behind/a/path", ""), ("http://localhost:8000", ""),
        ("http://[::1]:8000", ""), ("HTTPS://127.0.0.1", ""), (ELSEWHERE, KEY), (f"{ELSEWHERE}:8443", "!~"),
    ],
)  # fmt: skip
def test_a_way_that_can_be_right_is_not_found_fault_with(checked, url, key):
    assert checked(url, key) == "System check identified no issues (0 silenced).\n"


@pytest.mark.parametrize(
    "url",
    [
        "", "127.0.0.1:8000", "gpu.example.org", "/v1/jobs", "ftp://gpu.example.org", "unix:///run/gpu.sock", "http://",
        "http:127.0.0.1:8000", "http://127.0.0.1:65536", "http://127.0.0.1:0", "http://127.0.0.1:http", "http://[::1",
    ],
)  # fmt: skip
def test_what_is_no_url_is_named(checked, url):
    told = checked(url, KEY)
    assert findings_in(told) == {"dreams.E001"}
    assert f"GPU_SERVER_URL must be a URL such as http://127.0.0.1:8000, not {url!r}" in told


def test_what_is_no_url_and_may_hold_a_password_is_not_repeated(checked):
    told = checked("http://ada:s3cret@127.0.0.1:99999", KEY)
    assert findings_in(told) == {"dreams.E001"}
    assert "s3cret" not in told


@pytest.mark.parametrize("url", ["http://ada:s3cret@127.0.0.1", "http://ada@127.0.0.1", f"{HERE}?s3cret", f"{HERE}#x"])
def test_what_else_a_url_can_hold_is_refused_and_not_repeated(checked, url):
    told = checked(url, "")
    assert findings_in(told) == {"dreams.E002"}
    assert "GPU_SERVER_URL must not hold a name, a password or a query" in told
    assert "s3cret" not in told


@pytest.mark.parametrize("spoil", ["{} ", "{}\n", "\r{}", "{}\t", "two {}", "{}é", "{}\x00", "\ufeff{}", "{}\u2028"])
@pytest.mark.parametrize("url", [HERE, ELSEWHERE])
def test_a_key_that_no_header_can_carry_is_refused_and_not_repeated(checked, url, spoil):
    told = checked(url, spoil.format(KEY))
    assert findings_in(told) == {"dreams.E003"}
    assert "GPU_SERVER_API_KEY must be printable ASCII without spaces" in told
    assert KEY not in told


def test_another_machine_wants_a_key(checked):
    told = checked(ELSEWHERE, "")
    assert findings_in(told) == {"dreams.E004"}
    assert "GPU_SERVER_API_KEY must be set when the GPU server is another machine" in told
    assert "keys create --name site" in told


@pytest.mark.parametrize("url", ["http://gpu.example.org", "http://192.0.2.7:8000", "http://0.0.0.0:8000"])
def test_what_travels_in_the_clear_is_warned_of(checked, url):
    told = checked(url, KEY)
    assert findings_in(told) == {"dreams.W001"}
    assert "key and prompts travel in the clear" in told
    assert KEY not in told


def test_everything_that_is_wrong_is_said_at_once(checked):
    assert findings_in(checked("http://ada@gpu.example.org", "")) == {"dreams.E002", "dreams.E004", "dreams.W001"}
    assert findings_in(checked("http://ada@gpu.example.org", f" {KEY}")) == {
        "dreams.E002",
        "dreams.E003",
        "dreams.W001",
    }


def test_the_command_reads_both_from_the_environment_and_ends_with_a_failure(tmp_path):
    environment = environment_of(tmp_path, 8000, 8001) | {
        "GPU_SERVER_URL": "http://gpu.example.org",
        "GPU_SERVER_API_KEY": f"{KEY} and a word",
    }
    command = [sys.executable, "newdreamflow/manage.py", "check"]
    ended = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert findings_in(ended.stderr) == {"dreams.E003", "dreams.W001"}
    assert KEY not in ended.stdout + ended.stderr
